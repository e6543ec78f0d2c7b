//! Samplers. Each is a function of a schedule, a list of timesteps, options, a start image, a network, a noise source
//! and a callback.
//!
//! | function | method | order | adds noise |
//! | --- | --- | --- | --- |
//! | [`ddpm`] | ancestral sampling, Ho et al. 2020 | | yes |
//! | [`ddim`] | Song et al. 2021, with any η; [`ddim_inverse`] encodes an image | 1 | if η > 0 |
//! | [`dpm_solver_multistep`] | DPM-Solver++ 2M, and its SDE form | 2 | in the SDE form |
//! | [`euler`], [`heun`] | Karras et al. 2022 (EDM) | 1, 2 | with churn |
//! | [`euler_ancestral`] | ancestral Euler method of k-diffusion | | yes |
//! | [`uni_pc`] | predictor and corrector, Zhao et al. 2023 | 2 or 3 | no |
//! | [`repaint`] | inpainting, Lugmayr et al. 2022 | | yes |
//!
//! All samplers take these arguments, except that [`uni_pc`] and [`ddim_inverse`] add no noise and take no `noise`:
//!
//! - `x_t` is the start image, of shape [B, …]. To generate images, pass standard normal noise. It is always on the
//!   scale of the forward process, xₜ = √ᾱ x₀ + √(1−ᾱ) ε, even if the literature scales by 1/√ᾱ. So one network works
//!   with all samplers.
//! - `model(x_t, timestep)` evaluates the network. It returns a prediction of the schedule's `prediction_type`, of the
//!   same shape as `x_t`. With a learned variance the output is twice as wide in dimension 1.
//! - `noise(x_t, noise_index)` returns standard normal noise of the same shape as `x_t`. The sampler calls it only when
//!   it adds noise. The noise index is distinct for each call of a run. If all timesteps of the list are integers, it is
//!   the timestep; in [`repaint`] it counts from 0.
//! - `callback(step)` is called after each step, for previews and progress. If it returns an error, the run ends. Wrap an
//!   error of another crate in [`Error::Callback`].
//!
//! Conditioning (a class or a mask) is not an argument: capture it in the closure. [`guided`] combines a conditional and
//! an unconditional network.

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

/// The argument of a sampler's callback, which is called after each step.
#[derive(Debug)]
pub struct StepInfo<'a> {
    /// The index of this step, from 0.
    pub index: usize,
    /// The number of steps of the run.
    pub total: usize,
    /// The timestep at which the step started.
    pub timestep: Timestep,
    /// The image after the step. After the last step it is x₀, unless the list ends at a larger noise level.
    pub x_t: &'a Tensor,
    /// The predicted x₀ of this step, clipped if the schedule's `clip_sample` or `thresholding` is set.
    pub x_start: &'a Tensor,
}

/// A prediction, converted to x₀, and the learned variance if there is one.
pub(crate) struct Prediction {
    pub(crate) x_start: Tensor,
    /// The second output of a network with a learned variance, in [−1, 1]: the position of ln σ² between ln β̃ and ln β.
    /// `None` unless the schedule's `variance_type` is `LearnedRange`.
    pub(crate) variance: Option<Tensor>,
    /// x₀ before clipping, from which diffusers computes ε̂. `None` unless the schedule reproduces diffusers.
    unclipped: Option<Tensor>,
}

/// Evaluates the network, converts its output to x₀ and clips it according to the schedule.
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
        return Err(wrong_output(&prediction, format!("{:?}, the shape of the images", x_t.dims())));
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
    let keep_unclipped = config.compat == Compat::Diffusers && (config.thresholding || config.clip_sample);
    let unclipped = if keep_unclipped { Some(to_x_start(f64::INFINITY)?) } else { None };
    Ok(Prediction { x_start, variance, unclipped })
}

fn wrong_output(output: &Tensor, expected: String) -> Error {
    Error::out_of_range("the shape of the network's output", format!("{:?}", output.dims()), expected)
}

/// [`predict`], but returns only x₀.
fn predict_x_start(
    schedule: &NoiseSchedule,
    x_t: &Tensor,
    timestep: Timestep,
    model: &mut impl FnMut(&Tensor, Timestep) -> candle_core::Result<Tensor>,
) -> Result<Tensor> {
    Ok(predict(schedule, x_t, timestep, model)?.x_start)
}

/// Splits an output into its two halves along dimension 1: the prediction and the learned variance.
fn split(output: &Tensor, x_t: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
    let fits = match (output.dims(), x_t.dims()) {
        ([b, w, rest @ ..], [image_b, image_w, image_rest @ ..]) => {
            b == image_b && *w == 2 * image_w && rest == image_rest
        }
        _ => false,
    };
    if !fits {
        let expected =
            format!("{:?} with twice the width in dimension 1, for a learned variance", x_t.dims());
        return Err(wrong_output(output, expected));
    }
    let width = x_t.dim(1)?;
    let half = |start| output.narrow(1, start, width)?.contiguous();
    Ok((half(0)?, Some(half(width)?)))
}

/// Dynamic thresholding (Saharia et al. 2022, arXiv 2205.11487, section 2.3). It clips each image to ±s and divides it
/// by s. Here s is the `ratio`-quantile of the magnitudes of the image, clamped to [1, `max`].
fn threshold(x_start: &Tensor, ratio: f64, max: f64) -> Result<Tensor> {
    let magnitudes = x_start.unsqueeze(x_start.rank())?.flatten_from(1)?.abs()?;
    let (sorted, _) = at_least_f32(&magnitudes)?.contiguous()?.sort_last_dim(true)?;
    // The quantile is interpolated linearly between two neighbours, as in numpy and PyTorch.
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
