//! UniPC for predictions of x₀ (Zhao et al. 2023, arXiv 2302.04867, algorithms 1 and 2). A predictor like DPM-Solver++ 2M
//! takes a step. The network is then evaluated at the end of the step, as the next step needs anyway. With this
//! prediction a corrector adds the difference between its own step and the predictor's, and the next step starts from the
//! corrected image.
//!
//! Let h be the length of the step in the half log-SNR, m a prediction of x₀, and r its position relative to t in units
//! of h:
//!
//! ```text
//! x  = √((1−ᾱ_s)/(1−ᾱₜ)) xₜ + √ᾱ_s (1 − e^−h) mₜ − √ᾱ_s B(−h) Σ ρ D,   D = (m − mₜ)/r
//! ```
//!
//! Here ρ = ½ for the predictor and for a corrector of order 1. Otherwise ρ solves the 2 × 2 system of the paper.

use serde::{Deserialize, Serialize};

use super::dpm_solver::step_length;
use crate::{Plan, Register, Timesteps, plan::Term, timesteps::Transition};

/// The options of UniPC. Names are the same as in diffusers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UniPc {
    /// The order of the predictor, 1 or 2. The corrector raises the order by one.
    pub solver_order: usize,
    /// The function B(h).
    pub solver_type: Bh,
    /// Whether the last step is of first order. A last step to x₀ always is.
    pub lower_order_final: bool,
}

impl UniPc {
    /// UniPC of order 2 with B₂, as the authors recommend for few steps.
    #[must_use]
    pub fn order_2() -> Self {
        Self { solver_order: 2, solver_type: Bh::Bh2, lower_order_final: true }
    }
}

/// B(h) of the paper, with h < 0 for predictions of x₀ (Zhao et al. 2023, section 3.1 and appendix F).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Bh {
    /// B₁(h) = h.
    Bh1,
    /// B₂(h) = e^h − 1.
    Bh2,
}

pub(super) fn plan(plan: &mut Plan, timesteps: &Timesteps, options: UniPc) {
    let mut last: Option<Step> = None;
    for step in timesteps.transitions() {
        plan.evaluate(step.from);
        // The corrector repeats the previous step, given the prediction at its end.
        if let Some(last) = &last {
            plan.update(last.correct());
        }
        let lower = step.is_last && (options.lower_order_final || step.to == 1.0);
        let h_before = last.map(|last| last.h).filter(|_| options.solver_order == 2 && !lower);
        let next = Step::new(options, step, h_before);
        plan.update(next.predict());
        plan.end_step(step.from, step.to);
        last = Some(next);
    }
}

/// The factors of a step.
struct Step {
    h: f64,
    x: f64,
    x_start: f64,
    /// −√ᾱ B(−h).
    b: f64,
    b_1: f64,
    b_2: f64,
    /// The position of the earlier prediction in units of the step, which is negative. `None` at order 1.
    r: Option<f64>,
}

impl Step {
    fn new(options: UniPc, step: Transition, h_before: Option<f64>) -> Self {
        let (h, e) = step_length(step);
        let signal = step.to.sqrt();
        let phi_1 = e - 1.0;
        let b = match options.solver_type {
            // A step from ᾱ = 0 is infinitely long, where only B₂ has a limit.
            Bh::Bh1 if h.is_finite() => -h,
            _ => phi_1,
        };
        let phi_2 = phi_1 / -h - 1.0;
        let phi_3 = phi_2 / -h - 0.5;
        Self {
            h,
            x: ((1.0 - step.to) / (1.0 - step.from.alpha_cumprod())).sqrt(),
            x_start: -signal * phi_1,
            b: -signal * b,
            b_1: phi_2 / b,
            b_2: 2.0 * phi_3 / b,
            r: h_before.map(|before| -(before / h)),
        }
    }

    /// The image at the end of the step, from x̂₀ at its start.
    fn predict(&self) -> Vec<Term> {
        let x = (self.x, Register::X);
        match self.r {
            None => vec![x, (self.x_start, Register::XStart(0))],
            Some(r) => {
                let slope = self.b / 2.0 / r;
                vec![x, (self.x_start - slope, Register::XStart(0)), (slope, Register::XStart(1))]
            }
        }
    }

    /// The difference to the step of a corrector, which knows x̂₀ at the end too. It is the latest then.
    fn correct(&self) -> Vec<Term> {
        let predictor_slope = self.r.map_or(0.0, |r| self.b / 2.0 / r);
        // ρ₁ and ρ₂ solve ρ₁ + ρ₂ = b₁ and r ρ₁ + ρ₂ = b₂.
        let (slope, later) = match self.r {
            None => (0.0, self.b / 2.0),
            Some(r) => {
                let rho_1 = (self.b_1 - self.b_2) / (1.0 - r);
                (self.b * rho_1 / r, self.b * (self.b_1 - rho_1))
            }
        };
        let earlier = slope - predictor_slope;
        let mut terms =
            vec![(1.0, Register::X), (later, Register::XStart(0)), (-earlier - later, Register::XStart(1))];
        terms.extend(self.r.map(|_| (earlier, Register::XStart(2))));
        terms
    }
}
