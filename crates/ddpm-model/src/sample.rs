//! From seed and classes to images.

use candle_core::{DType, Tensor};
use ddpm_core::{CounterRng, Purpose, Sampler, StepInfo, Timestep, Timesteps, sampler::Guidance};

use crate::{Denoiser, Error, Result, device::run_on_device};

/// Which of the schedule's timesteps are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TimestepSelection {
    /// All.
    #[default]
    All,
    /// This many, spread as the schedule says.
    Spaced(usize),
    /// These, descending: for example those of a step search.
    List(Vec<usize>),
}

/// How to sample.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleConfig {
    /// The seed. An image depends on it, on its index, its class and the options here, and on nothing else.
    pub seed: u64,
    /// The sampler.
    pub sampler: Sampler,
    /// The timesteps.
    pub steps: TimestepSelection,
    /// The guidance.
    pub guidance: Guidance,
}

/// The guidance scale of a model with classes, unless one says otherwise.
///
/// With few large steps the mean of x₀, which the network learns, lies between digits now and then. Guidance
/// moves it to the class asked for; results/best/metrics.json has the class accuracy with it and without.
pub const DEFAULT_GUIDANCE_SCALE: f64 = 1.5;

/// The part of all timesteps at which there is guidance, unless one says otherwise: where the class is decided.
/// Earlier, nothing is seen that it could sharpen, and later it only takes variety (Kynkäänniemi et al. 2024, arXiv
/// 2404.07724).
const GUIDED: [f64; 2] = [0.4, 0.75];

impl SampleConfig {
    /// Ancestral sampling as the model's schedule has it: all steps, and with classes [`DEFAULT_GUIDANCE_SCALE`] in the middle.
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

    /// Guidance from 0.4 T to 0.75 T, the timesteps at which a class is decided: 8 to 15 of 20.
    #[must_use]
    pub fn in_the_middle(scale: f64, denoiser: &Denoiser) -> Guidance {
        let [first, last] = GUIDED.map(|part| part * denoiser.schedule().num_train_timesteps() as f64);
        Guidance::new(scale).within(first..=last)
    }
}

impl Denoiser {
    /// x_T of the images with these indices: the noise from which they are sampled, [N, pixels].
    ///
    /// # Errors
    ///
    /// If the tensor library fails.
    pub fn start(&self, config: &SampleConfig, images: &[u64]) -> Result<Tensor> {
        let (rng, shape) = (CounterRng::new(config.seed), [self.config().pixels()]);
        Ok(rng.normal(Purpose::SAMPLE_START, images, 0, &shape, DType::F32, self.device())?)
    }

    /// Samples the images with these indices and classes: [N, pixels] on the scale [−1, 1].
    ///
    /// Image 17 of a seed is the same picture whichever others are asked for with it. All images are in
    /// memory at once; for more, call it with one part of the indices after another.
    ///
    /// # Errors
    ///
    /// If the numbers of images and classes differ, a class is out of range, an option does not fit, the observer
    /// fails, or a prediction or a sample is NaN or infinite. On a CPU sampling ends with the first such prediction;
    /// elsewhere, where reading one makes the device wait, after the last step.
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
        // A wrong argument is reported as itself, before a sampler wraps it.
        self.check_labels(labels, images.len())?;
        self.check_guidance(config.guidance.scale())?;
        config.guidance.check(schedule)?;
        check_churn(&config.sampler)?;
        let last = timesteps.as_slice()[timesteps.len() - 1];
        let sampled = config.sampler.run(schedule, &timesteps, x_t, model, noise, observe);
        check.finish(last, sampled)
    }
}

/// Finds predictions and samples that are NaN or infinite, which would become black pixels.
struct FiniteCheck<'a> {
    /// The index of each image of the batch.
    images: &'a [u64],
    /// Marks that are still on a device: one for each image, NaN where a number is not finite.
    pending: Vec<(&'static str, Timestep, Tensor)>,
    /// The error of a prediction, which a sampler would wrap.
    failure: Option<Error>,
}

impl FiniteCheck<'_> {
    /// Marks the images of a tensor [B, …], and reads the marks if that costs nothing.
    fn add(&mut self, quantity: &'static str, at: Timestep, tensor: &Tensor) -> candle_core::Result<()> {
        // 0·x is NaN where x is NaN or infinite, and 0 elsewhere.
        let marks = (tensor.flatten_from(1)? * 0.0)?.sum(1)?;
        let is_cpu = marks.device().is_cpu();
        self.pending.push((quantity, at, marks));
        if is_cpu { self.read() } else { Ok(()) }
    }

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

    /// The samples, if they and all predictions are finite.
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

/// These networks are trained at whole timesteps, and churn asks between them.
fn check_churn(sampler: &Sampler) -> Result<()> {
    match sampler {
        Sampler::Euler(churn) | Sampler::Heun(churn) if churn.s_churn != 0.0 => {
            let expected = "0, because the network knows whole timesteps only";
            Err(ddpm_core::Error::out_of_range("s_churn", churn.s_churn, expected).into())
        }
        _ => Ok(()),
    }
}
