//! Euler's method for the equation of Karras et al. 2022 (EDM, arXiv 2206.00364), and the ancestral sampler of
//! k-diffusion.

use candle_core::Tensor;

use super::{ReverseVariance, StepInfo, ddpm, predict_x_start};
use crate::{
    Compat, Error, NoiseSchedule, PredictionType, Result, Timestep, Timesteps, timestep::sigma,
    timesteps::Transition, weighted_sum::weighted_sum,
};

/// The noise that EDM adds before a step (Karras et al. 2022, algorithm 2). If σ is between `s_tmin` and `s_tmax`, it
/// is raised to σ(1+γ) with γ = min(`s_churn`/n, √2 − 1), where n is the number of steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Churn {
    /// The total amount of noise over all steps, 0 or more. 0 adds no noise.
    pub s_churn: f64,
    /// The smallest σ at which noise is added, 0 or more.
    pub s_tmin: f64,
    /// The largest σ at which noise is added, at least `s_tmin`.
    pub s_tmax: f64,
    /// The standard deviation of the noise, 0 or more. A value slightly above 1 compensates for lost detail.
    pub s_noise: f64,
}

impl Churn {
    /// Adds no noise: the solver is deterministic.
    pub const NONE: Self = Self { s_churn: 0.0, s_tmin: 0.0, s_tmax: f64::INFINITY, s_noise: 1.0 };

    pub(super) fn check(&self) -> Result<()> {
        for (option, found) in [("s_churn", self.s_churn), ("s_tmin", self.s_tmin), ("s_noise", self.s_noise)]
        {
            if !(found >= 0.0 && found.is_finite()) {
                return Err(Error::out_of_range(option, found, "0 or more"));
            }
        }
        if self.s_tmax >= self.s_tmin {
            return Ok(());
        }
        Err(Error::out_of_range("s_tmax", self.s_tmax, "at least s_tmin"))
    }

    /// Adds the noise of a step. Returns the image and the raised noise level from which the step starts. The network is
    /// evaluated at the raised level, whose timestep is fractional.
    pub(super) fn apply(
        &self,
        schedule: &NoiseSchedule,
        x_t: &Tensor,
        step: Transition,
        steps: usize,
        noise: &mut impl FnMut(&Tensor, usize) -> Result<Tensor>,
    ) -> Result<(Tensor, Timestep)> {
        let sigma = step.from.sigma();
        let gamma = (self.s_churn / steps as f64).min(2.0_f64.sqrt() - 1.0);
        if gamma == 0.0 || !sigma.is_finite() || sigma < self.s_tmin || sigma > self.s_tmax {
            return Ok((x_t.clone(), step.from));
        }
        let raised = schedule.at_sigma(sigma * (1.0 + gamma));
        let signal = raised.alpha_cumprod().sqrt();
        let added = sigma * (gamma * (2.0 + gamma)).sqrt() * self.s_noise;
        let noise = noise(x_t, step.noise_index)?;
        let x_t =
            weighted_sum(&[(signal / step.from.alpha_cumprod().sqrt(), x_t), (signal * added, &noise)])?;
        Ok((x_t, raised))
    }
}

/// Samples with Euler's method for dx̃/dσ = (x̃ − x̂₀)/σ with x̃ = x/√ᾱ (Karras et al. 2022, eq. 3). Before each step it
/// adds the noise of `churn`.
///
/// Without churn it is equivalent to DDIM with η = 0. The [module](super) describes the other arguments.
///
/// # Errors
///
/// If an option is out of range, the network, the noise source or the callback fails, or the shapes do not fit.
pub fn euler(
    schedule: &NoiseSchedule,
    timesteps: &Timesteps,
    churn: &Churn,
    mut x_t: Tensor,
    mut model: impl FnMut(&Tensor, Timestep) -> candle_core::Result<Tensor>,
    mut noise: impl FnMut(&Tensor, usize) -> Result<Tensor>,
    mut callback: impl FnMut(StepInfo<'_>) -> Result<()>,
) -> Result<Tensor> {
    churn.check()?;
    for step in timesteps.transitions() {
        let (from_x, from) = churn.apply(schedule, &x_t, step, timesteps.len(), &mut noise)?;
        let x_start = predict_x_start(schedule, &from_x, from, &mut model)?;
        x_t = euler_step(&from_x, &x_start, from, step.to)?;
        let (index, total, timestep) = (step.index, timesteps.len(), step.from);
        callback(StepInfo { index, total, timestep, x_t: &x_t, x_start: &x_start })?;
    }
    Ok(x_t)
}

/// Takes one step of Euler's method: √ᾱ_to (x̂₀ + σ_to ε̂), where ε̂ = (x̃ − x̂₀)/σ is the derivative at the start.
pub(super) fn euler_step(x_t: &Tensor, x_start: &Tensor, from: Timestep, to: f64) -> Result<Tensor> {
    if to == 1.0 {
        return Ok(x_start.clone());
    }
    let (x_t_factor, x_start_factor) =
        PredictionType::Sample.conversion(PredictionType::Epsilon, from.alpha_cumprod());
    let (signal, slope) = (to.sqrt(), to.sqrt() * sigma(to));
    weighted_sum(&[(slope * x_t_factor, x_t), (signal + slope * x_start_factor, x_start)])
}

/// Samples with the ancestral form of Euler's method (k-diffusion, `sample_euler_ancestral`). A step goes down to
/// σ_down, below the next level σ′, and noise of standard deviation σ_up then raises it to σ′:
///
/// ```text
/// σ_up² = σ′² (σ² − σ′²)/σ²,   σ_down² = σ′² − σ_up²
/// ```
///
/// On the scale x/√ᾱ, σ_up² is the variance of the posterior. So this sampler is equivalent to [`ddpm`](super::ddpm())
/// with [`ReverseVariance::FixedSmall`], and is implemented that way. The [module](super) describes the arguments.
///
/// # Errors
///
/// If the network, the noise source or the callback fails, or the shapes do not fit.
pub fn euler_ancestral(
    schedule: &NoiseSchedule,
    timesteps: &Timesteps,
    x_t: Tensor,
    model: impl FnMut(&Tensor, Timestep) -> candle_core::Result<Tensor>,
    noise: impl FnMut(&Tensor, usize) -> Result<Tensor>,
    callback: impl FnMut(StepInfo<'_>) -> Result<()>,
) -> Result<Tensor> {
    // The ancestral class of diffusers does not have the defects of its DDPM class.
    ddpm::walk(schedule, timesteps, &ReverseVariance::FixedSmall, Compat::Exact, x_t, model, noise, callback)
}
