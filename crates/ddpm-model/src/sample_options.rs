//! Sampling options from a user, and the sampling configuration that they give for a model.

use std::ops::RangeInclusive;

use ddpm_core::{ReverseVariance, Sampler, Steps};

use crate::{Denoiser, Error, Result, SampleConfig};

/// The name of a sampler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum SamplerName {
    /// Ancestral sampling.
    #[default]
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
}

/// Sampling options; a `None` stands for the default of the model or the sampler.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SampleOptions {
    /// The sampler.
    pub sampler: SamplerName,
    /// The variance of the reverse steps of `ddpm`; by default the schedule's `variance_type`.
    pub variance: Option<ReverseVariance>,
    /// η of `ddim`, 0 (deterministic, the default) to 1 (ancestral).
    pub eta: Option<f64>,
    /// The timesteps that the sampler visits.
    pub steps: Steps,
    /// The guidance scale, 1 for no guidance; by default
    /// [`DEFAULT_GUIDANCE_SCALE`](crate::DEFAULT_GUIDANCE_SCALE) if the model has classes, else 1.
    pub guidance_scale: Option<f64>,
    /// The guidance interval in timesteps; by default the interval of [`SampleConfig::in_the_middle`].
    pub guidance_interval: Option<RangeInclusive<f64>>,
}

impl SampleOptions {
    /// The sampling configuration for a model.
    ///
    /// # Errors
    ///
    /// If an option has no effect, because it belongs to another sampler or the guidance scale is 1, or the guidance
    /// interval does not fit the model's schedule.
    pub fn config(&self, seed: u64, denoiser: &Denoiser) -> Result<SampleConfig> {
        let default = SampleConfig::ancestral(seed, denoiser);
        let sampler = self.sampler(default.sampler)?;
        let scale = self.guidance_scale.unwrap_or(default.guidance.scale());
        let mut guidance = SampleConfig::in_the_middle(scale, denoiser);
        if let Some(interval) = &self.guidance_interval {
            if scale == 1.0 {
                let expected = "another scale with a guidance interval, which has no effect at 1";
                return Err(Error::out_of_range("the guidance scale", scale, expected));
            }
            guidance = guidance.within(interval.clone());
        }
        guidance.check(denoiser.schedule())?;
        Ok(SampleConfig { seed, sampler, steps: self.steps.clone(), guidance })
    }

    fn sampler(&self, ancestral: Sampler) -> Result<Sampler> {
        let sampler = match self.sampler {
            SamplerName::Ddpm => self.variance.clone().map_or(ancestral, Sampler::Ddpm),
            SamplerName::Ddim => Sampler::ddim(self.eta.unwrap_or(0.0)),
            SamplerName::DpmPp2m => Sampler::dpmpp_2m(),
            SamplerName::DpmPp2mSde => Sampler::dpmpp_2m_sde(),
            SamplerName::Euler => Sampler::euler(),
            SamplerName::EulerAncestral => Sampler::EulerAncestral,
            SamplerName::Heun => Sampler::heun(),
            SamplerName::Unipc => Sampler::unipc(),
        };
        let other_sampler = |option, expected| Err(Error::OptionOfOtherSampler { option, expected });
        match (&self.variance, self.eta) {
            (Some(_), _) if self.sampler != SamplerName::Ddpm => other_sampler("variance", "ddpm"),
            (_, Some(_)) if self.sampler != SamplerName::Ddim => other_sampler("eta", "ddim"),
            _ => Ok(sampler),
        }
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
        assert_eq!(config, SampleConfig::ancestral(7, &denoiser));
        let options = SampleOptions {
            sampler: SamplerName::Ddim,
            eta: Some(0.5),
            steps: Steps::Spaced(4),
            guidance_scale: Some(2.0),
            guidance_interval: Some(3.0..=5.0),
            ..SampleOptions::default()
        };
        let config = options.config(7, &denoiser).unwrap();
        assert_eq!((config.sampler, config.steps), (Sampler::Ddim(0.5), Steps::Spaced(4)));
        let scales = [2, 3, 5, 6].map(|t| config.guidance.scale_at(denoiser.schedule().timestep(t).unwrap()));
        assert_eq!(scales, [1.0, 2.0, 2.0, 1.0]);
    }

    #[test]
    fn an_option_of_another_sampler_and_a_wrong_interval_are_refused() {
        let denoiser = denoiser();
        let ddim = SampleOptions { sampler: SamplerName::Ddim, ..SampleOptions::default() };
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
                SampleOptions { eta: Some(0.0), ..SampleOptions::default() },
                "eta is an option of the sampler ddim",
            ),
            (
                SampleOptions {
                    guidance_interval: Some(5.0..=7.0),
                    guidance_scale: Some(1.0),
                    ..SampleOptions::default()
                },
                "the guidance scale is 1, expected another scale with a guidance interval, which has no effect at 1",
            ),
            (
                SampleOptions { guidance_interval: Some(5.0..=20.0), ..SampleOptions::default() },
                "the guidance interval is 5-20, expected timesteps from 0 to 19",
            ),
        ] {
            assert_eq!(options.config(1, &denoiser).unwrap_err().to_string(), message);
        }
    }
}
