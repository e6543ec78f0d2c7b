//! DPM-Solver++ in its multistep form, and as a stochastic differential equation: Lu et al. 2022
//! (arXiv 2211.01095).

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{StepInfo, predict_x_start};
use crate::{
    Error, NoiseSchedule, Result, Timestep, Timesteps, timesteps::Transition, weighted_sum::weighted_sum,
};

/// The options of [`dpm_solver_multistep`]. The names are those of diffusers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DpmSolver {
    /// 1 or 2.
    pub solver_order: usize,
    /// Where the second order takes the derivative from.
    pub solver_type: SolverType,
    /// Whether noise is added in each step: the reverse diffusion in place of the flow of probability.
    pub sde: bool,
    /// Whether a run of fewer than 15 steps ends with a step of first order.
    pub lower_order_final: bool,
    /// Whether any run ends with a step of first order. (A run that ends at x₀ always does.)
    pub euler_at_final: bool,
}

impl DpmSolver {
    /// DPM-Solver++ 2M (Lu et al. 2022, algorithm 2).
    #[must_use]
    pub fn plus_plus_2m() -> Self {
        Self {
            solver_order: 2,
            solver_type: SolverType::Midpoint,
            sde: false,
            lower_order_final: true,
            euler_at_final: false,
        }
    }

    /// SDE-DPM-Solver++ 2M (Lu et al. 2022, section 5).
    #[must_use]
    pub fn sde_2m() -> Self {
        Self { sde: true, ..Self::plus_plus_2m() }
    }
}

/// The two forms of the second order; they differ in the third.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SolverType {
    /// Half of the first-order step.
    Midpoint,
    /// The exact integral of the linear term.
    Heun,
}

/// Samples with DPM-Solver++ (Lu et al. 2022, algorithm 2, and section 5 for the SDE). With λ the half
/// log-SNR, h = λ_s − λₜ the length of a step from t to s, x̂₀ the prediction at t and x̂₀′ the one before:
///
/// ```text
/// D   = x̂₀ + ½ h/h′ (x̂₀ − x̂₀′)                                 (midpoint; x̂₀ alone at first order)
/// ODE: x_s = √((1−ᾱ_s)/(1−ᾱₜ)) xₜ + √ᾱ_s (1 − e^−h) D
/// SDE: x_s = √((1−ᾱ_s)/(1−ᾱₜ)) e^−h xₜ + √ᾱ_s (1 − e^−2h) D + √(1−ᾱ_s) √(1 − e^−2h) z
/// ```
///
/// At first order the ODE is DDIM with η = 0 and the SDE is DDPM with the posterior's variance. Arguments as in
/// the [module](super).
///
/// # Errors
///
/// If the order is not 1 or 2, the network, the noise source or the observer fails, or the shapes do not fit.
pub fn dpm_solver_multistep(
    schedule: &NoiseSchedule,
    timesteps: &Timesteps,
    options: &DpmSolver,
    mut x_t: Tensor,
    mut model: impl FnMut(&Tensor, Timestep) -> candle_core::Result<Tensor>,
    mut noise: impl FnMut(&Tensor, usize) -> Result<Tensor>,
    mut callback: impl FnMut(StepInfo<'_>) -> Result<()>,
) -> Result<Tensor> {
    check_order(options.solver_order)?;
    let total = timesteps.len();
    // The prediction before this one and the h of the step that it was made for.
    let mut before: Option<(Tensor, f64)> = None;
    for step in timesteps.transitions() {
        let x_start = predict_x_start(schedule, &x_t, step.from, &mut model)?;
        let c = Coefficients::new(options, step);
        let lower = step.is_last
            && (step.to == 1.0 || options.euler_at_final || options.lower_order_final && total < 15);
        let multistep = before.as_ref().filter(|_| options.solver_order == 2 && !lower);
        let mut terms = Vec::with_capacity(4);
        terms.push((c.x_t, &x_t));
        match multistep {
            None => terms.push((c.x_start, &x_start)),
            Some((previous, h_before)) => {
                let slope = c.slope * c.h / h_before;
                terms.extend([(c.x_start + slope, &x_start), (-slope, previous)]);
            }
        }
        let drawn = if c.noise > 0.0 { Some(noise(&x_t, step.noise_index)?) } else { None };
        terms.extend(drawn.as_ref().map(|noise| (c.noise, noise)));
        x_t = weighted_sum(&terms)?;
        callback(StepInfo { index: step.index, total, timestep: step.from, x_t: &x_t, x_start: &x_start })?;
        before = Some((x_start, c.h));
    }
    Ok(x_t)
}

pub(super) fn check_order(order: usize) -> Result<()> {
    if (1..=2).contains(&order) {
        return Ok(());
    }
    Err(Error::out_of_range("solver_order", order, "1 or 2"))
}

/// h = λ_to − λ_from and e^−h, which is 0 where a step starts from no signal or ends without noise.
pub(super) fn step_length(step: Transition) -> (f64, f64) {
    let (from, to) = (step.from.alpha_cumprod(), step.to);
    let e = ((1.0 - to) * from / (to * (1.0 - from))).sqrt();
    (-e.ln(), e)
}

/// The factors in a step.
struct Coefficients {
    h: f64,
    x_t: f64,
    x_start: f64,
    /// Of the derivative by λ times h.
    slope: f64,
    noise: f64,
}

impl Coefficients {
    fn new(options: &DpmSolver, step: Transition) -> Self {
        let (h, e) = step_length(step);
        let (signal, sigma) = (step.to.sqrt(), (1.0 - step.to).sqrt());
        let ratio = sigma / (1.0 - step.from.alpha_cumprod()).sqrt();
        // The SDE takes the step as if it were twice as long and adds the noise that is then missing.
        let (decay, twice) = if options.sde { (e * e, 2.0 * h) } else { (e, h) };
        let x_start = signal * (1.0 - decay);
        let slope = match options.solver_type {
            SolverType::Midpoint => x_start / 2.0,
            // The limit of a step of no length.
            SolverType::Heun if twice == 0.0 => 0.0,
            SolverType::Heun => signal * (1.0 - (1.0 - decay) / twice),
        };
        let (x_t, noise) = if options.sde { (ratio * e, sigma * (1.0 - decay).sqrt()) } else { (ratio, 0.0) };
        Self { h, x_t, x_start, slope, noise }
    }
}
