//! Linear multistep methods with factors of their own, which are fitted to a longer run.

#[cfg(feature = "candle")]
mod fit;
#[cfg(feature = "candle")]
mod least_squares;

use serde::{Deserialize, Serialize};

use crate::{NoiseSchedule, Plan, Register, Result, Timesteps};

/// A linear multistep method as a table: each step has factors of its own.
///
/// ```text
/// x_s = a xₜ + b₀ x̂₀ + b₁ x̂₀′ + b₂ x̂₀″ + …
/// ```
///
/// x̂₀ is the prediction at t, and x̂₀′, x̂₀″ are those of the steps before. DDIM with η = 0 and DPM-Solver++ 2M are methods
/// of this form, whose factors follow from the schedule alone. [`Multistep::fit`] finds the factors with which a few
/// steps come closest to a run of many steps, for one network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Multistep {
    /// The steps, from the noisiest timestep. The last one leads to x₀.
    pub steps: Vec<MultistepStep>,
}

/// A step of a [`Multistep`], which leads to the timestep of the next step, or to x₀.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MultistepStep {
    /// The timestep at which the step starts, 0 to T − 1.
    pub t: usize,
    /// The factor of xₜ.
    pub x_t: f64,
    /// The factors of the predicted x₀, the latest first; step i, from 0, has at most i + 1 of them.
    pub x_start: Vec<f64>,
}

impl Multistep {
    /// The plan of the method.
    ///
    /// ```
    /// # use ddpm_core::{Multistep, MultistepStep, NoiseSchedule, NoiseScheduleConfig, Register};
    /// let schedule = NoiseSchedule::new(&NoiseScheduleConfig::mnist20())?;
    /// let steps = vec![
    ///     MultistepStep { t: 19, x_t: 0.7, x_start: vec![0.5] },
    ///     MultistepStep { t: 9, x_t: 0.0, x_start: vec![1.2, -0.2] },
    /// ];
    /// let plan = Multistep { steps }.plan(&schedule)?;
    /// assert_eq!((plan.steps(), plan.evaluations()), (2, 2));
    /// # Ok::<(), ddpm_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the timesteps are not strictly descending timesteps of the schedule, there is no step, a factor is not
    /// finite, or a step has a factor of a prediction before the first.
    pub fn plan(&self, schedule: &NoiseSchedule) -> Result<Plan> {
        let timesteps = self.steps.iter().map(|step| step.t).collect();
        let timesteps = Timesteps::explicit(schedule, timesteps)?;
        let mut plan = Plan::new(schedule);
        for (transition, step) in std::iter::zip(timesteps.transitions(), &self.steps) {
            plan.step(transition, step.terms());
        }
        plan.check()?;
        Ok(plan)
    }
}

impl MultistepStep {
    fn terms(&self) -> impl Iterator<Item = (f64, Register)> {
        let x_start = self.x_start.iter().zip((0..).map(Register::XStart));
        std::iter::once((self.x_t, Register::X)).chain(x_start.map(|(&factor, register)| (factor, register)))
    }
}
