//! DDIM, Song et al. 2021 (arXiv 2010.02502).

use candle_core::Tensor;

use super::{Step, predict_x_start};
use crate::{Error, NoiseSchedule, PredictionType, Result, Timesteps};

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
    mut model: impl FnMut(&Tensor, usize) -> candle_core::Result<Tensor>,
    mut noise: impl FnMut(&Tensor, usize) -> Result<Tensor>,
    mut observe: impl FnMut(Step<'_>) -> Result<()>,
) -> Result<Tensor> {
    if !(0.0..=1.0).contains(&eta) {
        return Err(Error::Eta { found: eta });
    }
    for (index, (t, prev)) in timesteps.steps().enumerate() {
        let x_start = predict_x_start(schedule, &x_t, t, &mut model)?;
        let Some(prev) = prev else {
            x_t = x_start.clone();
            observe(Step { index, total: timesteps.len(), t, x_t: &x_t, x_start: &x_start })?;
            break;
        };
        let eps = schedule.convert(PredictionType::Sample, PredictionType::Epsilon, &x_start, &x_t, &[t])?;
        let alpha_bar_prev = schedule.alpha_bar(prev)?;
        let variance = eta * eta * schedule.posterior_step(t, Some(prev))?.variance;
        let direction = (1.0 - alpha_bar_prev - variance).max(0.0).sqrt();
        let mean = ((&x_start * alpha_bar_prev.sqrt())? + (eps * direction)?)?;
        x_t = if variance > 0.0 { (mean + (noise(&x_t, t)? * variance.sqrt())?)? } else { mean };
        observe(Step { index, total: timesteps.len(), t, x_t: &x_t, x_start: &x_start })?;
    }
    Ok(x_t)
}
