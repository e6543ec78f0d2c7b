//! Samplers: plain functions of a schedule, a list of timesteps, options, a start, a network, a noise source
//! and an observer.
//!
//! | function | | order | draws noise |
//! | --- | --- | --- | --- |
//! | [`ddpm`] | the ancestral sampler of Ho et al. 2020 | | yes |
//! | [`ddim`] | Song et al. 2021, with any η; [`ddim_inverse`] goes back | 1 | if η > 0 |
//! | [`dpm_solver_multistep`] | DPM-Solver++ 2M, and its SDE form | 2 | as SDE |
//! | [`euler`], [`heun`] | Karras et al. 2022 (EDM) | 1, 2 | with churn |
//! | [`euler_ancestral`] | k-diffusion's | | yes |
//! | [`uni_pc`] | predictor and corrector, Zhao et al. 2023 | 2 and more | no |
//! | [`repaint`] | inpainting, Lugmayr et al. 2022 | | yes |
//!
//! All take
//! - `x_t`, the start, shape [B, …]: standard normal noise for a sample from scratch. It is always on the scale
//!   of the forward process, xₜ = √ᾱ x₀ + √(1−ᾱ) ε, also where the literature scales by 1/√ᾱ, so that one
//!   network serves all samplers;
//! - `model(x_t, timestep)`, which returns a prediction of the kind that the schedule's `prediction_type`
//!   names, of the shape of `x_t` (twice as wide in dimension 1 if the variance is learnt);
//! - `noise(x_t, draw)`, which returns standard normal noise of the shape of `x_t`. It is called only where
//!   noise is added, with a number that is distinct for each draw of a run: the timestep, if those of the list
//!   are whole;
//! - `callback(step)`, called after each step, for previews and progress; an error it returns ends the run, and
//!   [`Error::Callback`] is for those that are none of this crate's.
//!
//! What a network is told about its images, a class or a mask for example, it captures. [`guided`] makes one
//! network of two.

mod ddim;
mod ddpm;
mod dpm_solver;
mod euler;
mod guidance;
mod heun;
mod interpolate;
mod repaint;
mod uni_pc;

use candle_core::{D, Tensor};

pub use ddim::{ddim, ddim_inverse};
pub use ddpm::ddpm;
pub(crate) use ddpm::learned_log_variance;
pub use dpm_solver::{DpmSolver, SolverType, dpm_solver_multistep};
pub use euler::{Churn, euler, euler_ancestral};
pub use guidance::{Guidance, guided};
pub use heun::heun;
pub use interpolate::{interpolate, slerp};
pub use repaint::{RePaint, repaint};
pub use uni_pc::{Bh, UniPc, uni_pc};

use crate::{
    Compat, Error, NoiseSchedule, PredictionType, Result, ReverseVariance, Timestep,
    weighted_sum::at_least_f32,
};

/// What an observer sees after a step.
#[derive(Debug)]
pub struct StepInfo<'a> {
    /// The number of this step, from 0.
    pub index: usize,
    /// The number of steps of the run.
    pub total: usize,
    /// The timestep from which the step was taken.
    pub timestep: Timestep,
    /// The image after the step; x₀ itself after the last, unless the list ends before.
    pub x_t: &'a Tensor,
    /// The network's prediction of x₀ at this step, clipped if the schedule says so.
    pub x_start: &'a Tensor,
}

/// A prediction, read as x₀, and what the network says about the variance, if it does.
pub(crate) struct Prediction {
    pub(crate) x_start: Tensor,
    /// Of a schedule with `variance_type` `LearnedRange`, in [−1, 1]: where ln σ² lies between ln β̃ and ln β.
    pub(crate) variance: Option<Tensor>,
    /// x₀ before it was clipped, where diffusers takes ε̂ from that.
    unclipped: Option<Tensor>,
}

/// Asks the network, and reads its answer as x₀, clipped if the schedule says so.
pub(crate) fn predict(
    schedule: &NoiseSchedule,
    x_t: &Tensor,
    timestep: Timestep,
    model: &mut impl FnMut(&Tensor, Timestep) -> candle_core::Result<Tensor>,
) -> Result<Prediction> {
    let config = schedule.config();
    let output = model(x_t, timestep)?;
    let (prediction, variance) = match config.variance_type {
        ReverseVariance::LearnedRange => split(&output, x_t)?,
        _ => (output, None),
    };
    if prediction.dims() != x_t.dims() {
        let (found, image) = (prediction.dims().to_vec(), x_t.dims().to_vec());
        return Err(Error::NetworkOutput { found, image, expected: "the same shape" });
    }
    let to_x_start = |range: f64| {
        let (from, to, alpha_cumprod) =
            (config.prediction_type, PredictionType::Sample, timestep.alpha_cumprod());
        from.convert_within(to, &prediction, x_t, alpha_cumprod, range)
    };
    let x_start = if config.thresholding {
        threshold(&to_x_start(f64::INFINITY)?, config.dynamic_thresholding_ratio, config.sample_max_value)?
    } else {
        to_x_start(if config.clip_sample { config.clip_sample_range } else { f64::INFINITY })?
    };
    let stale = config.compat == Compat::Diffusers && (config.thresholding || config.clip_sample);
    let unclipped = if stale { Some(to_x_start(f64::INFINITY)?) } else { None };
    Ok(Prediction { x_start, variance, unclipped })
}

/// Only x₀ of [`predict`].
fn predict_x_start(
    schedule: &NoiseSchedule,
    x_t: &Tensor,
    timestep: Timestep,
    model: &mut impl FnMut(&Tensor, Timestep) -> candle_core::Result<Tensor>,
) -> Result<Tensor> {
    Ok(predict(schedule, x_t, timestep, model)?.x_start)
}

/// The two halves of dimension 1.
fn split(output: &Tensor, x_t: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
    let fits = match (output.dims(), x_t.dims()) {
        ([b, w, rest @ ..], [image_b, image_w, image_rest @ ..]) => {
            b == image_b && *w == 2 * image_w && rest == image_rest
        }
        _ => false,
    };
    if !fits {
        let (found, image) = (output.dims().to_vec(), x_t.dims().to_vec());
        let expected = "twice the width in dimension 1, for a learnt variance";
        return Err(Error::NetworkOutput { found, image, expected });
    }
    let width = x_t.dim(1)?;
    let half = |start| output.narrow(1, start, width)?.contiguous();
    Ok((half(0)?, Some(half(width)?)))
}

/// Dynamic thresholding (Saharia et al. 2022, arXiv 2205.11487, section 2.3): clips each image to ±s and
/// divides it by s, where s is the `ratio`-quantile of its magnitudes, between 1 and `max`.
fn threshold(x_start: &Tensor, ratio: f64, max: f64) -> Result<Tensor> {
    let magnitudes = x_start.unsqueeze(x_start.rank())?.flatten_from(1)?.abs()?;
    let (sorted, _) = at_least_f32(&magnitudes)?.contiguous()?.sort_last_dim(true)?;
    // Linear interpolation between the two neighbours, as numpy and PyTorch have it.
    let last = sorted.dim(D::Minus1)? - 1;
    let place = ratio * last as f64;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to the last index")]
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    let at = |index: usize| sorted.narrow(1, index, 1);
    let s = ((at(below)? * (1.0 - place.fract()))? + (at(above)? * place.fract())?)?;
    let s = s.clamp(1.0, max)?.to_dtype(x_start.dtype())?;
    let mut shape = vec![1; x_start.rank()];
    shape[0] = x_start.dim(0)?;
    let s = s.reshape(shape)?.broadcast_as(x_start.shape())?.contiguous()?;
    Ok(x_start.minimum(&s)?.maximum(&s.neg()?)?.div(&s)?)
}
