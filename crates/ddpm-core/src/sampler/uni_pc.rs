//! UniPC for predictions of x₀ (Zhao et al. 2023, arXiv 2302.04867).

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    StepInfo,
    dpm_solver::{check_order, step_length},
    predict_x_start,
};
use crate::{NoiseSchedule, Result, Timestep, Timesteps, timesteps::Transition, weighted_sum::weighted_sum};

/// The options of [`uni_pc`]. Names are the same as in diffusers.
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
pub enum Bh {
    /// B₁(h) = h.
    Bh1,
    /// B₂(h) = e^h − 1.
    Bh2,
}

/// A step that the predictor has taken and the corrector has not.
struct Predicted {
    step: Transition,
    order: usize,
    /// The corrected x at the start of the step.
    x: Tensor,
    /// x̂₀ at the start of the step.
    x_start: Tensor,
    /// x̂₀ of the previous step and the length of that step. `None` in the first step.
    before: Option<(Tensor, f64)>,
}

/// Samples with UniPC (Zhao et al. 2023, algorithms 1 and 2). A predictor like DPM-Solver++ 2M takes a step. The network
/// is then evaluated at the end of the step, as the next step needs anyway. With this prediction a corrector repeats the
/// step, and the next step starts from the corrected image. So the order is higher without more evaluations.
///
/// Let h be the length of the step in the half log-SNR, m a prediction of x₀, and r its position relative to t in units
/// of h:
///
/// ```text
/// x  = √((1−ᾱ_s)/(1−ᾱₜ)) xₜ + √ᾱ_s (1 − e^−h) mₜ − √ᾱ_s B(−h) Σ ρ D,   D = (m − mₜ)/r
/// ```
///
/// Here ρ = ½ for the predictor and for a corrector of order 1. Otherwise ρ solves the 2 × 2 system of the paper. The
/// callback receives the predicted image, before its correction. The sampler adds no noise. The [module](super)
/// describes the other arguments.
///
/// # Errors
///
/// If the order is not 1 or 2, the network or the callback fails, or the shapes do not fit.
pub fn uni_pc(
    schedule: &NoiseSchedule,
    timesteps: &Timesteps,
    options: &UniPc,
    mut x_t: Tensor,
    mut model: impl FnMut(&Tensor, Timestep) -> candle_core::Result<Tensor>,
    mut callback: impl FnMut(StepInfo<'_>) -> Result<()>,
) -> Result<Tensor> {
    check_order(options.solver_order)?;
    let mut last: Option<Predicted> = None;
    for step in timesteps.transitions() {
        let x_start = predict_x_start(schedule, &x_t, step.from, &mut model)?;
        let (x, before) = match last {
            None => (x_t, None),
            Some(last) => (last.correct(options, &x_start)?, Some((last.x_start, step_length(last.step).0))),
        };
        let lower = step.is_last && (options.lower_order_final || step.to == 1.0);
        let order = if lower || before.is_none() { 1 } else { options.solver_order };
        let predicted = Predicted { step, order, x, x_start, before };
        x_t = predicted.predict(options)?;
        let (index, total, timestep) = (step.index, timesteps.len(), step.from);
        callback(StepInfo { index, total, timestep, x_t: &x_t, x_start: &predicted.x_start })?;
        last = Some(predicted);
    }
    Ok(x_t)
}

impl Predicted {
    /// Predicts the image at the end of the step.
    fn predict(&self, options: &UniPc) -> Result<Tensor> {
        let c = Coefficients::new(options, self.step);
        match self.before.as_ref().filter(|_| self.order == 2) {
            None => weighted_sum(&[(c.x, &self.x), (c.x_start, &self.x_start)]),
            Some((before, h_before)) => {
                let slope = c.b / 2.0 / -(h_before / c.h);
                weighted_sum(&[(c.x, &self.x), (c.x_start - slope, &self.x_start), (slope, before)])
            }
        }
    }

    /// Corrects the image at the end of the step, given the prediction `at_end` of x₀ at that image.
    fn correct(&self, options: &UniPc, at_end: &Tensor) -> Result<Tensor> {
        let c = Coefficients::new(options, self.step);
        let Some((before, h_before)) = self.before.as_ref().filter(|_| self.order == 2) else {
            let slope = c.b / 2.0;
            let terms = [(c.x, &self.x), (c.x_start - slope, &self.x_start), (slope, at_end)];
            return weighted_sum(&terms);
        };
        // The position of the earlier prediction in units of the step. It is negative.
        let r = -(h_before / c.h);
        // ρ₁ and ρ₂ solve ρ₁ + ρ₂ = b₁ and r ρ₁ + ρ₂ = b₂.
        let rho_1 = (c.b_1 - c.b_2) / (1.0 - r);
        let (earlier, later) = (c.b * rho_1 / r, c.b * (c.b_1 - rho_1));
        weighted_sum(&[
            (c.x, &self.x),
            (c.x_start - earlier - later, &self.x_start),
            (earlier, before),
            (later, at_end),
        ])
    }
}

/// The factors of the terms of a step.
struct Coefficients {
    h: f64,
    x: f64,
    x_start: f64,
    /// −√ᾱ B(−h).
    b: f64,
    b_1: f64,
    b_2: f64,
}

impl Coefficients {
    fn new(options: &UniPc, step: Transition) -> Self {
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
        }
    }
}
