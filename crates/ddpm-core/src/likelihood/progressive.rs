//! Progressive decoding: the estimates of an image while its code is transmitted.

use candle_core::Tensor;

use super::check_ends_at_x_start;
use crate::{
    NoiseSchedule, PosteriorCoefs, Result, StepInfo, Timestep, Timesteps, sampler::predict,
    weighted_sum::weighted_sum,
};

/// Simulates the progressive transmission of images, from the noisiest step to the last (Ho et al. 2020, section 4.3,
/// algorithms 3 and 4). The sender knows x₀, [B, …], and samples
///
/// ```text
/// x_first ~ q(x_first given x₀),   then x_prev ~ q(x_prev given xₜ, x₀),   finally x₀
/// ```
///
/// The receiver knows xₜ and the network. At each step `callback` receives the receiver's estimate of the images as
/// [`StepInfo::x_start`], computed before the step to [`StepInfo::x_t`] is transmitted.
///
/// At the first step xₜ is the same as in [`BoundEstimator`](super::BoundEstimator). At later steps xₜ depends on the
/// previous step, but the estimates have the same distribution.
///
/// # Errors
///
/// If the list does not end at x₀, the network, the noise source or the callback fails, or the shapes do not fit.
pub fn progressive_decoding(
    schedule: &NoiseSchedule,
    timesteps: &Timesteps,
    x_start: &Tensor,
    mut model: impl FnMut(&Tensor, Timestep) -> candle_core::Result<Tensor>,
    mut noise: impl FnMut(&Tensor, usize) -> Result<Tensor>,
    mut callback: impl FnMut(StepInfo<'_>) -> Result<()>,
) -> Result<()> {
    check_ends_at_x_start(timesteps)?;
    let steps: Vec<_> = timesteps.transitions().collect();
    let mut x_t = steps[0].from.q_sample(x_start, &noise(x_start, steps[0].noise_index)?)?;
    for (index, step) in steps.iter().enumerate() {
        let estimate = predict(schedule, &x_t, step.from, &mut model)?.x_start;
        let posterior = PosteriorCoefs::between(step.from.alpha_cumprod(), step.to);
        x_t = match steps.get(index + 1) {
            None => x_start.clone(),
            // The noise at a level has the noise index of the step that starts there, as at the first step.
            Some(next) => weighted_sum(&[
                (posterior.x_start_coef, x_start),
                (posterior.x_t_coef, &x_t),
                (posterior.variance.sqrt(), &noise(&x_t, next.noise_index)?),
            ])?,
        };
        callback(StepInfo { index, total: steps.len(), timestep: step.from, x_t: &x_t, x_start: &estimate })?;
    }
    Ok(())
}
