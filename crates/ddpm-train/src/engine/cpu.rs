//! Training steps by the CPU kernels.

use std::{collections::BTreeMap, iter::zip};

use candle_core::{Device, Tensor};
use ddpm_core::{NoiseSchedule, PredictionType};
use ddpm_data::to_model_scale;
use ddpm_kernels::{StatePart, Training, Weights};
use ddpm_model::{Parameter, initial_weights};

use super::{Batch, GradNorm};
use crate::{Result, TrainConfig, optimizer::StepSize, part::Part, post_hoc_ema::SIGMA_RELS};

/// Trains with the CPU kernels. The buffers live as long as the engine, so a step allocates only the lists of its batch.
#[derive(Debug)]
pub(crate) struct CpuEngine {
    training: Training,
    /// The parts of the state that do not change at each step.
    others: BTreeMap<Part, Weights>,
    parameters: Vec<Parameter>,
    noising: Noising,
}

impl CpuEngine {
    pub(super) fn new(train: &TrainConfig, schedule: &NoiseSchedule, batch: usize) -> Result<Self> {
        let config = &train.denoiser;
        let weights = initial_weights(config, train.seed, &Device::Cpu)?;
        let parameters = config.parameters();
        let values = parameters.iter().map(|p| weights[&p.name].flatten_all()?.to_vec1());
        let values = values.collect::<candle_core::Result<Vec<_>>>()?;
        let training = Training::new(config.cpu_network(schedule), &values, batch);
        let others = Part::of_run(train).into_iter().filter(|part| !matches!(part, Part::Step(_)));
        Ok(Self {
            others: others.map(|part| (part, training.network().zeros())).collect(),
            training,
            parameters,
            noising: Noising {
                parameterization: config.parameterization,
                candidates: train.noise_candidates,
                eps: vec![0.0; batch * config.pixels()],
            },
        })
    }

    pub(super) fn step(
        &mut self,
        batch: &Batch<'_>,
        schedule: &NoiseSchedule,
        size: StepSize,
        norm: GradNorm,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let noised = self.noising.apply(batch, schedule)?;
        let (inputs, x_t, target, step) =
            (noised.inputs(batch), noised.x_t(), noised.target(), size.rounded());
        if let GradNorm::Ignore = norm {
            return Ok((scalar(self.training.step(&inputs, x_t, target, step))?, None));
        }
        let (loss, norm) = self.training.step_with_norm(&inputs, x_t, target, step, norm.max());
        Ok((scalar(loss)?, Some(scalar(norm)?)))
    }

    /// Computes the loss and the gradient, which it copies to `exchange`.
    #[allow(clippy::cast_possible_truncation, reason = "rounded once")]
    pub(super) fn gradient(
        &mut self,
        batch: &Batch<'_>,
        schedule: &NoiseSchedule,
        exchange: &mut Vec<f32>,
    ) -> Result<f32> {
        let noised = self.noising.apply(batch, schedule)?;
        let (loss, gradient) = self.training.gradient(&noised.inputs(batch), noised.x_t(), noised.target());
        exchange.resize(gradient.value_count(), 0.0);
        gradient.copy_to(exchange);
        Ok(loss as f32)
    }

    /// Takes a step from a gradient, and returns the norm of the gradient.
    pub(super) fn step_with_gradient(
        &mut self,
        gradient: &[f32],
        size: StepSize,
        norm: GradNorm,
    ) -> Result<Option<Tensor>> {
        self.training.packed_gradient().copy_from(gradient);
        let measured = self.training.step_with_gradient(size.rounded(), norm.max());
        match norm {
            GradNorm::Ignore => Ok(None),
            GradNorm::Measure | GradNorm::Clip(_) => scalar(measured).map(Some),
        }
    }

    /// Moves the averages by power functions towards the weights, each with its rate.
    #[allow(clippy::cast_possible_truncation, reason = "computed in f64 and rounded once")]
    pub(super) fn average(&mut self, rates: [f64; SIGMA_RELS.len()]) {
        for (index, rate) in rates.into_iter().enumerate() {
            if let Some(average) = self.others.get_mut(&Part::PowerAverage(index)) {
                self.training.average(average, rate as f32);
            }
        }
    }

    /// A part of the state in the memory layout of the kernels.
    pub(super) fn packed(&mut self, part: Part) -> &mut Weights {
        match part {
            Part::Step(part) => self.training.packed_part(part),
            _ => self.others.entry(part).or_insert_with(|| self.training.network().zeros()),
        }
    }

    pub(super) fn values(&mut self, part: Part) -> Vec<f32> {
        let packed = self.packed(part);
        let mut values = vec![0.0; packed.value_count()];
        packed.copy_to(&mut values);
        values
    }

    pub(super) fn part(&self, part: Part) -> Result<Vec<(String, Tensor)>> {
        let values = match part {
            Part::Step(part) => self.training.part(part),
            _ => self.training.network().unpack(&self.others[&part]),
        };
        let tensor = |(p, values): (&Parameter, Vec<f32>)| {
            Ok((p.name.clone(), Tensor::from_vec(values, p.shape.as_slice(), &Device::Cpu)?))
        };
        zip(&self.parameters, values).map(tensor).collect()
    }

    pub(super) fn restore(&mut self, get: impl Fn(&str, &[usize]) -> Result<Tensor>) -> Result<()> {
        let part = |part: Part| -> Result<(Part, Vec<Vec<f32>>)> {
            let values = |p: &Parameter| {
                Ok(get(&part.tensor_name(&p.name), &p.shape)?.flatten_all()?.to_vec1::<f32>()?)
            };
            Ok((part, self.parameters.iter().map(values).collect::<Result<_>>()?))
        };
        // Reads all parts before it sets one, so that a failure leaves the state unchanged.
        let parts = self.others.keys().copied().chain(StatePart::ALL.map(Part::Step));
        for (part, values) in parts.map(part).collect::<Result<Vec<_>>>()? {
            match part {
                Part::Step(part) => self.training.set_part(part, &values),
                _ => drop(self.others.insert(part, self.training.network().pack(&values))),
            }
        }
        Ok(())
    }
}

/// A scalar tensor.
#[allow(clippy::cast_possible_truncation, reason = "rounded once")]
fn scalar(value: f64) -> Result<Tensor> {
    Ok(Tensor::new(value as f32, &Device::Cpu)?)
}

/// Adds noise to the images of a batch.
#[derive(Debug)]
struct Noising {
    parameterization: PredictionType,
    /// The number of noise samples from which each image takes the nearest one.
    candidates: usize,
    /// The noise samples of the batch, [B, pixels].
    eps: Vec<f32>,
}

impl Noising {
    #[allow(clippy::cast_possible_truncation, reason = "coefficients are computed in f64 and rounded once")]
    fn apply<'a>(&'a mut self, batch: &'a Batch<'_>, schedule: &NoiseSchedule) -> Result<Noised<'a>> {
        let pixels = batch.data.image_size();
        batch.fill_noise(self.candidates, &mut self.eps)?;
        let image = |(index, (&t, eps)): (usize, (&usize, &'a [f32]))| {
            let alpha_cumprod = schedule.alphas_cumprod()[t];
            let (signal, noise) = (alpha_cumprod.sqrt() as f32, (1.0 - alpha_cumprod).sqrt() as f32);
            let image = batch.image(index);
            let target = self.parameterization.target(alpha_cumprod);
            NoisedImage { image, eps, x_t: [signal, noise], target: [target.0 as f32, target.1 as f32] }
        };
        // The loss is the mean over pixels and images of weight · (output − target)².
        let scale = 1.0 / (batch.total * pixels) as f64;
        Ok(Noised {
            images: zip(&batch.t, self.eps.chunks(pixels)).enumerate().map(image).collect(),
            weights: batch.weights.iter().map(|weight| (weight * scale) as f32).collect(),
        })
    }
}

/// A batch as the kernels take it.
struct Noised<'a> {
    images: Vec<NoisedImage<'a>>,
    /// The weight of each image's squared error in the loss.
    weights: Vec<f32>,
}

impl Noised<'_> {
    fn inputs<'a>(&'a self, batch: &'a Batch<'_>) -> ddpm_kernels::Batch<'a> {
        ddpm_kernels::Batch { t: &batch.t, classes: &batch.labels, weights: &self.weights }
    }

    /// A value of xₜ by the indices of image and pixel.
    fn x_t(&self) -> impl Fn(usize, usize) -> f32 + Sync {
        |image, pixel| self.images[image].mix(self.images[image].x_t, pixel)
    }

    /// A value of the network's target by the indices of image and pixel.
    fn target(&self) -> impl Fn(usize, usize) -> f32 + Sync {
        |image, pixel| self.images[image].mix(self.images[image].target, pixel)
    }
}

/// An image of a batch with its noise, and the coefficients of x₀ and ε in xₜ and in the target.
struct NoisedImage<'a> {
    image: &'a [u8],
    eps: &'a [f32],
    /// The coefficients of x₀ and ε in xₜ: √ᾱ and √(1−ᾱ).
    x_t: [f32; 2],
    /// The coefficients of x₀ and ε in the network's target.
    target: [f32; 2],
}

impl NoisedImage<'_> {
    /// A pixel of the weighted sum of x₀ and ε.
    #[inline]
    fn mix(&self, [of_x_start, of_eps]: [f32; 2], pixel: usize) -> f32 {
        of_x_start * to_model_scale(self.image[pixel]) + of_eps * self.eps[pixel]
    }
}
