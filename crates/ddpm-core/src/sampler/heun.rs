//! Heun's method for the equation of Karras et al. 2022 (EDM, arXiv 2206.00364).

use candle_core::Tensor;

use super::{Churn, StepInfo, euler::euler_step, predict_x_start};
use crate::{
    NoiseSchedule, PredictionType, Result, Timestep, Timesteps, timestep::sigma, weighted_sum::weighted_sum,
};

/// Samples with Heun's method (Karras et al. 2022, algorithms 1 and 2). It takes a step of Euler's method, then repeats
/// the step with the mean of the derivatives at both ends:
///
/// ```text
/// x̃′ ← x̃ + (σ′ − σ) · ½ (ε̂(x̃, σ) + ε̂(x̃′, σ′)),   x̃ = x/√ᾱ
/// ```
///
/// It is of order 2 and evaluates the network twice in each step. Two steps need only one evaluation: a last step to
/// x₀, because there is no derivative at σ′ = 0, and a first step from σ = ∞ (a signal-to-noise ratio of 0). The
/// callback receives x̂₀ at the start of the step. Before each step the sampler adds the noise of `churn`. The
/// [module](super) describes the other arguments.
///
/// # Errors
///
/// If an option is out of range, the network, the noise source or the callback fails, or the shapes do not fit.
pub fn heun(
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
        if step.to < 1.0 && from.alpha_cumprod() > 0.0 {
            let next = timesteps.level_after(schedule, step);
            let next_x_start = predict_x_start(schedule, &x_t, next, &mut model)?;
            let eps = |at: f64| PredictionType::Sample.conversion(PredictionType::Epsilon, at);
            let (from_x_t, from_x_start) = eps(from.alpha_cumprod());
            let (to_x_t, to_x_start) = eps(step.to);
            // Adds half the difference of the two derivatives, which changes Euler's step into Heun's.
            let half = step.to.sqrt() * (sigma(step.to) - from.sigma()) / 2.0;
            x_t = weighted_sum(&[
                (1.0 + half * to_x_t, &x_t),
                (half * to_x_start, &next_x_start),
                (-half * from_x_t, &from_x),
                (-half * from_x_start, &x_start),
            ])?;
        }
        let (index, total, timestep) = (step.index, timesteps.len(), step.from);
        callback(StepInfo { index, total, timestep, x_t: &x_t, x_start: &x_start })?;
    }
    Ok(x_t)
}
