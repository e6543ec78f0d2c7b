//! Euler's and Heun's methods for dx̃/dσ = (x̃ − x̂₀)/σ with x̃ = x/√ᾱ (Karras et al. 2022, EDM, arXiv 2206.00364,
//! algorithms 1 and 2). Heun's method repeats a step of Euler's with the mean of the derivatives at both ends:
//!
//! ```text
//! x̃′ ← x̃ + (σ′ − σ) · ½ (ε̂(x̃, σ) + ε̂(x̃′, σ′)),   ε̂ = (x̃ − x̂₀)/σ
//! ```

use crate::{
    Compat, Error, NoiseSchedule, Plan, PredictionType, Register, Result, Timestep, Timesteps,
    timestep::sigma, timesteps::Transition,
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

    /// Adds the noise before a step, and returns the raised noise level from which the step starts.
    fn raise(&self, plan: &mut Plan, schedule: &NoiseSchedule, step: Transition, steps: usize) -> Timestep {
        let sigma = step.from.sigma();
        let gamma = (self.s_churn / steps as f64).min(2.0_f64.sqrt() - 1.0);
        if gamma == 0.0 || !sigma.is_finite() || sigma < self.s_tmin || sigma > self.s_tmax {
            return step.from;
        }
        let raised = schedule.at_sigma(sigma * (1.0 + gamma));
        let signal = raised.alpha_cumprod().sqrt();
        let added = sigma * (gamma * (2.0 + gamma)).sqrt() * self.s_noise;
        let x_t = signal / step.from.alpha_cumprod().sqrt();
        plan.update([(x_t, Register::X), (signal * added, Register::Noise(step.noise_index))]);
        raised
    }
}

pub(super) fn plan(
    plan: &mut Plan,
    schedule: &NoiseSchedule,
    timesteps: &Timesteps,
    churn: &Churn,
    second_order: bool,
) {
    for step in timesteps.transitions() {
        let from = churn.raise(plan, schedule, step, timesteps.len());
        let corrected = second_order && is_corrected(from, step.to, schedule.config().compat);
        if corrected {
            plan.keep();
        }
        plan.evaluate(from);
        let eps = |at: f64| PredictionType::Sample.conversion(PredictionType::Epsilon, at);
        let (from_x_t, from_x_start) = eps(from.alpha_cumprod());
        let (signal, slope) = (step.to.sqrt(), step.to.sqrt() * sigma(step.to));
        if step.to == 1.0 {
            plan.update([(1.0, Register::XStart(0))]);
        } else {
            let x_start = signal + slope * from_x_start;
            plan.update([(slope * from_x_t, Register::X), (x_start, Register::XStart(0))]);
        }
        if corrected {
            plan.evaluate(timesteps.level_after(schedule, step));
            let (to_x_t, to_x_start) = eps(step.to);
            // Adds half the difference of the two derivatives, which changes Euler's step into Heun's.
            let half = signal * (sigma(step.to) - from.sigma()) / 2.0;
            plan.update([
                (1.0 + half * to_x_t, Register::X),
                (half * to_x_start, Register::XStart(0)),
                (-half * from_x_t, Register::Kept),
                (-half * from_x_start, Register::XStart(1)),
            ]);
        }
        plan.end_step(step.from, step.to);
    }
}

/// Whether a step of Heun's method is of second order. A step to x₀ is not, because there is no derivative at σ′ = 0.
/// Nor is a step that is so long, in noise so strong, that the correction would be less accurate than none. The error of
/// both methods is known for normal data, whose x̃ is proportional to √(σ²+d²); here d is 1. diffusers always corrects.
fn is_corrected(from: Timestep, to: f64, compat: Compat) -> bool {
    let (start, end) = (from.sigma(), sigma(to));
    if to == 1.0 || start.is_infinite() {
        return false;
    }
    if compat == Compat::Diffusers {
        return true;
    }
    // The derivative of x̃ with respect to σ, divided by x̃.
    let slope = |sigma: f64| sigma / (sigma * sigma + 1.0);
    let exact = ((end * end + 1.0) / (start * start + 1.0)).sqrt();
    let euler = 1.0 + (end - start) * slope(start);
    let heun = 1.0 + (end - start) / 2.0 * (slope(start) + euler * slope(end));
    let error = |found: f64| (found / exact - 1.0).abs();
    error(heun) < error(euler).max(TOLERATED)
}

/// The relative error of a step of Heun's method that is tolerated even if a step of Euler's would be more accurate.
const TOLERATED: f64 = 0.25;
