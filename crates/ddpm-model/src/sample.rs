//! Sampling of images from a seed and classes.

use candle_core::{DType, Tensor};
use ddpm_core::{CounterRng, Purpose, Sampler, StepInfo, Timestep, Timesteps, sampler::Guidance};

use crate::{Denoiser, Error, Result, device::run_on_device};

/// The timesteps that a sampler visits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TimestepSelection {
    /// All timesteps of the schedule.
    #[default]
    All,
    /// This number of timesteps, placed by the schedule's `timestep_spacing`.
    Spaced(usize),
    /// These timesteps, in descending order, for example the result of a timestep search.
    List(Vec<usize>),
}

/// The configuration of sampling.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleConfig {
    /// The seed. An image depends only on the seed, its index, its class and the other options here.
    pub seed: u64,
    /// The sampler.
    pub sampler: Sampler,
    /// The timesteps that the sampler visits.
    pub steps: TimestepSelection,
    /// The guidance scale and the timesteps at which it applies.
    pub guidance: Guidance,
}

/// The default guidance scale of a model with classes.
///
/// The network learns the mean of x₀ given xₜ. With few large steps this mean sometimes lies between two digits;
/// guidance moves it towards the requested class.
pub const DEFAULT_GUIDANCE_SCALE: f64 = 1.5;

/// The default guidance interval as fractions of T: the noise levels at which the class is decided. At higher noise
/// levels guidance reduces diversity, and at lower ones it changes almost nothing
/// (Kynkäänniemi et al. 2024, arXiv 2404.07724).
const GUIDED: [f64; 2] = [0.4, 0.75];

impl SampleConfig {
    /// Ancestral sampling with the schedule's `variance_type` and all timesteps. A model with classes gets
    /// [`DEFAULT_GUIDANCE_SCALE`] in the interval of [`SampleConfig::in_the_middle`], any other a scale of 1.
    #[must_use]
    pub fn ancestral(seed: u64, denoiser: &Denoiser) -> Self {
        let variance = denoiser.schedule().config().variance_type.clone();
        let guidance = if denoiser.config().num_classes > 0 { DEFAULT_GUIDANCE_SCALE } else { 1.0 };
        Self {
            seed,
            sampler: Sampler::Ddpm(variance),
            steps: TimestepSelection::All,
            guidance: Self::in_the_middle(guidance, denoiser),
        }
    }

    /// Guidance at the timesteps from 0.4 T to 0.75 T, where the class is decided: 8 to 15 for T = 20.
    #[must_use]
    pub fn in_the_middle(scale: f64, denoiser: &Denoiser) -> Guidance {
        let [first, last] = GUIDED.map(|part| part * denoiser.schedule().num_train_timesteps() as f64);
        Guidance::new(scale).within(first..=last)
    }
}

impl Denoiser {
    /// The start noise x_T of the images with these indices, [N, pixels].
    ///
    /// # Errors
    ///
    /// If the tensor library fails.
    pub fn start(&self, config: &SampleConfig, images: &[u64]) -> Result<Tensor> {
        let (rng, shape) = (CounterRng::new(config.seed), [self.config().pixels()]);
        Ok(rng.normal(Purpose::SAMPLE_START, images, 0, &shape, DType::F32, self.device())?)
    }

    /// Samples the images with these indices and classes, [N, pixels] on the scale [−1, 1].
    ///
    /// Image 17 of a seed is the same picture in any batch. All N images are in memory at once; for many images, call
    /// this repeatedly with parts of the indices. `observe` is called after each reverse step.
    ///
    /// # Errors
    ///
    /// If the numbers of images and classes differ, a class is out of range, an option does not fit, the observer
    /// fails, or a prediction or a sample is NaN or infinite. On a CPU, sampling stops at the first such prediction.
    /// On a GPU, where reading a value makes the device wait, the error comes after the last step.
    pub fn sample(
        &self,
        config: &SampleConfig,
        images: &[u64],
        labels: &[u32],
        observe: impl FnMut(StepInfo<'_>) -> ddpm_core::Result<()> + Send,
    ) -> Result<Tensor> {
        run_on_device(&self.device().location(), || self.sample_here(config, images, labels, observe))
    }

    fn sample_here(
        &self,
        config: &SampleConfig,
        images: &[u64],
        labels: &[u32],
        observe: impl FnMut(StepInfo<'_>) -> ddpm_core::Result<()>,
    ) -> Result<Tensor> {
        let schedule = self.schedule();
        let timesteps = match &config.steps {
            TimestepSelection::All => Timesteps::all(schedule),
            TimestepSelection::Spaced(steps) => Timesteps::spaced(schedule, *steps)?,
            TimestepSelection::List(list) => Timesteps::explicit(schedule, list.clone())?,
        };
        let rng = CounterRng::new(config.seed);
        let x_t = self.start(config, images)?;
        let mut check = FiniteCheck { images, pending: Vec::new(), failure: None };
        let model = |x_t: &Tensor, timestep: Timestep| {
            let scale = config.guidance.scale_at(timestep);
            let prediction =
                self.predict(x_t, timestep.index(), labels, scale).map_err(candle_core::Error::wrap)?;
            check.add("prediction", timestep, &prediction)?;
            Ok(prediction)
        };
        let noise = |x_t: &Tensor, noise_index: usize| {
            rng.normal_like(Purpose::SAMPLE_STEP, images, noise_index, x_t)
        };
        // Check the arguments first: an error inside the sampler would be wrapped in the sampler's error.
        self.check_labels(labels, images.len())?;
        self.check_guidance(config.guidance.scale())?;
        config.guidance.check(schedule)?;
        check_churn(&config.sampler)?;
        let last = timesteps.as_slice()[timesteps.len() - 1];
        let sampled = config.sampler.run(schedule, &timesteps, x_t, model, noise, observe);
        check.finish(last, sampled)
    }
}

/// Finds predictions and samples that are NaN or infinite, which would otherwise become black pixels.
struct FiniteCheck<'a> {
    /// The index of each image of the batch.
    images: &'a [u64],
    /// Marks that have not been read from the device: one for each image, NaN if one of its values is not finite.
    pending: Vec<(&'static str, Timestep, Tensor)>,
    /// The error for the first value found, kept here because the sampler would wrap it.
    failure: Option<Error>,
}

impl FiniteCheck<'_> {
    /// Marks the images of a tensor [B, …], and reads the marks at once on a CPU.
    fn add(&mut self, quantity: &'static str, at: Timestep, tensor: &Tensor) -> candle_core::Result<()> {
        // 0·x is NaN where x is NaN or infinite, and 0 elsewhere.
        let marks = (tensor.flatten_from(1)? * 0.0)?.sum(1)?;
        let is_cpu = marks.device().is_cpu();
        self.pending.push((quantity, at, marks));
        if is_cpu { self.read() } else { Ok(()) }
    }

    /// Reads the pending marks, and fails if one is NaN.
    fn read(&mut self) -> candle_core::Result<()> {
        for (quantity, at, marks) in self.pending.drain(..) {
            let marks = marks.to_vec1::<f32>()?;
            let mut marked = std::iter::zip(self.images, marks).filter(|(_, mark)| mark.is_nan());
            if let Some((&image, _)) = marked.next() {
                self.failure = Some(Error::NotFinite { quantity, image, timestep: at.t() });
                candle_core::bail!("a {quantity} is not finite");
            }
        }
        Ok(())
    }

    /// Checks the samples and all pending predictions, and returns the samples.
    fn finish(mut self, last: Timestep, sampled: ddpm_core::Result<Tensor>) -> Result<Tensor> {
        let checked = sampled.and_then(|sampled| {
            self.add("sample", last, &sampled)?;
            self.read()?;
            Ok(sampled)
        });
        match self.failure {
            Some(failure) => Err(failure),
            None => Ok(checked?),
        }
    }
}

/// Refuses churn: it evaluates the network between integer timesteps, and these networks are trained at integer
/// timesteps only.
fn check_churn(sampler: &Sampler) -> Result<()> {
    match sampler {
        Sampler::Euler(churn) | Sampler::Heun(churn) if churn.s_churn != 0.0 => {
            let expected = "0, because the network is trained at integer timesteps only";
            Err(ddpm_core::Error::out_of_range("s_churn", churn.s_churn, expected).into())
        }
        _ => Ok(()),
    }
}
