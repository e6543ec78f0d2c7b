//! The training step.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use ddpm_core::{AddressedRng, PredictionType, Purpose};
use ddpm_data::{DataSet, Epochs};
use ddpm_model::{Denoiser, initial_weights};

use crate::{AdamW, Result, TrainConfig};

/// A network in training, with its optimiser and its place in the data.
#[derive(Debug)]
pub struct Trainer {
    config: TrainConfig,
    data: Images,
    epochs: Epochs,
    denoiser: Denoiser,
    optimizer: AdamW,
    /// The loss's weight for each timestep.
    weights: Vec<f64>,
    rng: AddressedRng,
    step: u64,
}

/// A data set on the device, as bytes: a quarter of the memory of f32, and no host copy in the loop.
#[derive(Debug)]
struct Images {
    pixels: Tensor,
    labels: Option<Vec<u8>>,
}

impl Images {
    fn new(data: &DataSet, device: &Device) -> Result<Self> {
        let pixels = Tensor::from_slice(data.images(), (data.len(), data.image_size()), device)?;
        Ok(Self { pixels, labels: data.labels().map(<[u8]>::to_vec) })
    }

    /// Images on the scale [−1, 1], shape [B, pixels].
    fn gather(&self, indices: &[u32]) -> Result<Tensor> {
        let indices = Tensor::new(indices, self.pixels.device())?;
        Ok(self.pixels.index_select(&indices, 0)?.to_dtype(DType::F32)?.affine(1.0 / 127.5, -1.0)?)
    }

    /// The class of an image, or `null` if it has none.
    fn label(&self, index: u32, null: u32) -> u32 {
        self.labels.as_ref().map_or(null, |labels| u32::from(labels[index as usize]))
    }
}

impl Trainer {
    /// Starts with fresh weights.
    ///
    /// # Errors
    ///
    /// If the configuration is not valid or does not fit the data, or the tensor library fails.
    pub fn new(config: &TrainConfig, data: &DataSet, device: &Device) -> Result<Self> {
        config.validate(data)?;
        let mut initial = initial_weights(&config.denoiser, config.seed, device)?;
        let mut vars = Vec::new();
        // In the order of the layers, not of the hash map, so that every run is alike.
        for parameter in config.denoiser.parameters() {
            if let Some(weight) = initial.remove(&parameter.name) {
                vars.push((parameter.name, Var::from_tensor(&weight)?));
            }
        }
        let tensors: HashMap<_, _> =
            vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        let denoiser = Denoiser::new(&config.denoiser, &config.schedule, tensors)?;
        Ok(Self {
            data: Images::new(data, device)?,
            epochs: Epochs::new(data.len(), config.batch_size, config.seed)?,
            weights: config.loss.weights(denoiser.schedule(), config.denoiser.output_type)?,
            denoiser,
            optimizer: AdamW::new(config.adamw, config.ema_decay, vars)?,
            rng: AddressedRng::new(config.seed),
            step: 0,
            config: config.clone(),
        })
    }

    /// Takes a step and returns its loss, a scalar that is still on the device: reading it at every step
    /// would make a GPU wait.
    ///
    /// # Errors
    ///
    /// If the tensor library fails.
    pub fn train_step(&mut self) -> Result<Tensor> {
        let first = self.step * self.config.batch_size as u64;
        let schedule = self.denoiser.schedule();
        let null = to_u32(self.config.denoiser.null_class());
        let total_timesteps = to_u32(schedule.num_train_timesteps());

        let indices = self.epochs.batch(self.step);
        // The position of each image in the whole stream of training images is its address.
        let positions: Vec<u64> = (first..).take(indices.len()).collect();
        let t: Vec<usize> = positions
            .iter()
            .map(|&at| self.rng.below(Purpose::TrainTimestep, at, 0, total_timesteps) as usize)
            .collect();
        let labels: Vec<u32> = std::iter::zip(indices, &positions)
            .map(|(&index, &at)| {
                let dropped = self.rng.uniform(Purpose::ClassDropout, at, 0) < self.config.class_dropout;
                if dropped { null } else { self.data.label(index, null) }
            })
            .collect();
        let x_start = self.data.gather(indices)?;
        let eps = self.rng.normal_like(Purpose::TrainNoise, &positions, 0, &x_start)?;

        let loss = loss(&self.denoiser, &self.weights, &x_start, &eps, &t, &labels)?;
        let learning_rate = self.config.learning_rate_at(self.step, self.total_steps());
        self.optimizer.step(&loss.backward()?, self.step, learning_rate)?;
        self.step += 1;
        Ok(loss.detach())
    }

    /// The steps taken so far.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The steps of an epoch; images that do not fill a batch wait for the next one.
    #[must_use]
    pub fn steps_per_epoch(&self) -> u64 {
        self.epochs.steps_per_epoch() as u64
    }

    /// The steps of the whole run.
    #[must_use]
    pub fn total_steps(&self) -> u64 {
        self.config.epochs * self.steps_per_epoch()
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// The network with the weights' moving average, which is what one samples from.
    ///
    /// # Errors
    ///
    /// If the tensor library fails.
    pub fn ema_denoiser(&self) -> Result<Denoiser> {
        let weights = self.optimizer.ema()?.into_iter().collect();
        Ok(Denoiser::new(&self.config.denoiser, &self.config.schedule, weights)?)
    }

    /// Everything that a step changes, as named tensors, besides the number of steps.
    ///
    /// # Errors
    ///
    /// If the tensor library fails.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>> {
        self.optimizer.state()
    }

    /// Goes on from a state after `step` steps.
    ///
    /// # Errors
    ///
    /// If `get` fails for one of the names of [`Trainer::state`].
    pub fn restore(&mut self, step: u64, get: impl Fn(&str, &[usize]) -> Result<Tensor>) -> Result<()> {
        self.optimizer.restore(get)?;
        self.step = step;
        Ok(())
    }
}

/// The weighted mean squared error of the network's raw output, a scalar.
fn loss(
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
    if weights.iter().all(|&weight| weight == 1.0) {
        return Ok(squares.mean_all()?);
    }
    let of_images: Vec<f64> = t.iter().map(|&t| weights[t]).collect();
    let of_images =
        Tensor::new(of_images, &Device::Cpu)?.to_dtype(DType::F32)?.to_device(x_start.device())?;
    Ok((squares.mean(1)? * of_images)?.mean_all()?)
}

/// The loss on images that were not trained on, the same ones with the same timesteps and noise each time.
/// `limit` is the number of images at most.
///
/// # Errors
///
/// If the data does not fit the network or the tensor library fails.
pub fn held_out_loss(denoiser: &Denoiser, config: &TrainConfig, data: &DataSet, limit: usize) -> Result<f64> {
    config.validate(data)?;
    let images = Images::new(data, denoiser.device())?;
    let weights = config.loss.weights(denoiser.schedule(), config.denoiser.output_type)?;
    let (rng, null) = (AddressedRng::new(config.seed), to_u32(config.denoiser.null_class()));
    let indices: Vec<u32> = (0..to_u32(data.len().min(limit))).collect();
    let (mut sum, mut count) = (0.0, 0.0);
    for batch in indices.chunks(500) {
        let x_start = images.gather(batch)?;
        let positions: Vec<u64> = batch.iter().copied().map(u64::from).collect();
        let eps = rng.normal_like(Purpose::Evaluation, &positions, 0, &x_start)?;
        let steps = denoiser.schedule().num_train_timesteps();
        let t: Vec<usize> = batch.iter().map(|&index| index as usize % steps).collect();
        let labels: Vec<u32> = batch.iter().map(|&index| images.label(index, null)).collect();
        let mean = loss(denoiser, &weights, &x_start, &eps, &t, &labels)?.to_scalar::<f32>()?;
        sum += f64::from(mean) * batch.len() as f64;
        count += batch.len() as f64;
    }
    Ok(sum / count)
}

/// A number of classes, timesteps or images, which all fit.
fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
