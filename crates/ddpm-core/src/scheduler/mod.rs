//! A schedule with a sampler, as described by a `scheduler_config.json` of diffusers.

mod classes;
mod codec;
mod flow_match;
mod json;
mod options;
mod spacing;

pub use flow_match::{FlowMatchEuler, TimeShift};
use serde::{Deserialize, Serialize};

use crate::{Compat, NoiseSchedule, NoiseScheduleConfig, Plan, Result, Sampler, Timesteps};

impl Sampler {
    /// The name of the class in diffusers.
    #[must_use]
    pub fn diffusers_class(&self) -> &'static str {
        match self {
            Self::Ddpm(_) => "DDPMScheduler",
            Self::Ddim(_) => "DDIMScheduler",
            Self::DpmSolverMultistep(_) => "DPMSolverMultistepScheduler",
            Self::Euler(_) => "EulerDiscreteScheduler",
            Self::EulerAncestral => "EulerAncestralDiscreteScheduler",
            Self::Heun(_) => "HeunDiscreteScheduler",
            Self::UniPc(_) => "UniPCMultistepScheduler",
            Self::Pndm => "PNDMScheduler",
            Self::Lcm(_) => "LCMScheduler",
            Self::Tcd(_) => "TCDScheduler",
            Self::DdimInverse(_) => "DDIMInverseScheduler",
            Self::RePaint { .. } => "RePaintScheduler",
        }
    }
}

/// The noise level at the end of a run (`final_sigmas_type` of diffusers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FinalSigma {
    /// σ = 0: the run ends at x₀.
    Zero,
    /// σ at t = 0, the smallest noise level of the schedule.
    SigmaMin,
}

/// The content of a `scheduler_config.json`. Read one with [`DiffusersConfig::from_diffusers_json`].
#[derive(Clone, Debug, PartialEq)]
pub struct DiffusersConfig {
    /// The schedule, and how to interpret the network's output.
    pub schedule: NoiseScheduleConfig,
    /// The sampler.
    pub sampler: Sampler,
    /// Whether to space the noise levels as in [`Timesteps::karras`]. For Euler and Heun the largest and the smallest
    /// level follow from `timestep_spacing`.
    pub use_karras_sigmas: bool,
    /// The noise level at the end of a run.
    pub final_sigma: FinalSigma,
    /// The file from which it was read, so that writing keeps options of other classes and the spelling of values.
    file: codec::FileOptions,
}

impl DiffusersConfig {
    /// Combines a schedule and a sampler. Runs end at x₀.
    ///
    /// Not every option of a schedule can be written for every class. For example, only the classes of DDPM, DDIM, Heun,
    /// LCM and TCD have `clip_sample`, which [`NoiseScheduleConfig::mnist20`] sets.
    #[must_use]
    pub fn new(schedule: NoiseScheduleConfig, sampler: Sampler) -> Self {
        let file = codec::FileOptions::default();
        Self { schedule, sampler, use_karras_sigmas: false, final_sigma: FinalSigma::Zero, file }
    }
}

/// A validated schedule with a sampler.
///
/// ```
/// # use ddpm_core::{Scheduler, DiffusersConfig};
/// let json = r#"{ "_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": true }"#;
/// let plan = Scheduler::new(&DiffusersConfig::from_diffusers_json(json)?)?.plan(10)?;
/// assert_eq!(plan.steps(), 10);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Scheduler {
    config: DiffusersConfig,
    schedule: NoiseSchedule,
}

/// The value that the σ-based classes of diffusers use instead of ᾱ = 0.
const DIFFUSERS_TERMINAL: f64 = 1.0 / 16_777_216.0;

impl Scheduler {
    /// Computes the tables of the schedule.
    ///
    /// # Errors
    ///
    /// As [`NoiseSchedule::new`].
    pub fn new(config: &DiffusersConfig) -> Result<Self> {
        let mut schedule = NoiseSchedule::new(&config.schedule)?;
        use Sampler::{DpmSolverMultistep, Euler, EulerAncestral, UniPc};
        let by_sigma = matches!(config.sampler, DpmSolverMultistep(_) | Euler(_) | EulerAncestral | UniPc(_));
        let NoiseScheduleConfig { compat, rescale_betas_zero_snr, .. } = config.schedule;
        if by_sigma && rescale_betas_zero_snr && compat == Compat::Diffusers {
            schedule = schedule.with_terminal(DIFFUSERS_TERMINAL);
        }
        Ok(Self { config: config.clone(), schedule })
    }

    /// The configuration from which the scheduler was made.
    #[must_use]
    pub fn config(&self) -> &DiffusersConfig {
        &self.config
    }

    /// The schedule.
    #[must_use]
    pub fn schedule(&self) -> &NoiseSchedule {
        &self.schedule
    }

    /// Computes `num_inference_steps` timesteps with the spacing of the diffusers class. The classes differ even for the
    /// same `timestep_spacing`: Euler and Heun use fractional timesteps with linspace, and DPM-Solver and UniPC leave
    /// room for one more timestep before x₀. [`Timesteps::spaced`] is the same for all samplers.
    ///
    /// # Errors
    ///
    /// If `num_inference_steps` is 0 or above T, or the spacing of the class gives no descending list.
    pub fn timesteps(&self, num_inference_steps: usize) -> Result<Timesteps> {
        let timesteps = spacing::timesteps(&self.config, &self.schedule, num_inference_steps)?;
        Ok(match self.config.final_sigma {
            FinalSigma::Zero => timesteps,
            FinalSigma::SigmaMin => timesteps.ending_at_sigma_min(&self.schedule),
        })
    }

    /// The plan of the sampler for `num_inference_steps` timesteps, spaced as in [`Scheduler::timesteps`].
    ///
    /// # Errors
    ///
    /// As [`Scheduler::timesteps`] and [`Sampler::plan`].
    pub fn plan(&self, num_inference_steps: usize) -> Result<Plan> {
        self.config.sampler.plan(&self.schedule, self.timesteps(num_inference_steps)?)
    }
}
