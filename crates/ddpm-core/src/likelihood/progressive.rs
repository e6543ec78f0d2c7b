//! Progressive decoding: the estimates of an image while its code is transmitted.

use super::check_ends_at_x_start;
use crate::{NoiseSchedule, Plan, PosteriorCoefs, Register, Result, Steps};

/// The plan of a progressive transmission of images, from the noisiest step to the last (Ho et al. 2020, section 4.3,
/// algorithms 3 and 4). The sender knows x₀ and samples
///
/// ```text
/// x_first ~ q(x_first given x₀),   then x_prev ~ q(x_prev given xₜ, x₀),   finally x₀
/// ```
///
/// The receiver knows xₜ and the network. Start the run at the images x₀, [B, …]; after each step, the predicted x₀ of the
/// run is the receiver's estimate, made before the step to xₜ was transmitted.
///
/// At the first step xₜ is the same as in [`BoundEstimator`](super::BoundEstimator). At later steps xₜ depends on the
/// previous step, but the estimates have the same distribution.
///
/// # Errors
///
/// If the list does not fit the schedule, or does not end at x₀.
pub fn progressive_decoding(schedule: &NoiseSchedule, steps: impl Into<Steps>) -> Result<Plan> {
    let timesteps = steps.into().timesteps(schedule)?;
    check_ends_at_x_start(&timesteps)?;
    let steps: Vec<_> = timesteps.transitions().collect();
    let mut plan = Plan::new(schedule);
    let first = steps[0].from.alpha_cumprod();
    plan.keep();
    plan.update([(first.sqrt(), Register::X), ((1.0 - first).sqrt(), Register::Noise(steps[0].noise_index))]);
    for (index, &step) in steps.iter().enumerate() {
        let posterior = PosteriorCoefs::between(step.from.alpha_cumprod(), step.to);
        let known = (posterior.x_start_coef, Register::Kept);
        match steps.get(index + 1) {
            None => plan.step(step, [(1.0, Register::Kept)]),
            // The noise at a level has the noise index of the step that starts there, as at the first step.
            Some(next) => {
                let noise = (posterior.variance.sqrt(), Register::Noise(next.noise_index));
                plan.step(step, [known, (posterior.x_t_coef, Register::X), noise]);
            }
        }
    }
    Ok(plan)
}
