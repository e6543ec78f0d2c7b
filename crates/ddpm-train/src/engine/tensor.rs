//! Training steps by tensors and autograd, on any device.

use candle_core::{DType, Device, Tensor, Var};
use ddpm_core::NoiseSchedule;
use ddpm_data::Dataset;
use ddpm_model::{Denoiser, Parameter, initial_weights};

use super::{Batch, GradNorm};
use crate::{
    Result, TrainConfig,
    optimizer::{StepSize, TensorAdamW},
    part::Part,
};

/// Trains with tensors and autograd. The data set is stored on the device, so a step copies to it only the noise, the
/// lists of the batch, and shifted images.
#[derive(Debug)]
pub(crate) struct TensorEngine {
    denoiser: Denoiser,
    /// The images of the data set, [N, pixels], as bytes: a quarter of the memory of f32.
    images: Tensor,
    noise_candidates: usize,
    pub(super) optimizer: TensorAdamW,
}

impl TensorEngine {
    pub(super) fn new(
        train: &TrainConfig,
        schedule: &NoiseSchedule,
        data: &Dataset,
        device: &Device,
    ) -> Result<Self> {
        let config = &train.denoiser;
        let weights = initial_weights(config, train.seed, device)?;
        // In the order of the layers, since the order of the hash map differs between runs.
        let var = |p: Parameter| Ok((p.name.clone(), Var::from_tensor(&weights[&p.name])?));
        let vars: Vec<(String, Var)> = config.parameters().into_iter().map(var).collect::<Result<_>>()?;
        let tensors = vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        Ok(Self {
            denoiser: Denoiser::new(config, schedule.config(), tensors)?,
            images: upload(data, device)?,
            noise_candidates: train.noise_candidates,
            optimizer: TensorAdamW::new(vars, &Part::of_run(train))?,
        })
    }

    pub(super) fn step(
        &mut self,
        batch: &Batch<'_>,
        size: StepSize,
        norm: GradNorm,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let loss = self.loss(batch)?;
        let gradient = self.optimizer.gradient(&loss.backward()?)?;
        Ok((loss.detach(), self.optimizer.step(gradient, size, norm)?))
    }

    /// Computes the loss and the gradient, which it copies to `exchange`.
    pub(super) fn gradient(&self, batch: &Batch<'_>, exchange: &mut Vec<f32>) -> Result<f32> {
        let loss = self.loss(batch)?;
        *exchange = self.optimizer.gradient(&loss.backward()?)?.to_vec1()?;
        Ok(loss.to_scalar()?)
    }

    /// Takes a step from a gradient, and returns the norm of the gradient unless it is ignored.
    pub(super) fn step_with_gradient(
        &mut self,
        gradient: &[f32],
        size: StepSize,
        norm: GradNorm,
    ) -> Result<Option<Tensor>> {
        self.optimizer.step(Tensor::from_slice(gradient, gradient.len(), self.device())?, size, norm)
    }

    pub(super) fn device(&self) -> &Device {
        self.images.device()
    }

    /// The loss of a batch, with the graph of its computation.
    fn loss(&self, batch: &Batch<'_>) -> Result<Tensor> {
        let x_start = match &batch.shifted {
            Some(shifted) => {
                let shape = (batch.indices.len(), self.images.dim(1)?);
                on_model_scale(&Tensor::from_slice(shifted, shape, self.device())?)?
            }
            None => gather(&self.images, batch.indices)?,
        };
        let mut eps = vec![0.0; x_start.elem_count()];
        batch.fill_noise(self.noise_candidates, &mut eps)?;
        let eps = Tensor::from_vec(eps, x_start.shape(), &Device::Cpu)?.to_device(x_start.device())?;
        let x_t = self.denoiser.schedule().q_sample(&x_start, &batch.t, &eps)?;
        let output = self.denoiser.forward(&x_t, &batch.t, &batch.labels)?;
        let loss = weighted_error(&self.denoiser, &batch.weights, &output, &x_start, &eps, &batch.t)?;
        let images = batch.indices.len();
        Ok(if images == batch.total { loss } else { (loss * (images as f64 / batch.total as f64))? })
    }
}

/// Copies the images of a data set to a device, [N, pixels] as bytes.
pub(crate) fn upload(data: &Dataset, device: &Device) -> Result<Tensor> {
    Ok(Tensor::from_slice(data.images(), (data.len(), data.image_size()), device)?)
}

/// The images with these indices, on the scale [−1, 1].
pub(crate) fn gather(images: &Tensor, indices: &[u32]) -> Result<Tensor> {
    let indices = Tensor::new(indices, images.device())?;
    on_model_scale(&images.index_select(&indices, 0)?)
}

/// Converts levels 0 to 255 to the scale [−1, 1].
fn on_model_scale(levels: &Tensor) -> Result<Tensor> {
    Ok(levels.to_dtype(DType::F32)?.affine(1.0 / 127.5, -1.0)?)
}

/// The weighted mean squared error of the network's output, a scalar. The target is ε, x₀ or v, by the network's
/// `parameterization`.
pub(crate) fn weighted_error(
    denoiser: &Denoiser,
    weights: &[f64],
    output: &Tensor,
    x_start: &Tensor,
    eps: &Tensor,
    t: &[usize],
) -> Result<Tensor> {
    let target = denoiser.schedule().target(denoiser.config().parameterization, x_start, eps, t)?;
    let squares = (output - target)?.sqr()?;
    let weights = Tensor::new(weights, &Device::Cpu)?.to_dtype(DType::F32)?.to_device(x_start.device())?;
    Ok((squares.mean(1)? * weights)?.mean_all()?)
}
