//! Ancestral sampling (Ho et al. 2020, arXiv 2006.11239, algorithm 2).

use candle_core::Tensor;

use super::{Prediction, StepInfo, predict};
use crate::{
    Compat, Error, NoiseSchedule, PosteriorCoefs, Result, ReverseVariance, Timestep, Timesteps,
    timesteps::Transition, weighted_sum::weighted_sum,
};

impl ReverseVariance {
    /// Checks that the variance is valid for the schedule and the list of timesteps.
    pub(crate) fn check(&self, schedule: &NoiseSchedule, timesteps: &Timesteps) -> Result<()> {
        match self {
            Self::LearnedRange if schedule.config().variance_type != ReverseVariance::LearnedRange => {
                Err(Error::NoLearnedVariance)
            }
            Self::PerStep(list) if list.len() != timesteps.len() => {
                Err(Error::TableLength { table: "variances", found: list.len(), expected: timesteps.len() })
            }
            Self::PerStep(list) => match list.iter().find(|v| !(**v >= 0.0 && v.is_finite())) {
                Some(found) => Err(Error::out_of_range("a variance", found, "0 or more")),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

/// Samples with the chain of reverse steps (Ho et al. 2020, algorithm 2). With x̂₀ from the network,
///
/// ```text
/// x_prev = √ᾱ_prev β/(1−ᾱₜ) · x̂₀ + √α (1−ᾱ_prev)/(1−ᾱₜ) · xₜ + σ z,   z ~ N(0, I)
/// ```
///
/// where α = ᾱₜ/ᾱ_prev and β = 1 − α belong to the step that is taken. So the formula holds for any subset of the
/// timesteps. A step to x₀ returns x̂₀ without noise. The [module](super) describes the other arguments.
///
/// # Errors
///
/// If the variance does not fit the schedule or the list, the network, the noise source or the callback fails, or the shapes do not fit.
pub fn ddpm(
    schedule: &NoiseSchedule,
    timesteps: &Timesteps,
    variance: &ReverseVariance,
    x_t: Tensor,
    model: impl FnMut(&Tensor, Timestep) -> candle_core::Result<Tensor>,
    noise: impl FnMut(&Tensor, usize) -> Result<Tensor>,
    callback: impl FnMut(StepInfo<'_>) -> Result<()>,
) -> Result<Tensor> {
    variance.check(schedule, timesteps)?;
    walk(schedule, timesteps, variance, schedule.config().compat, x_t, model, noise, callback)
}

/// [`ddpm`] with an explicit choice of reproducing the defects of diffusers.
#[allow(clippy::too_many_arguments, reason = "the arguments of a sampler and `compat`")]
pub(super) fn walk(
    schedule: &NoiseSchedule,
    timesteps: &Timesteps,
    variance: &ReverseVariance,
    compat: Compat,
    mut x_t: Tensor,
    mut model: impl FnMut(&Tensor, Timestep) -> candle_core::Result<Tensor>,
    mut noise: impl FnMut(&Tensor, usize) -> Result<Tensor>,
    mut callback: impl FnMut(StepInfo<'_>) -> Result<()>,
) -> Result<Tensor> {
    for step in timesteps.transitions() {
        let prediction = predict(schedule, &x_t, step.from, &mut model)?;
        let posterior = PosteriorCoefs::between(step.from.alpha_cumprod(), step.to);
        let added = match deviation(variance, step, &posterior, &prediction, compat)? {
            Deviation::None => None,
            Deviation::Same(sigma) => Some((sigma, noise(&x_t, step.noise_index)?)),
            Deviation::Each(sigma) => Some((1.0, (noise(&x_t, step.noise_index)? * sigma)?)),
        };
        let x_start = prediction.x_start;
        let mut terms = Vec::with_capacity(3);
        terms.push((posterior.x_start_coef, &x_start));
        terms.push((posterior.x_t_coef, &x_t));
        terms.extend(added.as_ref().map(|(sigma, noise)| (*sigma, noise)));
        x_t = if step.to == 1.0 && added.is_none() { x_start.clone() } else { weighted_sum(&terms)? };
        let (index, total, timestep) = (step.index, timesteps.len(), step.from);
        callback(StepInfo { index, total, timestep, x_t: &x_t, x_start: &x_start })?;
    }
    Ok(x_t)
}

/// The standard deviation σ of a step.
enum Deviation {
    None,
    /// One value for all pixels.
    Same(f64),
    /// One value for each pixel, in the shape of the images.
    Each(Tensor),
}

/// Computes σ of a step.
fn deviation(
    variance: &ReverseVariance,
    step: Transition,
    posterior: &PosteriorCoefs,
    prediction: &Prediction,
    compat: Compat,
) -> Result<Deviation> {
    let no_noise = match compat {
        // A step to x₀, or a step of length 0.
        Compat::Exact => posterior.variance <= 0.0,
        Compat::Diffusers => step.from.t() == 0.0,
    };
    // diffusers bounds the variance below. This matters if the last step adds noise.
    let small = match compat {
        Compat::Exact => posterior.variance,
        Compat::Diffusers => posterior.variance.max(1e-20),
    };
    let variance = match variance {
        _ if no_noise => 0.0,
        ReverseVariance::Zero => 0.0,
        ReverseVariance::FixedSmall => small,
        ReverseVariance::FixedLarge => posterior.beta,
        ReverseVariance::PerStep(list) => list[step.index],
        ReverseVariance::LearnedRange => {
            let Some(v) = &prediction.variance else { return Err(Error::NoLearnedVariance) };
            return Ok(Deviation::Each((learned_log_variance(v, small, posterior.beta)? * 0.5)?.exp()?));
        }
    };
    Ok(if variance > 0.0 { Deviation::Same(variance.sqrt()) } else { Deviation::None })
}

/// ln σ² = f ln β + (1−f) ln β̃ with f = (v+1)/2 (Nichol & Dhariwal 2021, eq. 15).
pub(crate) fn learned_log_variance(v: &Tensor, small: f64, large: f64) -> Result<Tensor> {
    let (low, high) = (small.ln(), large.ln());
    Ok(v.affine((high - low) / 2.0, f64::midpoint(low, high))?)
}
