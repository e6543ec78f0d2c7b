//! Samplers. Each makes a [`Plan`] from a schedule and a list of timesteps.
//!
//! | sampler | method | order | adds noise |
//! | --- | --- | --- | --- |
//! | [`Sampler::Ddpm`] | ancestral sampling, Ho et al. 2020 | | yes |
//! | [`Sampler::Ddim`], [`Sampler::DdimInverse`] | Song et al. 2021, with any η; the inverse encodes an image | 1 | if η > 0 |
//! | [`Sampler::DpmSolverMultistep`] | DPM-Solver++ 2M, and its SDE form | 2 | in the SDE form |
//! | [`Sampler::Euler`], [`Sampler::Heun`] | Karras et al. 2022 (EDM) | 1, 2 | with churn |
//! | [`Sampler::EulerAncestral`] | ancestral Euler method of k-diffusion | | yes |
//! | [`Sampler::UniPc`] | predictor and corrector, Zhao et al. 2023 | 2 or 3 | no |
//! | [`Sampler::Pndm`] | linear multistep, Liu et al. 2022 | up to 4 | no |
//! | [`Sampler::Lcm`], [`Sampler::Tcd`] | distilled consistency models, Luo et al. 2023, Zheng et al. 2024 | | yes |
//! | [`Sampler::RePaint`] | ancestral sampling with jumps back, Lugmayr et al. 2022 | | yes |
//!
//! All images are on the scale of the forward process, xₜ = √ᾱ x₀ + √(1−ᾱ) ε, even if the literature scales by 1/√ᾱ. So
//! one network works with all samplers.

mod ddim;
mod ddim_inverse;
mod ddpm;
mod dpm_solver;
mod euler;
mod lcm;
mod pndm;
mod repaint;
mod uni_pc;

pub use dpm_solver::{DpmSolver, SolverType};
pub use euler::Churn;
pub use lcm::{Lcm, Tcd};
pub use uni_pc::{Bh, UniPc};

use crate::{Compat, Error, NoiseSchedule, Plan, Result, ReverseVariance, Steps, Timesteps};

/// A sampler with its options, as data.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Sampler {
    /// Ancestral sampling with this variance, `DDPMScheduler`.
    Ddpm(ReverseVariance),
    /// DDIM with this η, 0 (deterministic) to 1 (ancestral), `DDIMScheduler`.
    Ddim(f64),
    /// Encodes images as the noise from which DDIM with η = 0 generates them. It takes the steps in the opposite
    /// direction, with this number of fixed-point iterations for each, 1 or more. A few iterations make the round trip
    /// exact up to rounding, unless x̂₀ changes abruptly between neighbouring xₜ.
    DdimInverse(usize),
    /// DPM-Solver++, `DPMSolverMultistepScheduler`.
    DpmSolverMultistep(DpmSolver),
    /// Euler's method of EDM, `EulerDiscreteScheduler`. Without churn it is equivalent to DDIM with η = 0.
    Euler(Churn),
    /// The ancestral form of Euler's method (k-diffusion, `sample_euler_ancestral`), `EulerAncestralDiscreteScheduler`.
    /// A step goes down to σ_down, below the next level σ′, and noise of standard deviation σ_up raises it to σ′. On the
    /// scale x/√ᾱ, σ_up² = σ′² (σ² − σ′²)/σ² is the variance of the posterior. So this sampler is equivalent to
    /// [`Sampler::Ddpm`] with [`ReverseVariance::FixedSmall`], and is planned that way.
    EulerAncestral,
    /// Heun's method of EDM, `HeunDiscreteScheduler`. It evaluates the network twice in each step, except in a last step
    /// to x₀, and in steps from such strong noise that the correction would do harm.
    Heun(Churn),
    /// UniPC, `UniPCMultistepScheduler`. At the end of a step, xₜ is the predicted image, before its correction.
    UniPc(UniPc),
    /// PNDM in its form without Runge-Kutta steps (PLMS), `PNDMScheduler` with `skip_prk_steps`. It evaluates the network
    /// once more than it has steps, and does not clip x̂₀.
    Pndm,
    /// For latent consistency models, `LCMScheduler`. The timesteps of [`Steps::Spaced`] are
    /// [`Timesteps::distilled`](crate::Timesteps::distilled).
    Lcm(Lcm),
    /// For trajectory consistency distillation, `TCDScheduler`, with the same timesteps. All are integers. The last step
    /// leads to t = 0.
    Tcd(Tcd),
    /// Ancestral sampling that jumps back (Lugmayr et al. 2022). With an edit that puts known pixels into xₜ after each
    /// step, the jumps make known and unknown pixels consistent. The cost is about `jump_n_sample` runs without jumps.
    RePaint {
        /// The number of steps of each jump, 1 or more. It is j in the paper, which uses 10 of 250 steps. A list that is
        /// not longer than this has no jumps, so choose a small value for few steps.
        jump_length: usize,
        /// The number of times that each stretch of `jump_length` steps is sampled, 1 or more. It is r in the paper,
        /// which uses 10. With 1 there are no jumps.
        jump_n_sample: usize,
    },
}

impl Sampler {
    /// Ancestral sampling with the posterior's variance (Ho et al. 2020).
    #[must_use]
    pub fn ddpm() -> Self {
        Self::Ddpm(ReverseVariance::FixedSmall)
    }

    /// DDIM with η from 0, deterministic, to 1, ancestral (Song et al. 2021).
    #[must_use]
    pub fn ddim(eta: f64) -> Self {
        Self::Ddim(eta)
    }

    /// DPM-Solver++ 2M (Lu et al. 2022, algorithm 2).
    #[must_use]
    pub fn dpmpp_2m() -> Self {
        Self::DpmSolverMultistep(DpmSolver::plus_plus_2m())
    }

    /// SDE-DPM-Solver++ 2M (Lu et al. 2022, section 5).
    #[must_use]
    pub fn dpmpp_2m_sde() -> Self {
        Self::DpmSolverMultistep(DpmSolver::sde_2m())
    }

    /// Euler's method without churn (Karras et al. 2022).
    #[must_use]
    pub fn euler() -> Self {
        Self::Euler(Churn::NONE)
    }

    /// Heun's method without churn (Karras et al. 2022).
    #[must_use]
    pub fn heun() -> Self {
        Self::Heun(Churn::NONE)
    }

    /// UniPC of order 2 with B₂ (Zhao et al. 2023).
    #[must_use]
    pub fn unipc() -> Self {
        Self::UniPc(UniPc::order_2())
    }

    /// For latent consistency models distilled with 50 timesteps (Luo et al. 2023).
    #[must_use]
    pub fn lcm() -> Self {
        Self::Lcm(Lcm { timestep_scaling: 10.0, original_inference_steps: 50 })
    }

    /// For trajectory consistency distillation with 50 timesteps, with η = 0.3 (Zheng et al. 2024).
    #[must_use]
    pub fn tcd() -> Self {
        Self::Tcd(Tcd { eta: 0.3, original_inference_steps: 50 })
    }

    /// The plan of the sampler: every network evaluation and every factor, for a schedule and a list of timesteps.
    ///
    /// ```
    /// # use ddpm_core::{NoiseSchedule, NoiseScheduleConfig, Sampler, Steps};
    /// let schedule = NoiseSchedule::new(&NoiseScheduleConfig::mnist20())?;
    /// let plan = Sampler::heun().plan(&schedule, Steps::Spaced(10))?;
    /// assert_eq!((plan.steps(), plan.evaluations()), (10, 19));
    /// # Ok::<(), ddpm_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If an option is out of range, a variance does not fit the schedule or the list, or the list does not fit the
    /// schedule.
    pub fn plan(&self, schedule: &NoiseSchedule, steps: impl Into<Steps>) -> Result<Plan> {
        let timesteps = &match steps.into() {
            Steps::Spaced(n) => self.spaced(schedule, n)?,
            steps => steps.timesteps(schedule)?,
        };
        let mut plan = Plan::new(schedule);
        match self {
            Self::Ddpm(variance) => {
                variance.check(schedule, timesteps)?;
                ddpm::plan(&mut plan, timesteps, variance, schedule.config().compat);
            }
            &Self::Ddim(eta) | &Self::Tcd(Tcd { eta, .. }) if !(0.0..=1.0).contains(&eta) => {
                return Err(Error::out_of_range("eta", eta, "0 (deterministic) to 1 (ancestral)"));
            }
            Self::Ddim(eta) => ddim::plan(&mut plan, schedule, timesteps, *eta)?,
            &Self::DdimInverse(iterations) => {
                at_least_1("iterations", iterations)?;
                ddim_inverse::plan(&mut plan, timesteps, iterations);
            }
            Self::DpmSolverMultistep(options) => {
                check_order(options.solver_order)?;
                dpm_solver::plan(&mut plan, timesteps, *options);
            }
            Self::Euler(churn) | Self::Heun(churn) => {
                churn.check()?;
                euler::plan(&mut plan, schedule, timesteps, churn, matches!(self, Self::Heun(_)));
            }
            // The ancestral class of diffusers does not have the defects of its DDPM class.
            Self::EulerAncestral => {
                ddpm::plan(&mut plan, timesteps, &ReverseVariance::FixedSmall, Compat::Exact);
            }
            Self::UniPc(options) => {
                check_order(options.solver_order)?;
                uni_pc::plan(&mut plan, timesteps, *options);
            }
            Self::Pndm => plan = pndm::plan(plan, schedule, timesteps)?,
            Self::Lcm(options) => lcm::lcm(&mut plan, timesteps, *options)?,
            Self::Tcd(options) => plan = lcm::tcd(plan, schedule, timesteps, *options)?,
            &Self::RePaint { jump_length, jump_n_sample } => {
                at_least_1("jump_length", jump_length)?;
                at_least_1("jump_n_sample", jump_n_sample)?;
                repaint::plan(&mut plan, timesteps, jump_length, jump_n_sample);
            }
        }
        Ok(plan)
    }

    /// The timesteps of [`Steps::Spaced`].
    pub(crate) fn spaced(&self, schedule: &NoiseSchedule, n: usize) -> Result<Timesteps> {
        match self {
            &Self::Lcm(Lcm { original_inference_steps: original, .. })
            | &Self::Tcd(Tcd { original_inference_steps: original, .. }) => {
                Timesteps::distilled(schedule, original, n)
            }
            _ => Timesteps::spaced(schedule, n),
        }
    }
}

fn check_order(order: usize) -> Result<()> {
    if (1..=2).contains(&order) {
        return Ok(());
    }
    Err(Error::out_of_range("solver_order", order, "1 or 2"))
}

fn at_least_1(option: &'static str, found: usize) -> Result<()> {
    if found >= 1 { Ok(()) } else { Err(Error::out_of_range(option, found, "1 or more")) }
}
