//! DDIM (Song et al. 2021, arXiv 2010.02502) and its inverse.

use candle_core::Tensor;

use super::{StepInfo, predict};
use crate::{
    Compat, Error, NoiseSchedule, PosteriorCoefs, PredictionType, Result, Timestep, Timesteps,
    timestep::sigma, timesteps::Transition, weighted_sum::weighted_sum,
};

/// Samples with the non-Markovian process of Song et al. 2021, eq. 12 and 16:
///
/// ```text
/// x_prev = √ᾱ_prev x̂₀ + √(1 − ᾱ_prev − σ²) ε̂ + σ z
/// σ      = η √((1−ᾱ_prev)/(1−ᾱₜ)) √(1 − ᾱₜ/ᾱ_prev)
/// ```
///
/// With η = 0 the result is a deterministic function of the start image. With η = 1 it is ancestral sampling with the
/// posterior's variance. If x̂₀ is clipped, ε̂ is computed from the clipped x̂₀, so the two stay consistent with xₜ. The
/// [module](super) describes the other arguments.
///
/// # Errors
///
/// If η is outside [0, 1], the network, the noise source or the callback fails, or the shapes do not fit.
pub fn ddim(
    schedule: &NoiseSchedule,
    timesteps: &Timesteps,
    eta: f64,
    mut x_t: Tensor,
    mut model: impl FnMut(&Tensor, Timestep) -> candle_core::Result<Tensor>,
    mut noise: impl FnMut(&Tensor, usize) -> Result<Tensor>,
    mut callback: impl FnMut(StepInfo<'_>) -> Result<()>,
) -> Result<Tensor> {
    if !(0.0..=1.0).contains(&eta) {
        let expected = "0 (deterministic) to 1 (ancestral)";
        return Err(Error::out_of_range("eta", eta, expected));
    }
    for step in timesteps.transitions() {
        let prediction = predict(schedule, &x_t, step.from, &mut model)?;
        let (from, to) = (step.from.alpha_cumprod(), target(schedule, timesteps, step)?);
        let variance = eta * eta * PosteriorCoefs::between(from, to).variance;
        let step_noise = if variance > 0.0 { Some(noise(&x_t, step.noise_index)?) } else { None };
        // ε̂ follows from the clipped x̂₀, but diffusers computes it from x̂₀ before clipping.
        let x_start_of_eps = prediction.unclipped.as_ref().unwrap_or(&prediction.x_start);
        let direction = (1.0 - to - variance).max(0.0).sqrt();
        let (x_t_factor, eps_factor) = PredictionType::Sample.conversion(PredictionType::Epsilon, from);
        let mut terms = Vec::with_capacity(4);
        terms.push((to.sqrt(), &prediction.x_start));
        if direction > 0.0 {
            terms.push((direction * x_t_factor, &x_t));
            terms.push((direction * eps_factor, x_start_of_eps));
        }
        terms.extend(step_noise.as_ref().map(|noise| (variance.sqrt(), noise)));
        x_t = weighted_sum(&terms)?;
        let (index, total, timestep) = (step.index, timesteps.len(), step.from);
        callback(StepInfo { index, total, timestep, x_t: &x_t, x_start: &prediction.x_start })?;
    }
    Ok(x_t)
}

/// ᾱ after a step: ᾱ of the next timestep, or in diffusers ᾱ at t − ⌊T/n⌋.
#[allow(clippy::integer_division, reason = "the floor of diffusers")]
fn target(schedule: &NoiseSchedule, timesteps: &Timesteps, step: Transition) -> Result<f64> {
    match schedule.config().compat {
        Compat::Exact => Ok(step.to),
        Compat::Diffusers => {
            let stride = schedule.num_train_timesteps() / timesteps.len();
            match step.from.index().checked_sub(stride) {
                Some(prev) => schedule.alpha_cumprod(prev),
                None => Ok(timesteps.last_alpha_cumprod()),
            }
        }
    }
}

/// Encodes an image as the noise from which [`ddim`] with η = 0 generates it (Song et al. 2021, section 5.4). It takes
/// the same steps in the opposite direction.
///
/// Each step of `ddim` from t to s is solved for xₜ, given x_s, by fixed-point iteration of one of the two forms of its
/// equation
///
/// ```text
/// xₜ ← √ᾱₜ/√ᾱ_s · (x_s − √(1−ᾱ_s) ε̂(xₜ)) + √(1−ᾱₜ) ε̂(xₜ)       where σₜ σ_s ≤ 1
/// xₜ ← √(1−ᾱₜ)/√(1−ᾱ_s) · (x_s − √ᾱ_s x̂₀(xₜ)) + √ᾱₜ x̂₀(xₜ)     elsewhere
/// ```
///
/// `iterations` is the number of iterations of each step, 1 or more. With 1 the network is evaluated at x_s instead of
/// xₜ. This is the usual approximation, and its error decreases with the number of steps. Each further iteration
/// multiplies the error of a step by a factor. For normal data of standard deviation d the factor is
/// (σₜ−σ_s)σₜ/(d²+σₜ²) or (σₜ−σ_s)d²/σ_s/(d²+σₜ²), which is below 1 for any step if d ≤ 1. So a few iterations make the
/// round trip exact up to rounding (Pan et al. 2023, AIDI, arXiv 2309.04907), unless x̂₀ of the network changes abruptly
/// between neighbouring xₜ.
///
/// `x_start` holds clean images, [B, …]. The result is at the noise level of the first timestep of the list. The
/// callback receives the noise level reached and x̂₀ at that level. Steps are counted in the order of execution.
///
/// # Errors
///
/// If `iterations` is 0, the network or the callback fails, or the shapes do not fit.
pub fn ddim_inverse(
    schedule: &NoiseSchedule,
    timesteps: &Timesteps,
    iterations: usize,
    x_start: Tensor,
    mut model: impl FnMut(&Tensor, Timestep) -> candle_core::Result<Tensor>,
    mut callback: impl FnMut(StepInfo<'_>) -> Result<()>,
) -> Result<Tensor> {
    if iterations == 0 {
        return Err(Error::out_of_range("iterations", iterations, "1 or more"));
    }
    let mut x = x_start;
    for (index, step) in timesteps.transitions().rev().enumerate() {
        let (timestep, to) = (step.from, step.to);
        let (signal, noise) = (timestep.alpha_cumprod().sqrt(), (1.0 - timestep.alpha_cumprod()).sqrt());
        let mut guess = x.clone();
        let mut predicted = predict(schedule, &guess, timestep, &mut model)?.x_start;
        for iteration in 0..iterations {
            if iteration > 0 {
                predicted = predict(schedule, &guess, timestep, &mut model)?.x_start;
            }
            guess = if sigma(to) * timestep.sigma() > 1.0 {
                let ratio = noise / (1.0 - to).sqrt();
                weighted_sum(&[(ratio, &x), (signal - ratio * to.sqrt(), &predicted)])?
            } else {
                let ratio = signal / to.sqrt();
                let eps_factor = 1.0 - ratio * (1.0 - to).sqrt() / noise;
                weighted_sum(&[(ratio, &x), (eps_factor, &guess), (-eps_factor * signal, &predicted)])?
            };
        }
        x = guess;
        callback(StepInfo { index, total: timesteps.len(), timestep, x_t: &x, x_start: &predicted })?;
    }
    Ok(x)
}
