//! DDIM (Song et al. 2021, arXiv 2010.02502, eq. 12 and 16):
//!
//! ```text
//! x_prev = √ᾱ_prev x̂₀ + √(1 − ᾱ_prev − σ²) ε̂ + σ z
//! σ      = η √((1−ᾱ_prev)/(1−ᾱₜ)) √(1 − ᾱₜ/ᾱ_prev)
//! ```
//!
//! If x̂₀ is clipped, ε̂ is computed from the clipped x̂₀, so the two stay consistent with xₜ.

use crate::{
    Compat, NoiseSchedule, Plan, PosteriorCoefs, PredictionType, Register, Result, Timesteps, plan::Clip,
    timesteps::Transition,
};

pub(super) fn plan(plan: &mut Plan, schedule: &NoiseSchedule, timesteps: &Timesteps, eta: f64) -> Result<()> {
    // diffusers computes ε̂ from the output, not from the clipped x̂₀.
    let unclipped = schedule.config().compat == Compat::Diffusers && plan.clip() != Clip::None;
    for step in timesteps.transitions() {
        let (from, to) = (step.from.alpha_cumprod(), target(schedule, timesteps, step)?);
        let variance = eta * eta * PosteriorCoefs::between(from, to).variance;
        let direction = (1.0 - to - variance).max(0.0).sqrt();
        let mut terms = vec![(to.sqrt(), Register::XStart(0))];
        if direction > 0.0 && unclipped {
            terms.push((direction, Register::Eps(0)));
        } else if direction > 0.0 {
            let (x_t, x_start) = PredictionType::Sample.conversion(PredictionType::Epsilon, from);
            terms.extend([(direction * x_t, Register::X), (direction * x_start, Register::XStart(0))]);
        }
        if variance > 0.0 {
            terms.push((variance.sqrt(), Register::Noise(step.noise_index)));
        }
        plan.step(step, terms);
    }
    Ok(())
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
