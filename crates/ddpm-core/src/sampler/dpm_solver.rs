//! DPM-Solver++ in its multistep form, for the ordinary and the stochastic differential equation (Lu et al. 2022,
//! arXiv 2211.01095, algorithm 2 and section 5). Let λ be the half log-SNR, h = λ_s − λₜ the length of a step from t to
//! s, x̂₀ the prediction at t, and h′ and x̂₀′ the same for the previous step:
//!
//! ```text
//! D   = x̂₀ + ½ h/h′ (x̂₀ − x̂₀′)                                 (midpoint; D = x̂₀ at first order)
//! ODE: x_s = √((1−ᾱ_s)/(1−ᾱₜ)) xₜ + √ᾱ_s (1 − e^−h) D
//! SDE: x_s = √((1−ᾱ_s)/(1−ᾱₜ)) e^−h xₜ + √ᾱ_s (1 − e^−2h) D + √(1−ᾱ_s) √(1 − e^−2h) z
//! ```

use serde::{Deserialize, Serialize};

use crate::{Plan, Register, Timesteps, timesteps::Transition};

/// The options of DPM-Solver++. Names are the same as in diffusers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DpmSolver {
    /// The order of the solver, 1 or 2.
    pub solver_order: usize,
    /// The form of the second-order term.
    pub solver_type: SolverType,
    /// Whether to add noise in each step. Then the solver follows the reverse diffusion (SDE) instead of the probability
    /// flow (ODE).
    pub sde: bool,
    /// Whether the last step of a run of fewer than 15 steps is of first order.
    pub lower_order_final: bool,
    /// Whether the last step of any run is of first order. A last step to x₀ always is.
    pub euler_at_final: bool,
}

impl DpmSolver {
    /// DPM-Solver++ 2M (Lu et al. 2022, algorithm 2).
    #[must_use]
    pub fn plus_plus_2m() -> Self {
        let solver_type = SolverType::Midpoint;
        Self { solver_order: 2, solver_type, sde: false, lower_order_final: true, euler_at_final: false }
    }

    /// SDE-DPM-Solver++ 2M (Lu et al. 2022, section 5).
    #[must_use]
    pub fn sde_2m() -> Self {
        Self { sde: true, ..Self::plus_plus_2m() }
    }
}

/// The two forms of the second-order term. They differ in terms of third order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SolverType {
    /// The change of x̂₀ over the step has half the factor of x̂₀.
    Midpoint,
    /// The factor of the change of x̂₀ is the exact integral of a linear function.
    Heun,
}

pub(super) fn plan(plan: &mut Plan, timesteps: &Timesteps, options: DpmSolver) {
    let total = timesteps.len();
    let mut before: Option<f64> = None;
    for step in timesteps.transitions() {
        let (h, e) = step_length(step);
        let (signal, sigma) = (step.to.sqrt(), (1.0 - step.to).sqrt());
        let ratio = sigma / (1.0 - step.from.alpha_cumprod()).sqrt();
        // The SDE form takes a step of twice the length, and adds noise to reach the noise level of the target.
        let (decay, length) = if options.sde { (e * e, 2.0 * h) } else { (e, h) };
        let x_start = signal * (1.0 - decay);
        // The factor of h times the derivative of x̂₀ with respect to λ.
        let slope = match options.solver_type {
            SolverType::Midpoint => x_start / 2.0,
            // The limit for a step of length 0.
            SolverType::Heun if length == 0.0 => 0.0,
            SolverType::Heun => signal * (1.0 - (1.0 - decay) / length),
        };
        let (x_t, noise) = if options.sde { (ratio * e, sigma * (1.0 - decay).sqrt()) } else { (ratio, 0.0) };
        let lower = step.is_last
            && (step.to == 1.0 || options.euler_at_final || options.lower_order_final && total < 15);
        let mut terms = vec![(x_t, Register::X)];
        match before.filter(|_| options.solver_order == 2 && !lower) {
            None => terms.push((x_start, Register::XStart(0))),
            Some(h_before) => {
                let slope = slope * h / h_before;
                terms.extend([(x_start + slope, Register::XStart(0)), (-slope, Register::XStart(1))]);
            }
        }
        if noise > 0.0 {
            terms.push((noise, Register::Noise(step.noise_index)));
        }
        plan.step(step, terms);
        before = Some(h);
    }
}

/// Computes h = λ_to − λ_from and e^−h. e^−h is 0 if the step starts at ᾱ = 0 or ends at ᾱ = 1.
pub(super) fn step_length(step: Transition) -> (f64, f64) {
    let (from, to) = (step.from.alpha_cumprod(), step.to);
    let e = ((1.0 - to) * from / (to * (1.0 - from))).sqrt();
    (-e.ln(), e)
}
