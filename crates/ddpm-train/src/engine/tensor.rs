//! Steps by tensors and autograd, on any device.

use candle_core::{DType, Device, Tensor, Var};
use ddpm_core::{AddressedRng, NoiseSchedule, PredictionType, Purpose};
use ddpm_data::DataSet;
use ddpm_model::{Denoiser, Parameter, initial_weights};

use super::Batch;
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
        })
    }

    pub(super) fn step(&mut self, batch: &Batch<'_>, rng: AddressedRng, size: StepSize) -> Result<Tensor> {
        let x_start = gather(&self.images, batch.indices)?;
        let eps = rng.normal_like(Purpose::TrainNoise, &batch.positions, 0, &x_start)?;
        let loss = loss(&self.denoiser, &batch.weights, &x_start, &eps, &batch.t, &batch.labels)?;
        self.optimizer.step(&loss.backward()?, size)?;
        Ok(loss.detach())
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

/// The weighted mean squared error of the network's raw output, a scalar.
pub(crate) fn loss(
    denoiser: &Denoiser,
    weights: &[f64],
    x_start: &Tensor,
    eps: &Tensor,
    t: &[usize],
    labels: &[u32],
) -> Result<Tensor> {
    let schedule = denoiser.schedule();
    let x_t = schedule.q_sample(x_start, t, eps)?;
    let target = match denoiser.config().output_type {
        PredictionType::Epsilon => eps.clone(),
        PredictionType::Sample => x_start.clone(),
        PredictionType::VPrediction => schedule.velocity(x_start, t, eps)?,
    };
    let squares = (denoiser.forward(&x_t, t, labels)? - target)?.sqr()?;
    let weights = Tensor::new(weights, &Device::Cpu)?.to_dtype(DType::F32)?.to_device(x_start.device())?;
    Ok((squares.mean(1)? * weights)?.mean_all()?)
}
