//! DPM-Solver++ in its multistep form, for the ordinary and the stochastic differential equation (Lu et al. 2022,
//! arXiv 2211.01095).

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{StepInfo, predict_x_start};
use crate::{
    Error, NoiseSchedule, Result, Timestep, Timesteps, timesteps::Transition, weighted_sum::weighted_sum,
};

/// The options of [`dpm_solver_multistep`]. Names are the same as in diffusers.
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

/// The two forms of the second-order term. They differ in terms of third order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SolverType {
    /// The change of x̂₀ over the step has half the factor of x̂₀.
    Midpoint,
    /// The factor of the change of x̂₀ is the exact integral of a linear function.
    Heun,
}

/// Samples with DPM-Solver++ (Lu et al. 2022, algorithm 2, and section 5 for the SDE). Let λ be the half log-SNR,
/// h = λ_s − λₜ the length of a step from t to s, x̂₀ the prediction at t, and h′ and x̂₀′ the same for the previous step:
///
/// ```text
/// D   = x̂₀ + ½ h/h′ (x̂₀ − x̂₀′)                                 (midpoint; D = x̂₀ at first order)
/// ODE: x_s = √((1−ᾱ_s)/(1−ᾱₜ)) xₜ + √ᾱ_s (1 − e^−h) D
/// SDE: x_s = √((1−ᾱ_s)/(1−ᾱₜ)) e^−h xₜ + √ᾱ_s (1 − e^−2h) D + √(1−ᾱ_s) √(1 − e^−2h) z
/// ```
///
/// At first order the ODE form is DDIM with η = 0, and the SDE form is DDPM with the posterior's variance. The
/// [module](super) describes the other arguments.
///
/// # Errors
///
/// If the order is not 1 or 2, the network, the noise source or the callback fails, or the shapes do not fit.
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
    // The prediction of the previous step and its length h.
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
        let step_noise = if c.noise > 0.0 { Some(noise(&x_t, step.noise_index)?) } else { None };
        terms.extend(step_noise.as_ref().map(|noise| (c.noise, noise)));
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

/// Computes h = λ_to − λ_from and e^−h. e^−h is 0 if the step starts at ᾱ = 0 or ends at ᾱ = 1.
pub(super) fn step_length(step: Transition) -> (f64, f64) {
    let (from, to) = (step.from.alpha_cumprod(), step.to);
    let e = ((1.0 - to) * from / (to * (1.0 - from))).sqrt();
    (-e.ln(), e)
}

/// The factors of the terms of a step.
struct Coefficients {
    h: f64,
    x_t: f64,
    x_start: f64,
    /// The factor of h times the derivative of x̂₀ with respect to λ.
    slope: f64,
    noise: f64,
}

impl Coefficients {
    fn new(options: &DpmSolver, step: Transition) -> Self {
        let (h, e) = step_length(step);
        let (signal, sigma) = (step.to.sqrt(), (1.0 - step.to).sqrt());
        let ratio = sigma / (1.0 - step.from.alpha_cumprod()).sqrt();
        // The SDE form takes a step of twice the length, and adds noise to reach the noise level of the target.
        let (decay, twice) = if options.sde { (e * e, 2.0 * h) } else { (e, h) };
        let x_start = signal * (1.0 - decay);
        let slope = match options.solver_type {
            SolverType::Midpoint => x_start / 2.0,
            // The limit for a step of length 0.
            SolverType::Heun if twice == 0.0 => 0.0,
            SolverType::Heun => signal * (1.0 - (1.0 - decay) / twice),
        };
        let (x_t, noise) = if options.sde { (ratio * e, sigma * (1.0 - decay).sqrt()) } else { (ratio, 0.0) };
        Self { h, x_t, x_start, slope, noise }
    }
}
