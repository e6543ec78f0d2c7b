//! Steps by the kernels of a CPU.

use std::iter::zip;

use candle_core::{Device, Tensor};
use ddpm_core::{AddressedRng, NoiseSchedule, PredictionType, Purpose};
use ddpm_data::{DataSet, to_model_scale};
use ddpm_model::{
    Parameter,
    cpu::{CpuNetwork, PANEL, Packed, Row, Training, Workspace},
    initial_weights,
};
use rayon::prelude::*;

use super::Batch;
use crate::{
    Result, TrainConfig,
    optimizer::{StatePart, StepSize},
};

/// Buffers that live as long as the engine: a step allocates little besides the lists of its batch.
#[derive(Debug)]
pub(crate) struct CpuEngine {
    network: CpuNetwork,
    parameters: Vec<Parameter>,
    training: Training,
    workspace: Workspace,
    /// The noise of the batch, [B, pixels].
    eps: Vec<f32>,
}

impl CpuEngine {
    pub(super) fn new(train: &TrainConfig, schedule: &NoiseSchedule) -> Result<Self> {
        let (config, batch) = (&train.denoiser, train.batch_size);
        let weights = initial_weights(config, train.seed, &Device::Cpu)?;
        let parameters = config.parameters();
        let values = parameters.iter().map(|p| weights[&p.name].flatten_all()?.to_vec1());
        let network = CpuNetwork::new(config, schedule);
        let weights = network.pack(&values.collect::<candle_core::Result<Vec<_>>>()?);
        Ok(Self {
            training: Training {
                first: network.zeros(),
                second: network.zeros(),
                ema: weights.clone(),
                weights,
            },
            workspace: network.workspace(batch),
            network,
            parameters,
            eps: vec![0.0; batch * config.pixels()],
        })
    }

    #[allow(clippy::cast_possible_truncation, reason = "coefficients are computed in f64 and rounded once")]
    pub(super) fn step(
        &mut self,
        batch: &Batch<'_>,
        data: &DataSet,
        schedule: &NoiseSchedule,
        rng: AddressedRng,
        size: StepSize,
    ) -> Result<Tensor> {
        let (images, pixels) = (batch.indices.len(), data.image_size());
        rng.fill_normal(Purpose::TRAIN_NOISE, &batch.positions, 0, &mut self.eps)?;
        // The mean over pixels and images of weight · (output − target)², and its gradient.
        let scale = 1.0 / (images * pixels) as f64;
        let image_at = |place: usize, index: u32| match &batch.moved {
            Some(moved) => &moved[place * pixels..][..pixels],
            None => &data.images()[index as usize * pixels..][..pixels],
        };
        let rows: Vec<ImageRow<'_>> = zip(batch.indices, &batch.t)
            .enumerate()
            .zip(zip(self.eps.chunks(pixels), &batch.weights))
            .map(|((place, (&index, &t)), (eps, weight))| {
                let alpha_bar = schedule.alphas_cumprod()[t];
                ImageRow {
                    image: image_at(place, index),
                    eps,
                    signal: alpha_bar.sqrt() as f32,
                    noise: (1.0 - alpha_bar).sqrt() as f32,
                    weight: (weight * scale) as f32,
                }
            })
            .collect();

        let order = self.network.order();
        self.workspace.input_mut().par_chunks_mut(images).zip(order).for_each(|(x_t, order)| {
            for (x_t, row) in zip(x_t, &rows) {
                *x_t = Row(row.panel(order).x_t(row));
            }
        });
        self.network.forward(&self.training.weights, &mut self.workspace, &batch.t, &batch.labels);

        let kind = self.network.output_type();
        let (output, gradient) = self.workspace.output_and_gradient();
        let panels = gradient.par_chunks_mut(images).zip(output.par_chunks(images)).zip(order);
        let losses: Vec<f64> = panels
            .map(|((gradient, output), order)| {
                let mut sums = [0.0; PANEL];
                for ((gradient, output), row) in zip(gradient, output).zip(&rows) {
                    row.error(kind, &row.panel(order), output, gradient, &mut sums);
                }
                sums.into_iter().map(f64::from).sum()
            })
            .collect();
        self.network.backward(&mut self.training, &mut self.workspace, size.rounded());
        // Summed in the order of the panels, whichever thread was first.
        Ok(Tensor::new(losses.iter().sum::<f64>() as f32, &Device::Cpu)?)
    }

    pub(super) fn part(&self, part: StatePart) -> Result<Vec<(String, Tensor)>> {
        let packed = match part {
            StatePart::Weights => &self.training.weights,
            StatePart::First => &self.training.first,
            StatePart::Second => &self.training.second,
            StatePart::Ema => &self.training.ema,
        };
        let tensor = |(p, values): (&Parameter, Vec<f32>)| {
            Ok((p.name.clone(), Tensor::from_vec(values, p.shape.as_slice(), &Device::Cpu)?))
        };
        zip(&self.parameters, self.network.unpack(packed)).map(tensor).collect()
    }

    pub(super) fn restore(&mut self, get: impl Fn(&str, &[usize]) -> Result<Tensor>) -> Result<()> {
        let part = |part: StatePart| -> Result<Packed> {
            let values =
                |p: &Parameter| Ok(get(&part.name_of(&p.name), &p.shape)?.flatten_all()?.to_vec1::<f32>()?);
            Ok(self.network.pack(&self.parameters.iter().map(values).collect::<Result<Vec<_>>>()?))
        };
        self.training = Training {
            weights: part(StatePart::Weights)?,
            first: part(StatePart::First)?,
            second: part(StatePart::Second)?,
            ema: part(StatePart::Ema)?,
        };
        Ok(())
    }
}

/// What a step needs of an image.
struct ImageRow<'a> {
    image: &'a [u8],
    eps: &'a [f32],
    /// √ᾱ and √(1−ᾱ).
    signal: f32,
    noise: f32,
    weight: f32,
}

impl ImageRow<'_> {
    /// The gradient of the weighted squared error with respect to the output, of the kind `kind`.
    #[inline]
    fn error(
        &self,
        kind: PredictionType,
        Panel { x_start, eps, inside }: &Panel,
        output: &Row,
        gradient: &mut Row,
        sums: &mut [f32; PANEL],
    ) {
        for i in 0..PANEL {
            let target = match kind {
                PredictionType::Epsilon => eps[i],
                PredictionType::Sample => x_start[i],
                PredictionType::VPrediction => self.signal * eps[i] - self.noise * x_start[i],
            };
            let weight = inside[i] * self.weight;
            let error = output.0[i] - target;
            gradient.0[i] = 2.0 * weight * error;
            sums[i] += weight * error * error;
        }
    }

    /// The pixels of a panel.
    #[inline]
    fn panel(&self, order: &[usize; PANEL]) -> Panel {
        let pixel = |pixel: usize| self.image.get(pixel).map_or(0.0, |&pixel| to_model_scale(pixel));
        Panel {
            x_start: order.map(pixel),
            eps: order.map(|pixel| self.eps.get(pixel).copied().unwrap_or(0.0)),
            inside: order.map(|pixel| if pixel < self.image.len() { 1.0 } else { 0.0 }),
        }
    }
}

/// x₀ and ε of a panel of pixels, both zero past the edge of the image; and there, where nothing is asked, 0 instead
/// of 1.
struct Panel {
    x_start: [f32; PANEL],
    eps: [f32; PANEL],
    inside: [f32; PANEL],
}

impl Panel {
    #[inline]
    fn x_t(&self, row: &ImageRow<'_>) -> [f32; PANEL] {
        std::array::from_fn(|i| row.signal * self.x_start[i] + row.noise * self.eps[i])
    }
}
