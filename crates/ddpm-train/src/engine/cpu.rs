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

use super::{Batch, reverse_variance};
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
    /// The weight of the variational bound.
    bound: f64,
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
            bound: train.bound,
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
        rng.fill_normal(Purpose::TrainNoise, &batch.positions, 0, &mut self.eps)?;
        // The mean over pixels and images of weight · (output − target)², and its gradient.
        let scale = 1.0 / (images * pixels) as f64;
        let rows: Vec<ImageRow<'_>> = zip(batch.indices, &batch.t)
            .zip(zip(self.eps.chunks(pixels), &batch.weights))
            .map(|((&index, &t), (eps, weight))| {
                let alpha_bar = schedule.alphas_cumprod()[t];
                let [floor, slope] = reverse_variance(schedule, t)?;
                Ok(ImageRow {
                    bound: (self.bound * slope * scale) as f32,
                    floor: floor as f32,
                    slope: slope as f32,
                    image: &data.images()[index as usize * pixels..][..pixels],
                    eps,
                    signal: alpha_bar.sqrt() as f32,
                    noise: (1.0 - alpha_bar).sqrt() as f32,
                    noise_variance: (1.0 - alpha_bar) as f32,
                    weight: (weight * scale) as f32,
                })
            })
            .collect::<Result<_>>()?;

        self.workspace.input_mut().par_chunks_mut(images).enumerate().for_each(|(panel, x_t)| {
            for (x_t, row) in zip(x_t, &rows) {
                let (x_start, eps) = row.panel(panel);
                *x_t = Row(std::array::from_fn(|i| row.signal * x_start[i] + row.noise * eps[i]));
            }
        });
        self.network.forward(&self.training.weights, &mut self.workspace, &batch.t, &batch.labels);

        let kind = self.network.output_type();
        let [(output, gradient), (spread, spread_gradient)] = self.workspace.outputs_and_gradients();
        if !spread.is_empty() {
            let panels = gradient.par_chunks_mut(images).zip(output.par_chunks(images));
            let spreads = spread_gradient.par_chunks_mut(images).zip(spread.par_chunks(images));
            let losses: Vec<f64> = panels
                .zip(spreads)
                .enumerate()
                .map(|(panel, ((gradient, m), (spread_gradient, p)))| {
                    let mut sums = [0.0; PANEL];
                    let gradients = zip(gradient, spread_gradient);
                    for ((gradients, (m, p)), row) in zip(gradients, zip(m, p)).zip(&rows) {
                        row.gaussian(panel, (m, p), gradients, &mut sums);
                    }
                    sums.into_iter().map(f64::from).sum()
                })
                .collect();
            self.network.backward(&mut self.training, &mut self.workspace, size.rounded());
            return Ok(Tensor::new(losses.iter().sum::<f64>() as f32, &Device::Cpu)?);
        }
        let panels = gradient.par_chunks_mut(images).zip(output.par_chunks(images)).enumerate();
        let losses: Vec<f64> = panels
            .map(|(panel, (gradient, output))| {
                let mut sums = [0.0; PANEL];
                for ((gradient, output), row) in zip(gradient, output).zip(&rows) {
                    let (x_start, eps) = row.panel(panel);
                    for i in 0..PANEL {
                        let target = match kind {
                            PredictionType::Epsilon => eps[i],
                            PredictionType::Sample => x_start[i],
                            PredictionType::VPrediction => row.signal * eps[i] - row.noise * x_start[i],
                        };
                        let error = output.0[i] - target;
                        gradient.0[i] = 2.0 * row.weight * error;
                        sums[i] += row.weight * error * error;
                    }
                }
                sums.into_iter().map(f64::from).sum()
            })
            .collect();
        self.network.backward(&mut self.training, &mut self.workspace, size.rounded());
        // Summed in the order of the pixels, whichever thread was first.
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
    /// 1−ᾱ.
    noise_variance: f32,
    /// The reverse step's variance is `floor + slope · Var x₀`.
    floor: f32,
    slope: f32,
    /// The weight of the bound, times `slope`.
    bound: f32,
}

impl ImageRow<'_> {
    /// The gradient with respect to m and u of a Gaussian head (see [`Head::Gaussian`](ddpm_model::Head)), of the
    /// weighted squared error plus the weighted bound, per pixel with σ² = f + s·v
    ///
    /// ```text
    /// ½ [ln σ² + (f + s (x₀−x̂₀)²)/σ²]
    /// ```
    #[inline]
    fn gaussian(
        &self,
        panel: usize,
        (m, p): (&Row, &Row),
        (m_gradient, u_gradient): (&mut Row, &mut Row),
        sums: &mut [f32; PANEL],
    ) {
        let (x_start, eps) = self.panel(panel);
        for i in 0..PANEL {
            let (m, p) = (m.0[i], p.0[i]);
            let x_t = self.signal * x_start[i] + self.noise * eps[i];
            let surprise = self.signal * (x_t - self.signal * m);
            let output_error = m - x_start[i];
            let error = output_error + p * surprise;
            let variance = self.noise_variance * p;
            let precision = 1.0 / (self.floor + self.slope * variance);
            let by_mean = error * self.bound * precision;
            let by_variance =
                0.5 * self.bound * self.slope * (variance - error * error) * precision * precision;
            m_gradient.0[i] =
                2.0 * self.weight * output_error + by_mean * (1.0 - self.signal * self.signal * p);
            u_gradient.0[i] = p * (1.0 - p) * (by_mean * surprise + by_variance * self.noise_variance);
            sums[i] += self.weight * output_error * output_error;
        }
        // Past the last pixel there is nothing to learn, though p is not 0 there.
        u_gradient.0[self.image.len().saturating_sub(panel * PANEL).min(PANEL)..].fill(0.0);
    }

    /// x₀ and ε of a panel of pixels; both are zero past the last pixel.
    #[inline]
    fn panel(&self, panel: usize) -> ([f32; PANEL], [f32; PANEL]) {
        let (image, eps) = (&self.image[panel * PANEL..], &self.eps[panel * PANEL..]);
        if let (Some(image), Some(eps)) = (image.first_chunk::<PANEL>(), eps.first_chunk()) {
            return (image.map(to_model_scale), *eps);
        }
        let (mut x_start, mut last) = ([0.0; PANEL], [0.0; PANEL]);
        for (i, (&pixel, &eps)) in zip(image, eps).enumerate() {
            (x_start[i], last[i]) = (to_model_scale(pixel), eps);
        }
        (x_start, last)
    }
}
