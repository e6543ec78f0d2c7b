//! Samplers: plain functions of a schedule, a list of timesteps, a start, a network, a noise source and
//! an observer.
//!
//! All take
//! - `x_t`, the start, shape [B, …]: standard normal noise for a sample from scratch;
//! - `model(x_t, t)`, which returns a prediction of the kind that the schedule's `prediction_type` names,
//!   of the shape of `x_t`;
//! - `noise(x_t, t)`, which returns standard normal noise of the shape of `x_t` for the step from `t`; it
//!   is called only where noise is added;
//! - `observe(step)`, called after each step, for previews and progress; an error it returns ends the run.

mod ddim;
mod ddpm;

use candle_core::Tensor;

pub use ddim::ddim;
pub use ddpm::{NoiseMode, ddpm};

use crate::{NoiseSchedule, PredictionType, Result};

/// What an observer sees after a step.
#[derive(Debug)]
pub struct Step<'a> {
    /// The number of this step, from 0.
    pub index: usize,
    /// The number of steps of the run.
    pub total: usize,
    /// The timestep from which the step was taken.
    pub t: usize,
    /// The image after the step; x₀ itself after the last.
    pub x_t: &'a Tensor,
    /// The network's prediction of x₀ at this step, clipped if the schedule says so.
    pub x_start: &'a Tensor,
}

/// The network's prediction at `t`, read as x₀ and clipped if the schedule says so.
fn predict_x_start(
    schedule: &NoiseSchedule,
    x_t: &Tensor,
    t: usize,
    model: &mut impl FnMut(&Tensor, usize) -> candle_core::Result<Tensor>,
) -> Result<Tensor> {
    let config = schedule.config();
    let prediction = model(x_t, t)?;
    let x_start = schedule.convert(config.prediction_type, PredictionType::Sample, &prediction, x_t, &[t])?;
    if config.clip_sample {
        let range = config.clip_sample_range;
        return Ok(x_start.clamp(-range, range)?);
    }
    Ok(x_start)
}
