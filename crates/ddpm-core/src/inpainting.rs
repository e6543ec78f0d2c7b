//! Inpainting by blending: known pixels are put into xₜ after each step.

use candle_core::Tensor;

use crate::{Error, Result, Run, error::BoxError, run::like, weighted_sum::weighted_sum};

/// The known part of images. [`Inpainting::blend`] after each step makes any sampler paint the rest:
///
/// ```text
/// x_prev = mask · q(x_prev given known) + (1−mask) · x_prev
/// ```
///
/// With few steps the two parts often do not fit each other. [`Sampler::RePaint`](crate::Sampler::RePaint) jumps back to
/// make them fit (Lugmayr et al. 2022, arXiv 2201.09865).
///
/// ```
/// # use ddpm_core::candle_core::{DType, Device, Tensor};
/// # use ddpm_core::{CounterRng, Inpainting, NoiseSchedule, NoiseScheduleConfig, Purpose, Sampler, Steps, Timestep};
/// # let schedule = NoiseSchedule::new(&NoiseScheduleConfig::mnist20())?;
/// # let network = |x_t: &Tensor, timestep: Timestep| x_t * (1.0 - timestep.alpha_cumprod()).sqrt();
/// # let images = Tensor::zeros((4, 784), DType::F32, &Device::Cpu)?;
/// # let mask = images.ones_like()?;
/// let plan = Sampler::RePaint { jump_length: 2, jump_n_sample: 3 }.plan(&schedule, Steps::All)?;
/// let rng = CounterRng::new(1).images(0..4);
/// let (known, known_noise) =
///     (Inpainting::new(&images, &mask)?, rng.clone().for_purpose(Purpose::INPAINTING).noise());
/// let painted = plan.sample_with(rng.start(&[784], &Device::Cpu)?, network, rng.noise(), |run| {
///     Ok(known.blend(run, &known_noise)?)
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Inpainting {
    known: Tensor,
    mask: Tensor,
}

impl Inpainting {
    /// `known` holds clean images, [B, …]. `mask` has the same shape; it is 1 at known pixels and 0 at unknown pixels,
    /// where `known` has no effect but must be finite.
    ///
    /// # Errors
    ///
    /// If the shapes differ.
    pub fn new(known: &Tensor, mask: &Tensor) -> Result<Self> {
        let mask = like(mask, known)?;
        Ok(Self { known: (known * &mask)?, mask })
    }

    /// Puts the known pixels into the images of a run that has finished a step, at the noise level of the run. It does
    /// nothing within a step. `noise` noises the known pixels; it must not repeat the noise of the sampler.
    ///
    /// # Errors
    ///
    /// If the noise source fails, or the shapes differ.
    pub fn blend<E: Into<BoxError>>(
        &self,
        run: &mut Run,
        mut noise: impl FnMut(&Tensor, usize) -> std::result::Result<Tensor, E>,
    ) -> Result<()> {
        let Some(step) = run.step() else { return Ok(()) };
        let (mask, mut known) = (like(&self.mask, step.x_t)?, like(&self.known, step.x_t)?);
        if step.noise > 0.0 {
            let noise = noise(step.x_t, step.index).map_err(|source| Error::Noise(source.into()))?;
            let noise = (like(&noise, step.x_t)? * &mask)?;
            known = weighted_sum(&[(step.signal, &known), (step.noise, &noise)])?;
        }
        let blended = (known + (step.x_t * (1.0 - mask)?)?)?;
        run.set_x_t(&blended)
    }
}
