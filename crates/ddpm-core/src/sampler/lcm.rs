//! Samplers of distilled consistency models: LCM (Luo et al. 2023, arXiv 2310.04378, algorithm 3) and TCD (Zheng et al.
//! 2024, arXiv 2402.19159, algorithm 2).
//!
//! ```text
//! LCM: D = c_skip xₜ + c_out x̂₀,   x_prev = √ᾱ_prev D + √(1−ᾱ_prev) z,   the last step gives D
//!      c_skip = σ_d²/(u²+σ_d²),   c_out = u/√(u²+σ_d²),   u = t · timestep_scaling,   σ_d = ½
//! TCD: x_s = √ᾱ_s x̂₀ + √(1−ᾱ_s) ε̂ with s = ⌊(1−η) t_prev⌋,   x_prev = √(ᾱ_prev/ᾱ_s) x_s + √(1−ᾱ_prev/ᾱ_s) z
//! ```
//!
//! The last step of TCD leads to t = 0, not to x₀, as in the authors' code.

use crate::{Clip, Compat, Error, NoiseSchedule, Plan, PredictionType, Register, Result, Timesteps};

/// The options of [`Sampler::Lcm`](crate::Sampler::Lcm). Names are the same as in diffusers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lcm {
    /// The factor of t in c_skip and c_out, above 0; 10 in the paper.
    pub timestep_scaling: f64,
    /// The number of timesteps with which the model was distilled; see [`Timesteps::distilled`].
    pub original_inference_steps: usize,
}

/// The options of [`Sampler::Tcd`](crate::Sampler::Tcd). Names are the same as in diffusers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tcd {
    /// η, γ in the paper: 0 adds no noise, 1 noises a prediction of x₀ in each step. The paper uses 0.3.
    pub eta: f64,
    /// The number of timesteps with which the model was distilled; see [`Timesteps::distilled`].
    pub original_inference_steps: usize,
}

pub(super) fn lcm(plan: &mut Plan, timesteps: &Timesteps, options: Lcm) -> Result<()> {
    const DATA: f64 = 0.25;
    let scaling = options.timestep_scaling;
    if !(scaling > 0.0 && scaling.is_finite()) {
        return Err(Error::out_of_range("timestep_scaling", scaling, "a positive number"));
    }
    for mut step in timesteps.transitions() {
        let u = step.from.t() * scaling;
        let (skip, out) = (DATA / (u * u + DATA), u / (u * u + DATA).sqrt());
        if step.is_last {
            step.to = 1.0;
        }
        let (signal, sigma) = (step.to.sqrt(), (1.0 - step.to).sqrt());
        let noise = (!step.is_last).then_some((sigma, Register::Noise(step.noise_index)));
        let terms = [(signal * skip, Register::X), (signal * out, Register::XStart(0))];
        plan.step(step, terms.into_iter().chain(noise));
    }
    Ok(())
}

pub(super) fn tcd(plan: Plan, schedule: &NoiseSchedule, timesteps: &Timesteps, options: Tcd) -> Result<Plan> {
    // The class of diffusers has the options of clipping, and does not clip.
    let ignores_clip = schedule.config().compat == Compat::Diffusers;
    let mut plan = if ignores_clip { plan.clipped(Clip::None) } else { plan };
    if let Some(between) = timesteps.as_slice().iter().find(|timestep| timestep.t().fract() != 0.0) {
        return Err(Error::out_of_range("a timestep of TCD", between.t(), "an integer"));
    }
    for mut step in timesteps.transitions() {
        let next = timesteps.as_slice().get(step.index + 1).map_or(0, |next| next.index());
        step.to = schedule.alpha_cumprod(next)?;
        // The sum of 1 − η and a rounding error must not fall below a whole number.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most next")]
        let s = ((1.0 - options.eta) * next as f64 + 1e-9).floor() as usize;
        let between = schedule.alpha_cumprod(s)?;
        let ratio = if s == next { 1.0 } else { step.to / between };
        let (x_t, x_start) =
            PredictionType::Sample.conversion(PredictionType::Epsilon, step.from.alpha_cumprod());
        let (signal, sigma) = (ratio.sqrt() * between.sqrt(), ratio.sqrt() * (1.0 - between).sqrt());
        let terms = [(sigma * x_t, Register::X), (signal + sigma * x_start, Register::XStart(0))];
        let noise = (ratio < 1.0).then(|| ((1.0 - ratio).sqrt(), Register::Noise(step.noise_index)));
        plan.step(step, terms.into_iter().chain(noise));
    }
    Ok(plan)
}
