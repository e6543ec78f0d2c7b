//! Sampling options from a user, and the sampling configuration that they give for a model.

use std::ops::RangeInclusive;

use ddpm_core::{Guidance, ReverseVariance, Sampler, Steps};

use crate::{Denoiser, DenoiserGuidance, Error, NoisePath, Result, SampleConfig};

/// The name of a sampler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum SamplerName {
    /// Ancestral sampling.
    Ddpm,
    /// DDIM; deterministic if η is 0, its default.
    Ddim,
    /// DPM-Solver++ of order 2, multistep.
    #[cfg_attr(feature = "clap", value(name = "dpmpp-2m"))]
    DpmPp2m,
    /// The stochastic form of `dpmpp-2m`.
    #[cfg_attr(feature = "clap", value(name = "dpmpp-2m-sde"))]
    DpmPp2mSde,
    /// Euler's method of EDM; equals `ddim` with η = 0.
    Euler,
    /// Euler's method with added noise; equals `ddpm` with variance `fixed_small`.
    EulerAncestral,
    /// Heun's method of EDM; evaluates the network twice in each step.
    Heun,
    /// UniPC of order 2.
    Unipc,
    /// RePaint: `ddpm` that goes back and forth, so that painted pixels fit known ones.
    Repaint,
}

/// Sampling options; a `None` stands for the default of the model or the sampler.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SampleOptions {
    /// The sampler; by default the one to which a given option belongs, see [`SampleOptions::sampler_name`].
    pub sampler: Option<SamplerName>,
    /// The variance of the reverse steps of `ddpm`; by default the schedule's `variance_type`.
    pub variance: Option<ReverseVariance>,
    /// η of `ddim`, 0 (deterministic, the default) to 1 (ancestral).
    pub eta: Option<f64>,
    /// The timesteps that the sampler visits.
    pub steps: Steps,
    /// The divisor of each predicted ε, above 0; by default 1, see [`Plan::epsilon_scaled`](ddpm_core::Plan::epsilon_scaled).
    pub epsilon_scale: Option<f64>,
    /// Guidance.
    pub guidance: GuidanceOptions,
    /// The noise of the steps.
    pub noise_path: NoisePath,
    /// The share of the timesteps that are left for a given image, above 0 and at most 1, see
    /// [`Timesteps::strength`](ddpm_core::Timesteps::strength); by default all.
    pub strength: Option<f64>,
}

/// The sampler `repaint`: each group of four steps is carried out four times.
const REPAINT: Sampler = Sampler::RePaint { jump_length: 4, jump_n_sample: 4 };

/// The default scale of guidance by the class.
///
/// The network learns the mean of x₀ given xₜ. With few large steps this mean sometimes lies between two digits;
/// guidance moves it towards the requested class.
pub const DEFAULT_GUIDANCE_SCALE: f64 = 1.5;

/// The default interval of guidance by the class as fractions of T: the noise levels at which a shape between two classes
/// becomes one of them. At higher noise levels guidance reduces diversity, and at lower ones it changes almost nothing
/// (Kynkäänniemi et al. 2024, arXiv 2404.07724).
const GUIDED: [f64; 2] = [0.2, 0.5];

/// The default scale of guidance by a guide.
///
/// The prediction moves away from the errors that a weaker model makes more often.
pub const DEFAULT_GUIDE_SCALE: f64 = 1.5;

/// The default interval of guidance by a guide as fractions of T.
const GUIDED_BY_GUIDE: [f64; 2] = [0.2, 0.75];

/// Options of guidance; a `None` stands for the default of the model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GuidanceOptions {
    /// The scale of guidance by the class, 1 for none; by default [`DEFAULT_GUIDANCE_SCALE`] if the model has classes, else 1.
    pub scale: Option<f64>,
    /// The timesteps with guidance by the class; by default from 0.2 T to 0.5 T, which is 4 to 10 for T = 20.
    pub interval: Option<RangeInclusive<f64>>,
    /// The timesteps between which the class is annealed, see [`Guidance::annealed`]; by default it is not.
    pub annealing: Option<RangeInclusive<f64>>,
    /// The scale of guidance by the guide, 1 for none; by default [`DEFAULT_GUIDE_SCALE`] if the model has a guide, else 1.
    pub guide_scale: Option<f64>,
    /// The timesteps with guidance by the guide; by default from 0.2 T to 0.75 T, which is 4 to 15 for T = 20.
    pub guide_interval: Option<RangeInclusive<f64>>,
}

impl SampleOptions {
    /// The sampling configuration for a model.
    ///
    /// # Errors
    ///
    /// If an option has no effect, because it belongs to another sampler or the guidance scale is 1, or an option does not
    /// fit the model's schedule.
    pub fn config(&self, seed: u64, denoiser: &Denoiser) -> Result<SampleConfig> {
        let guidance = self.guidance.guidance(denoiser)?;
        let schedule = denoiser.schedule();
        let sampler = self.sampler(&schedule.config().variance_type)?;
        let steps = match self.strength {
            Some(strength) => self.steps.clone().timesteps(schedule)?.strength(strength)?.into(),
            None => self.steps.clone(),
        };
        let plan = sampler.plan(schedule, steps)?;
        let plan = plan.epsilon_scaled(self.epsilon_scale.unwrap_or(1.0))?;
        Ok(SampleConfig { seed, plan, guidance, noise_path: self.noise_path, given: None })
    }

    /// The name of the sampler: the given one; else `ddpm` with a variance, `ddim` with η, and otherwise `dpmpp-2m-sde`.
    #[must_use]
    pub fn sampler_name(&self) -> SamplerName {
        match (self.sampler, &self.variance, self.eta) {
            (Some(name), ..) => name,
            (None, Some(_), _) => SamplerName::Ddpm,
            (None, None, Some(_)) => SamplerName::Ddim,
            (None, None, None) => SamplerName::DpmPp2mSde,
        }
    }

    fn sampler(&self, variance_type: &ReverseVariance) -> Result<Sampler> {
        let name = self.sampler_name();
        let sampler = match name {
            SamplerName::Ddpm => Sampler::Ddpm(self.variance.as_ref().unwrap_or(variance_type).clone()),
            SamplerName::Ddim => Sampler::ddim(self.eta.unwrap_or(0.0)),
            SamplerName::DpmPp2m => Sampler::dpmpp_2m(),
            SamplerName::DpmPp2mSde => Sampler::dpmpp_2m_sde(),
            SamplerName::Euler => Sampler::euler(),
            SamplerName::EulerAncestral => Sampler::EulerAncestral,
            SamplerName::Heun => Sampler::heun(),
            SamplerName::Unipc => Sampler::unipc(),
            SamplerName::Repaint => REPAINT,
        };
        let other_sampler = |option, expected| Err(Error::OptionOfOtherSampler { option, expected });
        match (&self.variance, self.eta) {
            (Some(_), _) if name != SamplerName::Ddpm => other_sampler("variance", "ddpm"),
            (_, Some(_)) if name != SamplerName::Ddim => other_sampler("eta", "ddim"),
            _ => Ok(sampler),
        }
    }
}

impl GuidanceOptions {
    /// The guidance of a model.
    ///
    /// # Errors
    ///
    /// If an option has no effect, because its scale is 1, or does not fit the model.
    pub fn guidance(&self, denoiser: &Denoiser) -> Result<DenoiserGuidance> {
        let default_or_1 = |has: bool, default: f64| if has { default } else { 1.0 };
        let scale = default_or_1(denoiser.config().num_classes > 0, DEFAULT_GUIDANCE_SCALE);
        let guide_scale = default_or_1(denoiser.guide().is_some(), DEFAULT_GUIDE_SCALE);
        let of = |scale: f64, interval: &Option<RangeInclusive<f64>>, default: [f64; 2]| {
            if scale == 1.0 && interval.is_some() {
                let expected = "another scale with a guidance interval, which has no effect at 1";
                return Err(Error::out_of_range("the guidance scale", scale, expected));
            }
            let [first, last] = default.map(|part| part * denoiser.schedule().num_train_timesteps() as f64);
            Ok(Guidance::new(scale).within(interval.clone().unwrap_or(first..=last)))
        };
        let class = of(self.scale.unwrap_or(scale), &self.interval, GUIDED)?;
        let guide = of(self.guide_scale.unwrap_or(guide_scale), &self.guide_interval, GUIDED_BY_GUIDE)?;
        let class = match &self.annealing {
            Some(interval) => class.annealed(interval.clone()),
            None => class,
        };
        let guidance = DenoiserGuidance { class, guide };
        denoiser.check_guidance(&guidance)?;
        Ok(guidance)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use ddpm_core::NoiseScheduleConfig;

    use super::*;
    use crate::{DenoiserConfig, initial_weights};

    fn denoiser() -> Denoiser {
        let config = DenoiserConfig::mlp(4, 3, 2);
        let weights = initial_weights(&config, 1, &Device::Cpu).unwrap();
        Denoiser::new(&config, &NoiseScheduleConfig::mnist20(), weights).unwrap()
    }

    #[test]
    fn options_left_out_have_the_defaults_of_the_model() {
        let denoiser = denoiser();
        let config = SampleOptions::default().config(7, &denoiser).unwrap();
        let schedule = denoiser.schedule();
        assert_eq!(config.plan, Sampler::dpmpp_2m_sde().plan(schedule, Steps::All).unwrap());
        let ancestral = SampleConfig::ancestral(7, &denoiser).unwrap();
        assert_eq!((config.seed, &config.guidance), (7, &ancestral.guidance));
        let variance = Some(schedule.config().variance_type.clone());
        let options = SampleOptions { variance, ..SampleOptions::default() };
        assert_eq!(options.config(7, &denoiser).unwrap(), ancestral);
        let options = SampleOptions { eta: Some(0.5), ..SampleOptions::default() };
        assert_eq!(options.sampler_name(), SamplerName::Ddim);
        let options = SampleOptions {
            sampler: Some(SamplerName::Ddim),
            eta: Some(0.5),
            steps: Steps::Spaced(4),
            epsilon_scale: Some(1.0),
            guidance: GuidanceOptions {
                scale: Some(2.0),
                interval: Some(3.0..=5.0),
                ..GuidanceOptions::default()
            },
            ..SampleOptions::default()
        };
        let config = options.config(7, &denoiser).unwrap();
        let plan = Sampler::Ddim(0.5).plan(denoiser.schedule(), Steps::Spaced(4)).unwrap();
        assert_eq!(config.plan, plan);
        let scales =
            [2, 3, 5, 6].map(|t| config.guidance.scales_at(denoiser.schedule().timestep(t).unwrap()).class);
        assert_eq!(scales, [1.0, 2.0, 2.0, 1.0]);
        let scaled = SampleOptions { epsilon_scale: Some(1.01), ..options };
        assert_eq!(scaled.config(7, &denoiser).unwrap().plan, plan.epsilon_scaled(1.01).unwrap());
    }

    #[test]
    fn an_option_of_another_sampler_and_a_wrong_interval_are_refused() {
        let denoiser = denoiser();
        let of = |name| SampleOptions { sampler: Some(name), ..SampleOptions::default() };
        let ddim = of(SamplerName::Ddim);
        let guided = |scale, interval, annealing| SampleOptions {
            guidance: GuidanceOptions { scale, interval, annealing, ..GuidanceOptions::default() },
            ..SampleOptions::default()
        };
        for (options, message) in [
            (
                SampleOptions { variance: Some(ReverseVariance::Zero), ..ddim.clone() },
                "variance is an option of the sampler ddpm",
            ),
            (
                SampleOptions { variance: Some(ReverseVariance::PerStep(vec![0.1])), ..ddim },
                "variance is an option of the sampler ddpm",
            ),
            (
                SampleOptions { eta: Some(0.0), ..of(SamplerName::Ddpm) },
                "eta is an option of the sampler ddim",
            ),
            (
                guided(Some(1.0), Some(5.0..=7.0), None),
                "the guidance scale is 1, expected another scale with a guidance interval, which has no effect at 1",
            ),
            (
                guided(None, Some(5.0..=20.0), None),
                "the guidance interval is 5-20, expected timesteps from 0 to 19",
            ),
            (
                guided(None, None, Some(5.0..=20.0)),
                "the annealing interval is 5-20, expected timesteps from 0 to 19",
            ),
            (
                SampleOptions { epsilon_scale: Some(0.0), ..SampleOptions::default() },
                "epsilon scale is 0, expected a positive number; 1 is no scaling",
            ),
        ] {
            assert_eq!(options.config(1, &denoiser).unwrap_err().to_string(), message);
        }
    }
}
