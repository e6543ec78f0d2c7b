//! Ancestral sampling (Ho et al. 2020, arXiv 2006.11239, algorithm 2). With x̂₀ from the network,
//!
//! ```text
//! x_prev = √ᾱ_prev β/(1−ᾱₜ) · x̂₀ + √α (1−ᾱ_prev)/(1−ᾱₜ) · xₜ + σ z,   z ~ N(0, I)
//! ```
//!
//! where α = ᾱₜ/ᾱ_prev and β = 1 − α belong to the step that is taken. So the formula holds for any subset of the
//! timesteps. A step to x₀ returns x̂₀ without noise.

use crate::{
    Compat, Error, NoiseSchedule, Plan, PosteriorCoefs, Register, Result, ReverseVariance, Timesteps,
    plan::Term, timesteps::Transition,
};

pub(super) fn plan(plan: &mut Plan, timesteps: &Timesteps, variance: &ReverseVariance, compat: Compat) {
    for step in timesteps.transitions() {
        plan.step(step, terms(step, variance, compat));
    }
}

/// The update of a step.
pub(super) fn terms(step: Transition, variance: &ReverseVariance, compat: Compat) -> Vec<Term> {
    let posterior = PosteriorCoefs::between(step.from.alpha_cumprod(), step.to);
    let noise = noise(variance, step, &posterior, compat);
    let mut terms = vec![(posterior.x_start_coef, Register::XStart(0)), (posterior.x_t_coef, Register::X)];
    if step.to == 1.0 && noise.is_none() {
        terms = vec![(1.0, Register::XStart(0))];
    }
    terms.extend(noise);
    terms
}

/// The term of the added noise; `None` if the step adds none.
fn noise(
    variance: &ReverseVariance,
    step: Transition,
    posterior: &PosteriorCoefs,
    compat: Compat,
) -> Option<Term> {
    let (no_noise, small) = match compat {
        // A step to x₀, or a step of length 0.
        Compat::Exact => (posterior.variance <= 0.0, posterior.variance),
        // diffusers bounds the variance below. This matters if the last step adds noise.
        Compat::Diffusers => (step.from.t() == 0.0, posterior.variance.max(1e-20)),
    };
    let index = step.noise_index;
    let variance = match variance {
        _ if no_noise => 0.0,
        ReverseVariance::Zero => 0.0,
        ReverseVariance::FixedSmall => small,
        ReverseVariance::FixedLarge => posterior.beta,
        ReverseVariance::PerStep(list) => list[step.index],
        ReverseVariance::LearnedRange => {
            return Some((1.0, Register::LearnedNoise { index, low: small, high: posterior.beta }));
        }
    };
    (variance > 0.0).then(|| (variance.sqrt(), Register::Noise(index)))
}

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
