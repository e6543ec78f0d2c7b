//! A network together with its schedule: what a sampler calls.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use ddpm_core::{AddressedRng, NoiseSchedule, Purpose, ScheduleConfig};
use rayon::prelude::*;

use crate::{DenoiserConfig, Error, Init, Result, network::Layers};

/// The number of images that the network sees at a time on a CPU.
///
/// A matrix product may add its terms in another order if it has another number of rows. So that an image
/// is the same bits alone and in a batch, prediction always works on this many rows, padded with zeros.
pub const MICRO_BATCH: usize = 50;

/// A denoising network and the schedule for which it was trained.
#[derive(Debug)]
pub struct Denoiser {
    config: DenoiserConfig,
    schedule: NoiseSchedule,
    layers: Layers,
    weights: HashMap<String, Tensor>,
    device: Device,
}

/// Weights from a seed: the same on every device, since the numbers are addressed by the weight's place in
/// [`DenoiserConfig::parameters`].
///
/// # Errors
///
/// If the configuration is not valid or the tensor library fails.
pub fn initial_weights(
    config: &DenoiserConfig,
    seed: u64,
    device: &Device,
) -> Result<HashMap<String, Tensor>> {
    config.validate()?;
    let rng = AddressedRng::new(seed);
    std::iter::zip(config.parameters(), 0..)
        .map(|(parameter, index)| {
            let weight = match parameter.init {
                Init::Zeros => Tensor::zeros(parameter.shape, DType::F32, device)?,
                Init::Normal(deviation) => {
                    let shape = parameter.shape.as_slice();
                    let normal = rng.normal(Purpose::Weights, &[index], 0, shape, DType::F32, device)?;
                    (normal.squeeze(0)? * deviation)?
                }
            };
            Ok((parameter.name, weight))
        })
        .collect()
}

impl Denoiser {
    /// Builds the network on the weights, which all are on one device and of one type. Weights that are
    /// variables stay so: training goes through [`Denoiser::forward`].
    ///
    /// # Errors
    ///
    /// If a configuration is not valid, or a weight is missing or of another shape.
    pub fn new(
        config: &DenoiserConfig,
        schedule: &ScheduleConfig,
        weights: HashMap<String, Tensor>,
    ) -> Result<Self> {
        config.validate()?;
        let schedule = NoiseSchedule::new(schedule)?;
        let (dtype, device) =
            weights.values().next().map_or((DType::F32, Device::Cpu), |w| (w.dtype(), w.device().clone()));
        let vb = VarBuilder::from_tensors(weights.clone(), dtype, &device);
        let layers = Layers::new(config, schedule.num_train_timesteps(), &vb)?;
        Ok(Self { config: config.clone(), schedule, layers, weights, device })
    }

    /// The architecture.
    #[must_use]
    pub fn config(&self) -> &DenoiserConfig {
        &self.config
    }

    /// The schedule.
    #[must_use]
    pub fn schedule(&self) -> &NoiseSchedule {
        &self.schedule
    }

    /// The weights by name.
    #[must_use]
    pub fn weights(&self) -> &HashMap<String, Tensor> {
        &self.weights
    }

    /// The device on which the weights are.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The network's raw output, of the kind `output_type`, shape [B, pixels], for `x_t` [B, pixels] and
    /// one timestep and one class (or the null class) for each image. Differentiable.
    ///
    /// # Errors
    ///
    /// If the shapes do not fit, or a timestep or a class is out of range.
    pub fn forward(&self, x_t: &Tensor, t: &[usize], labels: &[u32]) -> Result<Tensor> {
        self.check_labels(labels, x_t.dim(0)?)?;
        let last = self.schedule.num_train_timesteps() - 1;
        let t = t
            .iter()
            .map(|&found| {
                let step = u32::try_from(found).ok().filter(|_| found <= last);
                step.ok_or(ddpm_core::Error::TimestepRange { found, last })
            })
            .collect::<std::result::Result<Vec<u32>, _>>()?;
        let t = Tensor::new(t, &self.device)?;
        Ok(self.layers.forward(x_t, &t, &Tensor::new(labels, &self.device)?)?)
    }

    /// The prediction that the schedule's `prediction_type` names, shape [B, pixels], for `x_t` [B, pixels]
    /// at timestep `t`, with a class for each image (an unconditional model ignores them).
    ///
    /// `guidance` s is that of diffusers: prediction(null) + s·(prediction(class) − prediction(null)), so 1
    /// is no guidance and costs no second pass (Ho & Salimans 2022, arXiv 2207.12598, eq. 6, with
    /// s = 1 + w). On a CPU the result for an image does not depend on the others, bit for bit.
    ///
    /// # Errors
    ///
    /// If the shapes do not fit, a class is out of range, or guidance is asked of an unconditional model.
    pub fn predict(&self, x_t: &Tensor, t: usize, labels: &[u32], guidance: f64) -> Result<Tensor> {
        let batch = x_t.dim(0)?;
        let nulls = vec![u32::try_from(self.config.null_class()).unwrap_or(u32::MAX); batch];
        let labels = if self.config.num_classes == 0 { nulls.as_slice() } else { labels };
        let mut raw = self.forward_rows(x_t, t, labels)?;
        if guidance != 1.0 {
            if self.config.num_classes == 0 {
                return Err(Error::Guidance { found: guidance });
            }
            let null = self.forward_rows(x_t, t, &nulls)?;
            raw = (&null + ((raw - &null)? * guidance)?)?;
        }
        let to = self.schedule.config().prediction_type;
        Ok(self.schedule.convert(self.config.output_type, to, &raw, x_t, &[t])?)
    }

    /// The raw output; on a CPU in micro-batches of a fixed size.
    fn forward_rows(&self, x_t: &Tensor, t: usize, labels: &[u32]) -> Result<Tensor> {
        if !self.device.is_cpu() {
            return self.forward(x_t, &vec![t; labels.len()], labels);
        }
        self.check_labels(labels, x_t.dim(0)?)?;
        let times = [t; MICRO_BATCH];
        let rows = labels
            .par_chunks(MICRO_BATCH)
            .enumerate()
            .map(|(i, labels)| {
                let rows = x_t.narrow(0, i * MICRO_BATCH, labels.len())?;
                let missing = MICRO_BATCH - labels.len();
                let padded = rows.pad_with_zeros(0, 0, missing)?;
                let mut padded_labels = [0; MICRO_BATCH];
                padded_labels[..labels.len()].copy_from_slice(labels);
                Ok(self.forward(&padded, &times, &padded_labels)?.narrow(0, 0, labels.len())?)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&rows, 0)?)
    }

    /// One class for each of `batch` images, each a class of the model or the null class.
    pub(crate) fn check_labels(&self, labels: &[u32], batch: usize) -> Result<()> {
        if labels.len() != batch {
            return Err(Error::ClassCount { found: labels.len(), batch });
        }
        match labels.iter().find(|&&label| label as usize > self.config.null_class()) {
            Some(&found) => Err(Error::Class { found, last: self.config.num_classes.saturating_sub(1) }),
            None => Ok(()),
        }
    }
}
