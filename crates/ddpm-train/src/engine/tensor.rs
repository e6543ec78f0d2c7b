//! Steps by tensors and autograd, on any device.

use candle_core::{DType, Device, Tensor, Var};
use ddpm_core::{AddressedRng, NoiseSchedule, PredictionType, Purpose};
use ddpm_data::DataSet;
use ddpm_model::{Belief, Denoiser, Parameter, initial_weights};

use super::{Batch, SURPRISE, reverse_variance};
use crate::{
    Result, TrainConfig,
    optimizer::{StepSize, TensorAdamW},
};

/// Tensors and autograd; the data set is on the device, so that a step copies only noise to it.
#[derive(Debug)]
pub(crate) struct TensorEngine {
    denoiser: Denoiser,
    /// [N, pixels], as bytes: a quarter of the memory of f32.
    images: Tensor,
    pub(super) optimizer: TensorAdamW,
    /// The weight of the variational bound.
    bound: f64,
}

impl TensorEngine {
    pub(super) fn new(
        train: &TrainConfig,
        schedule: &NoiseSchedule,
        data: &DataSet,
        device: &Device,
    ) -> Result<Self> {
        let config = &train.denoiser;
        let weights = initial_weights(config, train.seed, device)?;
        // In the order of the layers, not of the hash map, so that every run is alike.
        let var = |p: Parameter| Ok((p.name.clone(), Var::from_tensor(&weights[&p.name])?));
        let vars: Vec<(String, Var)> = config.parameters().into_iter().map(var).collect::<Result<_>>()?;
        let tensors = vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        Ok(Self {
            denoiser: Denoiser::new(config, schedule.config(), tensors)?,
            images: upload(data, device)?,
            optimizer: TensorAdamW::new(vars)?,
            bound: train.bound,
        })
    }

    pub(super) fn step(&mut self, batch: &Batch<'_>, rng: AddressedRng, size: StepSize) -> Result<Tensor> {
        let x_start = match &batch.moved {
            Some(moved) => {
                let shape = (batch.indices.len(), self.images.dim(1)?);
                on_model_scale(&Tensor::from_slice(moved, shape, self.images.device())?)?
            }
            None => gather(&self.images, batch.indices)?,
        };
        let eps = rng.normal_like(Purpose::TRAIN_NOISE, &batch.positions, 0, &x_start)?;
        let parts = losses(&self.denoiser, &batch.weights, &x_start, &eps, &batch.t, &batch.labels)?;
        let loss = match &parts.bound {
            Some(bound) => (&parts.error + (bound * self.bound)?)?,
            None => parts.error.clone(),
        };
        self.optimizer.step(&loss.backward()?, size)?;
        Ok(parts.error.detach())
    }
}

/// A data set on a device, [N, pixels] as bytes.
pub(crate) fn upload(data: &DataSet, device: &Device) -> Result<Tensor> {
    Ok(Tensor::from_slice(data.images(), (data.len(), data.image_size()), device)?)
}

/// Some of the images, on the scale [−1, 1].
pub(crate) fn gather(images: &Tensor, indices: &[u32]) -> Result<Tensor> {
    let indices = Tensor::new(indices, images.device())?;
    on_model_scale(&images.index_select(&indices, 0)?)
}

/// Levels on the scale [−1, 1].
fn on_model_scale(levels: &Tensor) -> Result<Tensor> {
    Ok(levels.to_dtype(DType::F32)?.affine(1.0 / 127.5, -1.0)?)
}

/// What a network is trained on, scalars.
struct Losses {
    /// The weighted mean squared error of the network's output.
    error: Tensor,
    /// With a Gaussian head, the variational bound's part that depends on the network, per pixel in nats.
    bound: Option<Tensor>,
}

/// The losses of a batch.
fn losses(
    denoiser: &Denoiser,
    weights: &[f64],
    x_start: &Tensor,
    eps: &Tensor,
    t: &[usize],
    labels: &[u32],
) -> Result<Losses> {
    let schedule = denoiser.schedule();
    let x_t = schedule.q_sample(x_start, t, eps)?;
    let (output, belief) = denoiser.forward_with_belief(&x_t, t, labels)?;
    let error = weighted_error(denoiser, weights, &output, x_start, eps, t)?;
    let bound = match belief {
        Some(Belief { x_start: mean, variance }) => {
            let squares = (mean - x_start)?.sqr()?;
            let column = |part: usize| -> Result<Tensor> {
                let column = t.iter().map(|&t| Ok(reverse_variance(schedule, t)?[part]));
                let column =
                    Tensor::from_vec(column.collect::<Result<Vec<f64>>>()?, (t.len(), 1), &Device::Cpu)?;
                Ok(column.to_dtype(variance.dtype())?.to_device(variance.device())?)
            };
            let (floor, slope) = (column(0)?, column(1)?);
            let reverse = variance.broadcast_mul(&slope)?.broadcast_add(&floor)?;
            let expected = squares.broadcast_mul(&slope)?.broadcast_add(&floor)?;
            let (ratio, most) = (expected.div(&reverse)?, f64::from(SURPRISE));
            let surprise = (ratio.minimum(most)? + ((ratio.maximum(most)? / most)?.log()? * most)?)?;
            Some(((reverse.log()? + surprise)? * 0.5)?.mean_all()?)
        }
        None => None,
    };
    Ok(Losses { error, bound })
}

/// The weighted mean squared error of the network's output, a scalar.
pub(crate) fn weighted_error(
    denoiser: &Denoiser,
    weights: &[f64],
    output: &Tensor,
    x_start: &Tensor,
    eps: &Tensor,
    t: &[usize],
) -> Result<Tensor> {
    let target = match denoiser.config().output_type {
        PredictionType::Epsilon => eps.clone(),
        PredictionType::Sample => x_start.clone(),
        PredictionType::VPrediction => denoiser.schedule().velocity(x_start, t, eps)?,
    };
    let squares = (output - target)?.sqr()?;
    let weights = Tensor::new(weights, &Device::Cpu)?.to_dtype(DType::F32)?.to_device(x_start.device())?;
    Ok((squares.mean(1)? * weights)?.mean_all()?)
}

#[cfg(test)]
mod tests {
    use ddpm_core::ScheduleConfig;
    use ddpm_model::{DenoiserConfig, Head, Network};

    use super::*;

    /// The bound is, where the network is not much surprised, the divergence of each reverse step from q(x_prev given
    /// xₜ, x₀), but for what does not depend on the network, from the definitions in f64; for t = 0 of a level's bin.
    #[test]
    fn the_bound_is_the_divergence_of_the_reverse_steps() {
        let schedule = NoiseSchedule::new(&ScheduleConfig::mnist20()).unwrap();
        let network = Network::Mlp { width: 16, hidden: 24, blocks: 1, embedding: 8 };
        let config = DenoiserConfig { network, head: Head::Gaussian, ..DenoiserConfig::mlp(3, 4, 2) };
        let mut weights = initial_weights(&config, 1, &Device::Cpu).unwrap();
        let rng = AddressedRng::new(2);
        let normal = |index: u64, shape: &[usize]| {
            let normal = rng.normal(Purpose::WEIGHTS, &[index], 0, shape, DType::F32, &Device::Cpu);
            normal.unwrap().squeeze(0).unwrap()
        };
        // It starts at the same u for all pixels.
        weights.insert("spread.weight".to_owned(), normal(0, &[12, 16]));
        // Sure enough of some pixels to be surprised.
        weights.insert("spread.bias".to_owned(), (normal(3, &[12]) * 3.0).unwrap());
        let denoiser = Denoiser::new(&config, schedule.config(), weights).unwrap();
        let x_start = (normal(1, &[20, 12]).tanh().unwrap() * 0.9).unwrap();
        let (eps, t, labels) = (normal(2, &[20, 12]), (0..20).collect::<Vec<_>>(), [1; 20]);
        let losses = losses(&denoiser, &[1.0; 20], &x_start, &eps, &t, &labels).unwrap();
        let x_t = schedule.q_sample(&x_start, &t, &eps).unwrap();
        let belief = denoiser.belief(&x_t, &t, &labels).unwrap();
        let [x_start, mean, variance] = [&x_start, &belief.x_start, &belief.variance]
            .map(|tensor| tensor.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap());
        let (mut sum, mut most) = (0.0, 0.0_f64);
        for t in 0..20 {
            let alpha_bar = schedule.alphas_cumprod()[t];
            let prev = if t == 0 { 1.0 } else { schedule.alphas_cumprod()[t - 1] };
            let beta = 1.0 - alpha_bar / prev;
            let factor = prev.sqrt() * beta / (1.0 - alpha_bar);
            let bin = (2.0_f64 / 255.0).powi(2) / 12.0;
            let posterior = if t == 0 { bin } else { beta * (1.0 - prev) / (1.0 - alpha_bar) };
            for pixel in 0..12 {
                let reverse = posterior + factor.powi(2) * variance[t][pixel];
                let apart = factor * (x_start[t][pixel] - mean[t][pixel]);
                let ratio = (posterior + apart.powi(2)) / reverse;
                let surprise = if ratio > 20.0 { 20.0 * (1.0 + (ratio / 20.0).ln()) } else { ratio };
                most = ratio.max(most);
                let divergence = 0.5 * ((reverse / posterior).ln() + surprise - 1.0);
                sum += divergence + 0.5 * (posterior.ln() + 1.0);
            }
        }
        assert!(most > 20.0, "no error was a surprise: {most}");
        let (found, expected) = (losses.bound.unwrap().to_scalar::<f32>().unwrap(), sum / 240.0);
        assert!((f64::from(found) - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{found} {expected}");
    }
}
