//! Inpainting with resampling: RePaint, Lugmayr et al. 2022 (arXiv 2201.09865).

use candle_core::Tensor;

use super::{StepInfo, predict_x_start};
use crate::{Error, NoiseSchedule, PosteriorCoefs, Result, Timestep, Timesteps, weighted_sum::weighted_sum};

/// What is known of the images, and how often the rest is drawn again to fit it.
#[derive(Clone, Copy, Debug)]
pub struct RePaint<'a> {
    /// The images, clean, [B, …]. What the mask hides does not matter, as long as it is finite.
    pub known: &'a Tensor,
    /// 1 where a pixel is known and 0 where not, of the images' shape.
    pub mask: &'a Tensor,
    /// How many steps are gone back at a time, j in the paper; 10 there, of 250. With few steps it must be small:
    /// a list of no more steps than this never goes back.
    pub jump_length: usize,
    /// How often each stretch of steps is walked, r in the paper; 10 there, and 1 never goes back.
    pub jump_n_sample: usize,
}

/// Samples the unknown part of images (Lugmayr et al. 2022, algorithm 1, and figure 9 for the jumps). In each step
/// the unknown pixels are those of ancestral sampling and the known ones are noised afresh,
///
/// ```text
/// x_prev = mask · q(x_prev given known) + (1−mask) · p(x_prev given xₜ)
/// ```
///
/// and after each `jump_length` steps the image is noised again by as many, so that the two parts come to agree.
/// Its cost is that of about `jump_n_sample` runs. The noise source is asked with 0, 1, 2, …. The observer sees
/// steps down only, and `total` counts them. Other arguments as in the [module](super).
///
/// # Errors
///
/// If a number of `options` is 0, the network, the noise source or the observer fails, or the shapes do not fit.
pub fn repaint(
    schedule: &NoiseSchedule,
    timesteps: &Timesteps,
    options: &RePaint<'_>,
    mut x_t: Tensor,
    mut model: impl FnMut(&Tensor, Timestep) -> candle_core::Result<Tensor>,
    mut noise: impl FnMut(&Tensor, usize) -> Result<Tensor>,
    mut callback: impl FnMut(StepInfo<'_>) -> Result<()>,
) -> Result<Tensor> {
    let &RePaint { known, mask, jump_length, jump_n_sample } = options;
    for (option, found) in [("jump_length", jump_length), ("jump_n_sample", jump_n_sample)] {
        if found == 0 {
            return Err(Error::out_of_range(option, found, "1 or more"));
        }
    }
    let mut indices = 0..;
    let mut next_noise = |x: &Tensor| noise(x, indices.next().unwrap_or_default());
    let known = (known * mask)?;
    let unknown = (1.0 - mask)?;
    let levels: Vec<(Timestep, f64)> = timesteps.transitions().map(|step| (step.from, step.to)).collect();
    // Steps left to x₀, and how often each jump is still made: at every multiple of the length that leaves
    // room for going back.
    let (steps, mut left) = (levels.len(), levels.len());
    let mut jumps = vec![jump_n_sample - 1; steps.saturating_sub(jump_length).div_ceil(jump_length)];
    let total = steps + jumps.len() * jump_length * (jump_n_sample - 1);
    let mut index = 0;
    while left > 0 {
        let (from, to) = levels[steps - left];
        let x_start = predict_x_start(schedule, &x_t, from, &mut model)?;
        let drawn = if to < 1.0 {
            let step = PosteriorCoefs::between(from.alpha_cumprod(), to);
            let z = next_noise(&x_t)?;
            let terms = [(step.x_start_coef, &x_start), (step.x_t_coef, &x_t), (step.variance.sqrt(), &z)];
            weighted_sum(&terms)?
        } else {
            x_start.clone()
        };
        let noised = if to < 1.0 {
            let z = (next_noise(&x_t)? * mask)?;
            weighted_sum(&[(to.sqrt(), &known), ((1.0 - to).sqrt(), &z)])?
        } else {
            known.clone()
        };
        x_t = (noised + (drawn * &unknown)?)?;
        left -= 1;
        callback(StepInfo { index, total, timestep: from, x_t: &x_t, x_start: &x_start })?;
        index += 1;
        if left.is_multiple_of(jump_length)
            && let Some(again) = left.checked_div(jump_length).and_then(|jump| jumps.get_mut(jump))
            && *again > 0
        {
            *again -= 1;
            // As many steps of the forward process at once.
            let (back, reached) = (levels[steps - left - jump_length].0.alpha_cumprod(), to);
            let alpha = back / reached;
            let z = next_noise(&x_t)?;
            x_t = weighted_sum(&[(alpha.sqrt(), &x_t), ((1.0 - alpha).sqrt(), &z)])?;
            left += jump_length;
        }
    }
    Ok(x_t)
}
