//! PNDM in its form of linear multistep methods, PLMS (Liu et al. 2022, arXiv 2202.09778, equations 9, 12 and 13). A step
//! moves xₜ along ε̄, a weighted sum of the last four ε̂:
//!
//! ```text
//! x_prev = √(ᾱ_prev/ᾱₜ) xₜ + (√(1−ᾱ_prev) − √(ᾱ_prev/ᾱₜ) √(1−ᾱₜ)) ε̄
//! ```
//!
//! The first step evaluates the network at both of its ends and takes the mean. Its second ε̂ has no further use. A step
//! from noise so strong that √(ᾱ_prev/ᾱₜ) is large would multiply the error of ε̄; it is of first order instead, except in
//! [`Compat::Diffusers`].

use crate::{
    Clip, Compat, NoiseSchedule, Plan, PredictionType, Register, Result, Timestep, Timesteps, plan::Term,
};

/// The weights of ε̂ in steps of order 1 to 4 (Adams and Bashforth), from the latest.
const WEIGHTS: [&[f64]; 4] = [
    &[1.0],
    &[3.0 / 2.0, -1.0 / 2.0],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

/// The largest √(ᾱ_prev/ᾱₜ) of a step that uses earlier ε̂.
const MOST: f64 = 30.0;

/// diffusers with a network that predicts v: it combines outputs of several timesteps, and converts the sum as if all of
/// it belonged to the latest.
fn combines_v(schedule: &NoiseSchedule) -> bool {
    let config = schedule.config();
    config.compat == Compat::Diffusers && config.prediction_type == PredictionType::VPrediction
}

pub(super) fn plan(plan: Plan, schedule: &NoiseSchedule, timesteps: &Timesteps) -> Result<Plan> {
    let mut plan = plan.clipped(Clip::None);
    let is_diffusers = schedule.config().compat == Compat::Diffusers;
    let mut repeats = false;
    for step in timesteps.transitions() {
        let (from, index) = (step.from, step.index);
        let mut levels = [from.alpha_cumprod(), step.to];
        if is_diffusers {
            levels[1] = moved(schedule, timesteps, from, -1)?;
        }
        evaluate(&mut plan, schedule, from);
        if !is_diffusers && levels[1] > levels[0] * MOST * MOST {
            let [to, noise] = [levels[1].sqrt(), (1.0 - levels[1]).sqrt()];
            plan.update([(to, Register::XStart(0)), (noise, Register::Eps(0))]);
        } else if let (0, Some(&next)) = (index, timesteps.as_slice().get(1)) {
            repeats = true;
            plan.keep();
            plan.update(terms(schedule, Register::X, levels, &[(1.0, 0)]));
            evaluate(&mut plan, schedule, next);
            if is_diffusers {
                levels = [moved(schedule, timesteps, next, 1)?, next.alpha_cumprod()];
            }
            plan.update(terms(schedule, Register::Kept, levels, &[(0.5, 0), (0.5, 1)]));
        } else {
            // The first ε̂ is one further back, behind the second.
            let age = |back: usize| if back == index && repeats { back + 1 } else { back };
            let weights = WEIGHTS[index.min(3)].iter().enumerate();
            let weights: Vec<_> = weights.map(|(back, weight)| (*weight, age(back))).collect();
            plan.update(terms(schedule, Register::X, levels, &weights));
        }
        plan.end_step(from, step.to);
    }
    Ok(plan)
}

fn evaluate(plan: &mut Plan, schedule: &NoiseSchedule, timestep: Timestep) {
    if combines_v(schedule) {
        let x_start = plan.converted(PredictionType::Sample, timestep.alpha_cumprod());
        plan.evaluate_as(timestep, x_start, vec![(1.0, Register::Output)]);
    } else {
        plan.evaluate(timestep);
    }
}

/// The step from `base` between two noise levels ᾱ, along the ε̂ with these weights and ages.
fn terms(
    schedule: &NoiseSchedule,
    base: Register,
    [from, to]: [f64; 2],
    weights: &[(f64, usize)],
) -> Vec<Term> {
    let ratio = (to / from).sqrt();
    let eps = (1.0 - to).sqrt() - ratio * (1.0 - from).sqrt();
    let (x_t, of_output) = match combines_v(schedule) {
        true => PredictionType::VPrediction.conversion(PredictionType::Epsilon, from),
        false => (0.0, 1.0),
    };
    let sum = weights.iter().map(|&(weight, age)| (eps * of_output * weight, Register::Eps(age)));
    std::iter::once((ratio + eps * x_t, base)).chain(sum).collect()
}

/// ᾱ at the timestep ⌊T/n⌋ earlier (−1) or later (1), where diffusers takes a step to or from; after the last it is ᾱ of
/// the end of the list.
#[allow(clippy::integer_division, reason = "the floor of diffusers")]
fn moved(schedule: &NoiseSchedule, timesteps: &Timesteps, at: Timestep, by: isize) -> Result<f64> {
    let stride = schedule.num_train_timesteps() / timesteps.len();
    match at.index().checked_add_signed(by * stride.cast_signed()) {
        Some(t) => schedule.alpha_cumprod(t),
        None => Ok(timesteps.last_alpha_cumprod()),
    }
}
