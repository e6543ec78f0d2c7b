//! The inverse of DDIM with η = 0 (Song et al. 2021, arXiv 2010.02502, section 5.4). Each step from t to s is solved for
//! xₜ, given x_s, by fixed-point iteration of one of the two forms of its equation
//!
//! ```text
//! xₜ ← √ᾱₜ/√ᾱ_s · (x_s − √(1−ᾱ_s) ε̂(xₜ)) + √(1−ᾱₜ) ε̂(xₜ)       where σₜ σ_s ≤ 1
//! xₜ ← √(1−ᾱₜ)/√(1−ᾱ_s) · (x_s − √ᾱ_s x̂₀(xₜ)) + √ᾱₜ x̂₀(xₜ)     elsewhere
//! ```
//!
//! With one iteration the network is evaluated at x_s instead of xₜ. Each further iteration multiplies the error of a
//! step by a factor. For normal data of standard deviation d the factor is (σₜ−σ_s)σₜ/(d²+σₜ²) or
//! (σₜ−σ_s)d²/σ_s/(d²+σₜ²), which is below 1 for any step if d ≤ 1 (Pan et al. 2023, AIDI, arXiv 2309.04907).

use crate::{Plan, Register, Timesteps, timestep::sigma};

pub(super) fn plan(plan: &mut Plan, timesteps: &Timesteps, iterations: usize) {
    for step in timesteps.transitions().rev() {
        let (alpha_cumprod, to) = (step.from.alpha_cumprod(), step.to);
        let (signal, noise) = (alpha_cumprod.sqrt(), (1.0 - alpha_cumprod).sqrt());
        plan.keep();
        for _ in 0..iterations {
            plan.evaluate(step.from);
            if sigma(to) * step.from.sigma() > 1.0 {
                let ratio = noise / (1.0 - to).sqrt();
                plan.update([(ratio, Register::Kept), (signal - ratio * to.sqrt(), Register::XStart(0))]);
            } else {
                let ratio = signal / to.sqrt();
                let eps = 1.0 - ratio * (1.0 - to).sqrt() / noise;
                plan.update([
                    (ratio, Register::Kept),
                    (eps, Register::X),
                    (-eps * signal, Register::XStart(0)),
                ]);
            }
        }
        plan.end_step(step.from, alpha_cumprod);
    }
}
