//! Steps by tensors and autograd, on any device.

use candle_core::{DType, Device, Tensor, Var};
use ddpm_core::{AddressedRng, NoiseSchedule, PredictionType, Purpose};
use ddpm_data::DataSet;
use ddpm_model::{Belief, Denoiser, Parameter, initial_weights};

use super::{Batch, reverse_variance};
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
        let x_start = gather(&self.images, batch.indices)?;
        let eps = rng.normal_like(Purpose::TrainNoise, &batch.positions, 0, &x_start)?;
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
    Ok(images.index_select(&indices, 0)?.to_dtype(DType::F32)?.affine(1.0 / 127.5, -1.0)?)
}

/// What a network is trained on, scalars.
pub(crate) struct Losses {
    /// The weighted mean squared error of the network's output.
    pub(crate) error: Tensor,
    /// With a Gaussian head, the variational bound's part that depends on the network, per pixel in nats.
    bound: Option<Tensor>,
}

/// The losses of a batch.
pub(crate) fn losses(
    denoiser: &Denoiser,
    weights: &[f64],
    x_start: &Tensor,
    eps: &Tensor,
    t: &[usize],
    labels: &[u32],
) -> Result<Losses> {
    let schedule = denoiser.schedule();
    let x_t = schedule.q_sample(x_start, t, eps)?;
    let target = match denoiser.config().output_type {
        PredictionType::Epsilon => eps.clone(),
        PredictionType::Sample => x_start.clone(),
        PredictionType::VPrediction => schedule.velocity(x_start, t, eps)?,
    };
    let (output, belief) = denoiser.forward_with_belief(&x_t, t, labels)?;
    let squares = (output - target)?.sqr()?;
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
            Some(((reverse.log()? + expected.div(&reverse)?)? * 0.5)?.mean_all()?)
        }
        None => None,
    };
    let weights = Tensor::new(weights, &Device::Cpu)?.to_dtype(DType::F32)?.to_device(x_start.device())?;
    Ok(Losses { error: (squares.mean(1)? * weights)?.mean_all()?, bound })
}
