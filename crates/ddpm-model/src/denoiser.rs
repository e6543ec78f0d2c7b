//! A network together with its schedule: what a sampler calls.

use std::{collections::HashMap, fmt};

use candle_core::{DType, Device, Storage, Tensor};
use ddpm_core::{CounterRng, NoiseSchedule, NoiseScheduleConfig, PredictionType, Purpose};
use ddpm_kernels::{Network, Weights};

use crate::{DenoiserConfig, Error, Init, Parameter, Result, network::TensorNetwork};

/// A denoising network and the schedule for which it was trained.
pub struct Denoiser {
    config: DenoiserConfig,
    schedule: NoiseSchedule,
    weights: HashMap<String, Tensor>,
    device: Device,
    network: TensorNetwork,
    /// On a CPU, what predictions are made with.
    cpu: Option<Cpu>,
}

struct Cpu {
    network: Network,
    weights: Weights,
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
    let rng = CounterRng::new(seed);
    std::iter::zip(config.parameters(), 0..)
        .map(|(parameter, index)| {
            let weight = match parameter.init {
                Init::Zeros => Tensor::zeros(parameter.shape, DType::F32, device)?,
                Init::Normal(deviation) => {
                    let shape = parameter.shape.as_slice();
                    let normal = rng.normal(Purpose::WEIGHTS, &[index], 0, shape, DType::F32, device)?;
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
    /// If a configuration is not valid, or the weights are not exactly those that it lists.
    pub fn new(
        config: &DenoiserConfig,
        schedule: &NoiseScheduleConfig,
        weights: HashMap<String, Tensor>,
    ) -> Result<Self> {
        config.validate()?;
        check_weights(config, &weights)?;
        let schedule = NoiseSchedule::new(schedule)?;
        if schedule.config().rescale_betas_zero_snr && config.parameterization == PredictionType::Epsilon {
            return Err(ddpm_core::Error::ZeroSnrEpsilon.into());
        }
        let (dtype, device) =
            weights.values().next().map_or((DType::F32, Device::Cpu), |w| (w.dtype(), w.device().clone()));
        let network = TensorNetwork::new(config, &schedule, &weights, dtype, &device)?;
        // Variables change under a copy, so a network in training predicts with tensors.
        let constant = !weights.values().any(Tensor::track_op);
        let cpu = if constant && device.is_cpu() && dtype == DType::F32 {
            let values = |parameter: Parameter| weights[&parameter.name].flatten_all()?.to_vec1();
            let values = config.parameters().into_iter().map(values);
            let network = config.cpu_network(&schedule);
            let weights = network.pack(&values.collect::<candle_core::Result<Vec<_>>>()?);
            Some(Cpu { network, weights })
        } else {
            None
        };
        Ok(Self { config: config.clone(), schedule, weights, device, network, cpu })
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

    /// The network's raw output, of the kind `parameterization`, shape [B, pixels], for `x_t` [B, pixels] and
    /// one timestep and one class (or the null class) for each image.
    ///
    /// With constant f32 weights on a CPU, the result for an image does not depend on the others, bit for bit.
    /// Where a gradient is wanted, because a weight or `x_t` is a variable or depends on one, it is computed
    /// with tensors, and differentiable.
    ///
    /// # Errors
    ///
    /// If the shapes do not fit, or a timestep or a class is out of range.
    pub fn forward(&self, x_t: &Tensor, t: &[usize], labels: &[u32]) -> Result<Tensor> {
        self.check(x_t, t, labels)?;
        match self.run_kernels(x_t, t, labels)? {
            Some(output) => Ok(output),
            None => self.run_tensors(x_t, t, labels),
        }
    }

    /// The arguments fit the network and each other.
    fn check(&self, x_t: &Tensor, t: &[usize], labels: &[u32]) -> Result<()> {
        let (batch, pixels) = x_t.dims2()?;
        self.check_labels(labels, batch)?;
        if pixels != self.config.pixels() {
            return Err(Error::Pixels { found: pixels, expected: self.config.pixels() });
        }
        if t.len() != batch {
            return Err(Error::TimestepCount { found: t.len(), batch });
        }
        for &t in t {
            self.schedule.timestep(t)?;
        }
        Ok(())
    }

    /// The output, if the kernels can compute it: for constant f32 numbers on a CPU.
    fn run_kernels(&self, x_t: &Tensor, t: &[usize], labels: &[u32]) -> Result<Option<Tensor>> {
        let plain = x_t.device().is_cpu() && x_t.dtype() == DType::F32 && !x_t.track_op();
        let Some(cpu) = self.cpu.as_ref().filter(|_| plain) else { return Ok(None) };
        let x_t = x_t.contiguous()?;
        let (storage, layout) = x_t.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else { return Ok(None) };
        let mut out = vec![0.0; layout.shape().elem_count()];
        let x_t = &storage.as_slice::<f32>()?[layout.start_offset()..][..layout.shape().elem_count()];
        cpu.network.predict(&cpu.weights, x_t, t, labels, &mut out);
        Ok(Some(Tensor::from_vec(out, layout.shape(), &self.device)?))
    }

    fn run_tensors(&self, x_t: &Tensor, t: &[usize], labels: &[u32]) -> Result<Tensor> {
        let t: Vec<u32> = t.iter().map(|&t| u32::try_from(t).unwrap_or(u32::MAX)).collect();
        let t = Tensor::new(t, &self.device)?;
        Ok(self.network.forward(x_t, &t, &Tensor::new(labels, &self.device)?)?)
    }

    /// The prediction that the schedule's `prediction_type` names, shape [B, pixels], for `x_t` [B, pixels]
    /// at timestep `t`, with a class for each image (an unconditional model ignores them).
    ///
    /// `guidance` s is that of diffusers: prediction(null) + s·(prediction(class) − prediction(null)), so 1
    /// is no guidance and costs no second pass (Ho & Salimans 2022, arXiv 2207.12598, eq. 6, with
    /// s = 1 + w). As of [`Denoiser::forward`], the result for an image does not depend on the others.
    ///
    /// # Errors
    ///
    /// If the shapes do not fit, a class is out of range, or guidance is asked of an unconditional model.
    pub fn predict(&self, x_t: &Tensor, t: usize, labels: &[u32], guidance: f64) -> Result<Tensor> {
        let steps = vec![t; x_t.dim(0)?];
        let nulls = vec![u32::try_from(self.config.null_class()).unwrap_or(u32::MAX); x_t.dim(0)?];
        let labels = if self.config.num_classes == 0 { nulls.as_slice() } else { labels };
        self.check_guidance(guidance)?;
        let mut raw = self.forward(x_t, &steps, labels)?;
        if guidance != 1.0 {
            let null = self.forward(x_t, &steps, &nulls)?;
            raw = (&null + ((raw - &null)? * guidance)?)?;
        }
        let to = self.schedule.config().prediction_type;
        Ok(self.schedule.convert(self.config.parameterization, to, &raw, x_t, &[t])?)
    }

    /// A finite scale, and none for a model without classes.
    pub(crate) fn check_guidance(&self, guidance: f64) -> Result<()> {
        if !guidance.is_finite() {
            return Err(Error::GuidanceScale { found: guidance });
        }
        if guidance != 1.0 && self.config.num_classes == 0 {
            return Err(Error::Guidance { found: guidance });
        }
        Ok(())
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

/// Without the weights, which are millions.
impl fmt::Debug for Denoiser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, schedule, device, .. } = self;
        f.debug_struct("Denoiser")
            .field("config", config)
            .field("schedule", schedule.config())
            .field("device", device)
            .finish_non_exhaustive()
    }
}

/// The weights are those of the configuration, by name and shape, and no others.
fn check_weights(config: &DenoiserConfig, weights: &HashMap<String, Tensor>) -> Result<()> {
    let parameters = config.parameters();
    for parameter in &parameters {
        let found = weights.get(&parameter.name).map(Tensor::dims);
        if found != Some(&parameter.shape) {
            let found = found.map_or("missing".to_owned(), |shape| format!("{shape:?}"));
            let expected = format!("{:?}", parameter.shape);
            return Err(Error::Weight { name: parameter.name.clone(), found, expected });
        }
    }
    let known = |name: &&String| parameters.iter().any(|parameter| parameter.name == **name);
    match weights.keys().filter(|name| !known(name)).min() {
        Some(name) => {
            let (found, expected) = ("there".to_owned(), "no such weight".to_owned());
            Err(Error::Weight { name: name.clone(), found, expected })
        }
        None => Ok(()),
    }
}
