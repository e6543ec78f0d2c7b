//! A network together with its schedule, which a sampler evaluates.

use std::{collections::HashMap, fmt};

use candle_core::{DType, Device, Storage, Tensor};
use ddpm_core::{CounterRng, NoiseSchedule, NoiseScheduleConfig, PredictionType, Purpose};
use ddpm_kernels::{Network, Weights};

use crate::{DenoiserConfig, Error, Init, Parameter, Result, network::TensorNetwork};

/// A denoising network and the schedule for which it was trained.
pub struct Denoiser {
    pub(crate) config: DenoiserConfig,
    /// Its prediction type is the network's parameterization.
    pub(crate) schedule: NoiseSchedule,
    prediction_type: PredictionType,
    pub(crate) weights: HashMap<String, Tensor>,
    pub(crate) device: Device,
    /// The network of tensors, in the number type in which it computes.
    pub(crate) network: TensorNetwork,
    /// The network for the CPU kernels; `None` if the weights are variables, or it computes in another type than f32 or not
    /// on a CPU.
    pub(crate) cpu: Option<CpuNetwork>,
    /// The weaker model of autoguidance.
    pub(crate) guide: Option<Box<Denoiser>>,
}

/// The network and its packed weights for the CPU kernels.
pub(crate) struct CpuNetwork {
    network: Network,
    weights: Weights,
}

impl CpuNetwork {
    /// `None` unless the weights are constants in f32 on a CPU, and `dtype` is f32.
    pub(crate) fn new(
        config: &DenoiserConfig,
        schedule: &NoiseSchedule,
        weights: &HashMap<String, Tensor>,
        dtype: DType,
    ) -> Result<Option<Self>> {
        // The kernels work on a copy, which would not follow a change of a variable.
        let fits = |w: &Tensor| !w.track_op() && w.device().is_cpu() && w.dtype() == DType::F32;
        if dtype != DType::F32 || !weights.values().all(fits) {
            return Ok(None);
        }
        let values = |parameter: Parameter| weights[&parameter.name].flatten_all()?.to_vec1();
        let values = config.parameters().into_iter().map(values);
        let network = config.cpu_network(schedule);
        let weights = network.pack(&values.collect::<candle_core::Result<Vec<_>>>()?);
        Ok(Some(Self { network, weights }))
    }
}

/// Random initial weights for a seed. They are the same on every device: each parameter's random numbers are
/// addressed by its position in [`DenoiserConfig::parameters`].
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
    /// Builds the network from `weights`, which must share one device and one type. Variables among them remain
    /// variables, so [`Denoiser::forward`] can be used for training.
    ///
    /// # Errors
    ///
    /// If a configuration is not valid, or the names and shapes of the weights differ from
    /// [`DenoiserConfig::parameters`].
    pub fn new(
        config: &DenoiserConfig,
        schedule: &NoiseScheduleConfig,
        weights: HashMap<String, Tensor>,
    ) -> Result<Self> {
        config.validate()?;
        check_weights(config, &weights)?;
        let NoiseScheduleConfig { prediction_type, rescale_betas_zero_snr, .. } = *schedule;
        if rescale_betas_zero_snr && prediction_type == PredictionType::Epsilon {
            return Err(ddpm_core::Error::ZeroSnrEpsilon.into());
        }
        let schedule = NoiseSchedule::new(&NoiseScheduleConfig {
            prediction_type: config.parameterization,
            ..schedule.clone()
        })?;
        let (dtype, device) =
            weights.values().next().map_or((DType::F32, Device::Cpu), |w| (w.dtype(), w.device().clone()));
        let network = TensorNetwork::new(config, &schedule, &weights, dtype, &device)?;
        let cpu = CpuNetwork::new(config, &schedule, &weights, dtype)?;
        Ok(Self {
            config: config.clone(),
            schedule,
            prediction_type,
            weights,
            device,
            network,
            cpu,
            guide: None,
        })
    }

    /// The architecture.
    #[must_use]
    pub fn config(&self) -> &DenoiserConfig {
        &self.config
    }

    /// The schedule. Its `prediction_type` is the network's parameterization, so that samplers take the network's output
    /// as it is: a conversion to ε and back would lose digits where ᾱ is small.
    #[must_use]
    pub fn schedule(&self) -> &NoiseSchedule {
        &self.schedule
    }

    /// The configuration of the schedule with the `prediction_type` of [`Denoiser::predict`], as a model folder holds it.
    #[must_use]
    pub fn schedule_config(&self) -> NoiseScheduleConfig {
        NoiseScheduleConfig { prediction_type: self.prediction_type, ..self.schedule.config().clone() }
    }

    /// The weights by name.
    #[must_use]
    pub fn weights(&self) -> &HashMap<String, Tensor> {
        &self.weights
    }

    /// The device of the weights.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Evaluates the network on `x_t` [B, pixels], with a timestep and a class (or the null class) for each image.
    /// Returns its output in the network's own `parameterization`, [B, pixels], in the type of `x_t`. The network computes in
    /// the type of its weights, or of [`Denoiser::computing_in`].
    ///
    /// With constant f32 weights on a CPU, the result for an image does not depend on the other images, bit for bit.
    /// If a weight or `x_t` is a variable or depends on one, the result is computed with tensors and is
    /// differentiable.
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

    /// Checks that the arguments fit the network and each other.
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

    /// The output computed by the CPU kernels; `None` unless weights and `x_t` are constant, f32 and on a CPU.
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

    /// [`Denoiser::output`], converted to the `prediction_type` of the schedule with which the denoiser was made: ε by
    /// default.
    ///
    /// # Errors
    ///
    /// As [`Denoiser::output`].
    pub fn predict(
        &self,
        x_t: &Tensor,
        t: usize,
        labels: &[u32],
        guidance: impl Into<crate::GuidanceScales>,
    ) -> Result<Tensor> {
        let output = self.output(x_t, t, labels, guidance)?;
        Ok(self.schedule.convert(self.config.parameterization, self.prediction_type, &output, x_t, &[t])?)
    }

    /// Checks that there is one label for each of `batch` images, each a class of the model or the null class.
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

/// Leaves out the weights, which are millions of numbers.
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

/// Checks that the weights have exactly the names and shapes of the configuration.
fn check_weights(config: &DenoiserConfig, weights: &HashMap<String, Tensor>) -> Result<()> {
    let parameters = config.parameters();
    for parameter in &parameters {
        let found = weights.get(&parameter.name).map(Tensor::dims);
        if found != Some(&parameter.shape) {
            let found = found.map_or("missing".to_owned(), |shape| format!("{shape:?}"));
            let expected = format!("{:?}", parameter.shape);
            return Err(Error::out_of_range(format!("weight `{}`", parameter.name), found, expected));
        }
    }
    let known = |name: &&String| parameters.iter().any(|parameter| parameter.name == **name);
    match weights.keys().filter(|name| !known(name)).min() {
        Some(name) => Err(Error::out_of_range(format!("weight `{name}`"), "present", "no such weight")),
        None => Ok(()),
    }
}
