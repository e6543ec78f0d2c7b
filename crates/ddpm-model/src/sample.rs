//! Sampling of images from a seed and classes.

use candle_core::{CpuStorage, Storage, Tensor};
use ddpm_core::{CounterRng, ImageNoise, Operation, Plan, Run, Sampler, StepInfo, Steps, Timestep, slerp};

use crate::{Denoiser, DenoiserGuidance, Error, GivenImage, GuidanceOptions, Result, device::run_on_device};

/// The configuration of sampling.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleConfig {
    /// The seed. An image depends only on the seed, its index, its class and the other options here.
    pub seed: u64,
    /// The steps: the plan of a sampler, or any other plan for the model's schedule.
    pub plan: Plan,
    /// The scales of guidance and the timesteps at which it applies.
    pub guidance: DenoiserGuidance,
    /// The noise of the steps.
    pub noise_path: NoisePath,
    /// The image from which the images are made; `None` for noise alone.
    pub given: Option<GivenImage>,
}

/// The noise that a sampler adds in its steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum NoisePath {
    /// A noise of its own for each step.
    #[default]
    Independent,
    /// Increments of one Brownian motion for each image, so that an image is refined by more steps instead of replaced by
    /// another one.
    Brownian,
}

/// Noise by its index, as a run takes it.
pub type NoiseSource = Box<dyn Fn(&Tensor, usize) -> ddpm_core::Result<Tensor> + Send + Sync>;

impl SampleConfig {
    /// Ancestral sampling with the schedule's `variance_type`, all timesteps and the default [`GuidanceOptions`]: Algorithm 2
    /// of Ho et al. 2020 with guidance. [`SampleOptions`](crate::SampleOptions) have another sampler by default.
    ///
    /// # Errors
    ///
    /// If the schedule's `variance_type` does not fit, as in [`Sampler::plan`].
    pub fn ancestral(seed: u64, denoiser: &Denoiser) -> Result<Self> {
        let variance = denoiser.schedule().config().variance_type.clone();
        let plan = Sampler::Ddpm(variance).plan(denoiser.schedule(), Steps::All)?;
        let guidance = GuidanceOptions::default().guidance(denoiser)?;
        Ok(Self { seed, plan, guidance, noise_path: NoisePath::default(), given: None })
    }
}

impl Denoiser {
    /// The noise of the images with these indices.
    #[must_use]
    pub fn noise(config: &SampleConfig, images: &[u64]) -> ImageNoise {
        CounterRng::new(config.seed).images(images.iter().copied())
    }

    /// The noise that the runs of these images add in their steps, as whoever answers a run passes it to [`Run::answer`].
    ///
    /// # Errors
    ///
    /// If the plan has no Brownian path and should take one.
    pub fn noise_source(config: &SampleConfig, images: &[u64]) -> Result<NoiseSource> {
        let noise = Self::noise(config, images);
        Ok(match config.noise_path {
            NoisePath::Independent => Box::new(noise.noise()),
            NoisePath::Brownian => Box::new(noise.along_path(&config.plan)?.noise()),
        })
    }

    /// Starts a run for the images with these indices, [N, pixels]. The caller evaluates the network, with
    /// [`Denoiser::output`], and may stop, look and edit between steps; [`Denoiser::sample`] does it all.
    ///
    /// # Errors
    ///
    /// If guidance does not fit the model or is rescaled, the plan has no Brownian path and should take one, the plan
    /// evaluates the network elsewhere than at the timesteps of the schedule, for which the network was trained, or the
    /// given image does not fit the model.
    pub fn start(&self, config: &SampleConfig, images: &[u64]) -> Result<Run> {
        self.start_with(config, self.x_start_noise(config, images)?, &Self::noise_source(config, images)?)
    }

    /// x_T of the images, [N, pixels].
    fn x_start_noise(&self, config: &SampleConfig, images: &[u64]) -> Result<Tensor> {
        Ok(Self::noise(config, images).start(&[self.config().pixels()], self.device())?)
    }

    fn start_with(&self, config: &SampleConfig, eps: Tensor, noise: &NoiseSource) -> Result<Run> {
        self.check_guidance(&config.guidance)?;
        self.check_timesteps(&config.plan)?;
        let x_t = match &config.given {
            Some(given) => given.noised(self, &config.plan, &eps)?,
            None => eps,
        };
        Ok(config.plan.start(x_t, noise)?)
    }

    /// Checks that a plan evaluates the network at the timesteps of the schedule only.
    fn check_timesteps(&self, plan: &Plan) -> Result<()> {
        let alphas_cumprod = self.schedule().alphas_cumprod();
        for operation in plan.operations() {
            let &Operation::Evaluate { timestep, .. } = operation else { continue };
            let (t, found) = (timestep.t(), timestep.alpha_cumprod());
            let expected = alphas_cumprod.get(timestep.index()).filter(|_| t.fract() == 0.0);
            if expected.is_none_or(|expected| (found - expected).abs() > 1e-9 * expected) {
                let found = format!("t = {t} with alphas_cumprod {found}");
                let expected = "a whole timestep of the model's schedule, for which the network was trained";
                return Err(Error::out_of_range("a timestep of the plan", found, expected));
            }
        }
        Ok(())
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
        observe: impl FnMut(StepInfo<'_>) -> Result<()> + Send,
    ) -> Result<Tensor> {
        run_on_device(&self.device().location(), || {
            let noise = Self::noise_source(config, images)?;
            let run = self.start_with(config, self.x_start_noise(config, images)?, &noise)?;
            self.finish(config, run, &noise, images, labels, observe)
        })
    }

    /// Samples images between those with these indices: all their noise is the spherical interpolation of the noise of
    /// `images` and of `others`. λ = 0 gives the images of [`Denoiser::sample`], and λ = 1 gives `others`.
    ///
    /// # Errors
    ///
    /// As [`Denoiser::sample`], or if the numbers of images differ.
    pub fn sample_between(
        &self,
        config: &SampleConfig,
        [images, others]: [&[u64]; 2],
        lambda: f64,
        labels: &[u32],
        observe: impl FnMut(StepInfo<'_>) -> Result<()> + Send,
    ) -> Result<Tensor> {
        run_on_device(&self.device().location(), || {
            let (first, second) = (Self::noise_source(config, images)?, Self::noise_source(config, others)?);
            let noise: NoiseSource =
                Box::new(move |x_t, index| slerp(&first(x_t, index)?, &second(x_t, index)?, lambda));
            let eps =
                slerp(&self.x_start_noise(config, images)?, &self.x_start_noise(config, others)?, lambda)?;
            let run = self.start_with(config, eps, &noise)?;
            self.finish(config, run, &noise, images, labels, observe)
        })
    }

    /// Answers a run to its end.
    fn finish(
        &self,
        config: &SampleConfig,
        mut run: Run,
        noise: &NoiseSource,
        images: &[u64],
        labels: &[u32],
        mut observe: impl FnMut(StepInfo<'_>) -> Result<()>,
    ) -> Result<Tensor> {
        self.check_labels(labels, images.len())?;
        let mut check = FiniteCheck { images, pending: Vec::new() };
        let mut last = None;
        while let Some(ask) = run.ask()? {
            let scales = config.guidance.scales_at(ask.timestep);
            let prediction = self.output(&ask.x_t, ask.timestep.index(), labels, scales)?;
            check.add("prediction", ask.timestep, &prediction)?;
            last = Some(ask.timestep);
            drop(ask);
            run.answer(&prediction, noise)?;
            if run.step().is_some() {
                self.keep_known(config, images, &mut run)?;
            }
            if let Some(step) = run.step() {
                observe(step)?;
            }
        }
        let sampled = run.into_x_t()?;
        if let Some(last) = last {
            check.add("sample", last, &sampled)?;
        }
        check.read()?;
        Ok(sampled)
    }
}

/// Finds predictions and samples that are NaN or infinite, which would otherwise become black pixels.
struct FiniteCheck<'a> {
    /// The index of each image of the batch.
    images: &'a [u64],
    /// Marks that have not been read from the device: one for each image, NaN if one of its values is not finite.
    pending: Vec<(&'static str, Timestep, Tensor)>,
}

impl FiniteCheck<'_> {
    /// Marks the images of a tensor [B, …], and reads the marks at once on a CPU.
    fn add(&mut self, quantity: &'static str, at: Timestep, tensor: &Tensor) -> Result<()> {
        if is_finite_on_cpu(tensor) {
            return Ok(());
        }
        // 0·x is NaN where x is NaN or infinite, and 0 elsewhere.
        let marks = (tensor.flatten_from(1)? * 0.0)?.sum(1)?;
        let is_cpu = marks.device().is_cpu();
        self.pending.push((quantity, at, marks));
        if is_cpu { self.read() } else { Ok(()) }
    }

    /// Reads the pending marks, and fails if one is NaN.
    fn read(&mut self) -> Result<()> {
        for (quantity, at, marks) in self.pending.drain(..) {
            let marks = marks.to_vec1::<f32>()?;
            let mut marked = std::iter::zip(self.images, marks).filter(|(_, mark)| mark.is_nan());
            if let Some((&image, _)) = marked.next() {
                return Err(Error::NotFinite { quantity, image, timestep: at.t() });
            }
        }
        Ok(())
    }
}

/// Whether all values are finite, if the tensor is a contiguous one of f32 on a CPU; otherwise `false`. One pass over memory.
fn is_finite_on_cpu(tensor: &Tensor) -> bool {
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) =
        (&*storage, layout.contiguous_offsets())
    else {
        return false;
    };
    // 0·x is NaN where x is NaN or infinite. Several sums, because one sum in order could not use a whole register.
    let mut sums = [0.0_f32; 16];
    let chunks = values[start..end].chunks_exact(sums.len());
    let rest = chunks.remainder().iter().map(|x| 0.0 * x).sum::<f32>();
    for chunk in chunks {
        std::iter::zip(&mut sums, chunk).for_each(|(sum, x)| *sum += 0.0 * x);
    }
    (sums.iter().sum::<f32>() + rest).is_finite()
}
