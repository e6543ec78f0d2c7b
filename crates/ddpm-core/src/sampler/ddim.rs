//! DDIM, Song et al. 2021 (arXiv 2010.02502), and its inverse.

use candle_core::Tensor;

use super::{StepInfo, predict};
use crate::{
    Compat, Error, NoiseSchedule, PosteriorCoefs, PredictionType, Result, Timestep, Timesteps,
    timestep::sigma, timesteps::Transition, weighted_sum::weighted_sum,
};

/// Samples by the non-Markovian process of Song et al. 2021, eq. 12 and 16:
///
/// ```text
/// x_prev = √ᾱ_prev x̂₀ + √(1 − ᾱ_prev − σ²) ε̂ + σ z
/// σ      = η √((1−ᾱ_prev)/(1−ᾱₜ)) √(1 − ᾱₜ/ᾱ_prev)
/// ```
///
/// η = 0 is deterministic in the start; η = 1 is ancestral sampling with the posterior's variance. If x̂₀
/// is clipped, ε̂ is derived from the clipped x̂₀, so that the two stay consistent with xₜ. Arguments as
/// in the [module](super).
///
/// # Errors
///
/// If η is outside [0, 1], the network, the noise source or the observer fails, or the shapes do not fit.
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
        let drawn = if variance > 0.0 { Some(noise(&x_t, step.noise_index)?) } else { None };
        // ε̂ belongs to the clipped x̂₀; in diffusers it does not.
        let of_eps = prediction.unclipped.as_ref().unwrap_or(&prediction.x_start);
        let direction = (1.0 - to - variance).max(0.0).sqrt();
        let (x_t_factor, eps_factor) = PredictionType::Sample.conversion(PredictionType::Epsilon, from);
        let mut terms = Vec::with_capacity(4);
        terms.push((to.sqrt(), &prediction.x_start));
        if direction > 0.0 {
            terms.push((direction * x_t_factor, &x_t));
            terms.push((direction * eps_factor, of_eps));
        }
        terms.extend(drawn.as_ref().map(|noise| (variance.sqrt(), noise)));
        x_t = weighted_sum(&terms)?;
        let (index, total, timestep) = (step.index, timesteps.len(), step.from);
        callback(StepInfo { index, total, timestep, x_t: &x_t, x_start: &prediction.x_start })?;
    }
    Ok(x_t)
}

/// ᾱ to which a step leads: that of the next timestep, or in diffusers of t − ⌊T/n⌋.
#[allow(clippy::integer_division, reason = "diffusers' own floor")]
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

/// Encodes an image as the noise from which [`ddim`] with η = 0 makes it (Song et al. 2021, section 5.4): the
/// same steps in the opposite direction.
///
/// Each step of `ddim` from t to s is solved for xₜ, given x_s, by iterating one of the two forms of its equation
///
/// ```text
/// xₜ ← √ᾱₜ/√ᾱ_s · (x_s − √(1−ᾱ_s) ε̂(xₜ)) + √(1−ᾱₜ) ε̂(xₜ)       where σₜ σ_s ≤ 1
/// xₜ ← √(1−ᾱₜ)/√(1−ᾱ_s) · (x_s − √ᾱ_s x̂₀(xₜ)) + √ᾱₜ x̂₀(xₜ)     elsewhere
/// ```
///
/// `iterations` times. With 1 the network is asked at x_s in place of xₜ, the usual approximation, whose error
/// falls with the number of steps. Each more one multiplies the error of a step by a factor; for normal data of
/// deviation d that is (σₜ−σ_s)σₜ/(d²+σₜ²) or (σₜ−σ_s)d²/σ_s/(d²+σₜ²), below 1 for any step if d ≤ 1. So a few make
/// the round trip exact to rounding (Pan et al. 2023, AIDI, arXiv 2309.04907), unless the network's x̂₀ jumps from
/// one image to another between xₜ that are close.
///
/// `x_start` is [B, …], a clean image; the result is on the level of the first timestep of the list. The observer
/// sees the level reached and x̂₀ there; steps are counted in the order taken.
///
/// # Errors
///
/// If `iterations` is 0, the network or the observer fails, or the shapes do not fit.
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
                let of_eps = 1.0 - ratio * (1.0 - to).sqrt() / noise;
                weighted_sum(&[(ratio, &x), (of_eps, &guess), (-of_eps * signal, &predicted)])?
            };
        }
        x = guess;
        callback(StepInfo { index, total: timesteps.len(), timestep, x_t: &x, x_start: &predicted })?;
    }
    Ok(x)
}
