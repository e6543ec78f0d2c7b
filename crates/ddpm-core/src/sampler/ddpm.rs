//! Ancestral sampling, Algorithm 2 of Ho et al. 2020 (arXiv 2006.11239).

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{Step, predict_x_start};
use crate::{NoiseSchedule, Result, Timesteps, VarianceType};

/// The noise that an ancestral step adds to the posterior's mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoiseMode {
    /// Variance β̃ₜ, the posterior's ("fixed small").
    Posterior,
    /// Variance βₜ ("fixed large").
    Beta,
    /// None: each step goes to the mean. Sharper, and much less varied, than the distribution learnt.
    None,
}

impl From<VarianceType> for NoiseMode {
    fn from(variance: VarianceType) -> Self {
        match variance {
            VarianceType::FixedSmall => Self::Posterior,
            VarianceType::FixedLarge => Self::Beta,
        }
    }
}

/// Samples by walking the chain of reverse steps (Ho et al. 2020, Algorithm 2). With x̂₀ from the network,
///
/// ```text
/// x_prev = √ᾱ_prev β/(1−ᾱₜ) · x̂₀ + √α (1−ᾱ_prev)/(1−ᾱₜ) · xₜ + σ z,   z ~ N(0, I)
/// ```
///
/// where α = ᾱₜ/ᾱ_prev and β = 1 − α belong to the step actually taken, so any subset of timesteps is
/// right. The last step lands on x̂₀ without noise. Arguments as in the [module](super).
///
/// # Errors
///
/// If the network, the noise source or the observer fails, or the shapes do not fit.
pub fn ddpm(
    schedule: &NoiseSchedule,
    timesteps: &Timesteps,
    mode: NoiseMode,
    mut x_t: Tensor,
    mut model: impl FnMut(&Tensor, usize) -> candle_core::Result<Tensor>,
    mut noise: impl FnMut(&Tensor, usize) -> Result<Tensor>,
    mut observe: impl FnMut(Step<'_>) -> Result<()>,
) -> Result<Tensor> {
    for (index, (t, prev)) in timesteps.steps().enumerate() {
        let x_start = predict_x_start(schedule, &x_t, t, &mut model)?;
        let step = schedule.posterior_step(t, prev)?;
        let variance = match mode {
            _ if prev.is_none() => 0.0,
            NoiseMode::Posterior => step.variance,
            NoiseMode::Beta => step.beta,
            NoiseMode::None => 0.0,
        };
        let mean = match prev {
            None => x_start.clone(),
            Some(_) => ((&x_start * step.x_start_coef)? + (&x_t * step.x_t_coef)?)?,
        };
        x_t = if variance > 0.0 { (mean + (noise(&x_t, t)? * variance.sqrt())?)? } else { mean };
        observe(Step { index, total: timesteps.len(), t, x_t: &x_t, x_start: &x_start })?;
    }
    Ok(x_t)
}
