//! Training steps by the CPU kernels.

use std::iter::zip;

use candle_core::{Device, Tensor};
use ddpm_core::{CounterRng, NoiseSchedule, PredictionType};
use ddpm_data::{Dataset, to_model_scale};
use ddpm_kernels::{Training, Weights};
use ddpm_model::{Parameter, initial_weights};

use super::{Batch, GradNorm};
use crate::{Result, TrainConfig, optimizer::StepSize, part::Part, post_hoc_ema::SIGMA_RELS};

/// Trains with the CPU kernels. The buffers live as long as the engine, so a step allocates only the lists of its batch.
#[derive(Debug)]
pub(crate) struct CpuEngine {
    training: Training,
    /// The averages by power functions; empty if the run has none.
    power_averages: Vec<Weights>,
    parameters: Vec<Parameter>,
    parameterization: PredictionType,
    noise_candidates: usize,
    /// The noise samples of the batch, [B, pixels].
    eps: Vec<f32>,
}

impl CpuEngine {
    pub(super) fn new(train: &TrainConfig, schedule: &NoiseSchedule) -> Result<Self> {
        let (config, batch) = (&train.denoiser, train.batch_size);
        let weights = initial_weights(config, train.seed, &Device::Cpu)?;
        let parameters = config.parameters();
        let values = parameters.iter().map(|p| weights[&p.name].flatten_all()?.to_vec1());
        let values = values.collect::<candle_core::Result<Vec<_>>>()?;
        let training = Training::new(config.cpu_network(schedule), &values, batch);
        let zeros: Vec<Vec<f32>> = parameters.iter().map(|p| vec![0.0; p.len()]).collect();
        Ok(Self {
            power_averages: vec![training.network().pack(&zeros); train.power_averages()],
            training,
            parameters,
            parameterization: config.parameterization,
            noise_candidates: train.noise_candidates,
            eps: vec![0.0; batch * config.pixels()],
        })
    }

    #[allow(clippy::cast_possible_truncation, reason = "coefficients are computed in f64 and rounded once")]
    pub(super) fn step(
        &mut self,
        batch: &Batch<'_>,
        data: &Dataset,
        schedule: &NoiseSchedule,
        rng: CounterRng,
        size: StepSize,
        norm: GradNorm,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let (images, pixels) = (batch.indices.len(), data.image_size());
        batch.fill_noise(data, rng, self.noise_candidates, &mut self.eps)?;
        let rows: Vec<NoisedImage<'_>> = zip(&batch.t, self.eps.chunks(pixels))
            .enumerate()
            .map(|(index, (&t, eps))| {
                let alpha_cumprod = schedule.alphas_cumprod()[t];
                let (signal, noise) = (alpha_cumprod.sqrt() as f32, (1.0 - alpha_cumprod).sqrt() as f32);
                let image = batch.image(data, index);
                let target = self.parameterization.target(alpha_cumprod);
                NoisedImage { image, eps, x_t: [signal, noise], target: [target.0 as f32, target.1 as f32] }
            })
            .collect();
        // The loss is the mean over pixels and images of weight · (output − target)².
        let scale = 1.0 / (images * pixels) as f64;
        let weights: Vec<f32> = batch.weights.iter().map(|weight| (weight * scale) as f32).collect();
        let inputs = ddpm_kernels::Batch { t: &batch.t, classes: &batch.labels, weights: &weights };
        let x_t = |image: usize, pixel: usize| rows[image].mix(rows[image].x_t, pixel);
        let target = |image: usize, pixel: usize| rows[image].mix(rows[image].target, pixel);
        let scalar = |value: f64| Tensor::new(value as f32, &Device::Cpu);
        if let GradNorm::Ignore = norm {
            let loss = self.training.step(&inputs, x_t, target, size.rounded());
            return Ok((scalar(loss)?, None));
        }
        let (loss, norm) = self.training.step_with_norm(&inputs, x_t, target, size.rounded(), norm.max());
        Ok((scalar(loss)?, Some(scalar(norm)?)))
    }

    /// Moves the averages by power functions towards the weights.
    #[allow(clippy::cast_possible_truncation, reason = "computed in f64 and rounded once")]
    pub(super) fn average(&mut self, rates: [f64; SIGMA_RELS.len()]) {
        for (average, rate) in zip(&mut self.power_averages, rates) {
            self.training.average(average, rate as f32);
        }
    }

    pub(super) fn part(&self, part: Part) -> Result<Vec<(String, Tensor)>> {
        let values = match part {
            Part::PowerAverage(index) => self.training.network().unpack(&self.power_averages[index]),
            Part::Step(part) => self.training.part(part),
        };
        let tensor = |(p, values): (&Parameter, Vec<f32>)| {
            Ok((p.name.clone(), Tensor::from_vec(values, p.shape.as_slice(), &Device::Cpu)?))
        };
        zip(&self.parameters, values).map(tensor).collect()
    }

    pub(super) fn restore(&mut self, get: impl Fn(&str, &[usize]) -> Result<Tensor>) -> Result<()> {
        let part = |&part: &Part| -> Result<Vec<Vec<f32>>> {
            let values = |p: &Parameter| {
                Ok(get(&part.tensor_name(&p.name), &p.shape)?.flatten_all()?.to_vec1::<f32>()?)
            };
            self.parameters.iter().map(values).collect()
        };
        // Reads all parts before it sets one, so that a failure leaves the state unchanged.
        let parts = Part::all(self.power_averages.len());
        let values = parts.iter().map(part).collect::<Result<Vec<_>>>()?;
        for (part, values) in zip(parts, &values) {
            match part {
                Part::PowerAverage(index) => {
                    self.power_averages[index] = self.training.network().pack(values);
                }
                Part::Step(part) => self.training.set_part(part, values),
            }
        }
        Ok(())
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
