//! Inpainting with resampling: RePaint (Lugmayr et al. 2022, arXiv 2201.09865).

use candle_core::Tensor;

use super::{StepInfo, predict_x_start};
use crate::{Error, NoiseSchedule, PosteriorCoefs, Result, Timestep, Timesteps, weighted_sum::weighted_sum};

/// The known part of the images, and the resampling options of [`repaint`].
#[derive(Clone, Copy, Debug)]
pub struct RePaint<'a> {
    /// Clean images, [B, …]. Pixels where the mask is 0 have no effect, but must be finite.
    pub known: &'a Tensor,
    /// A tensor of the images' shape that is 1 at known pixels and 0 at unknown pixels.
    pub mask: &'a Tensor,
    /// The number of steps of each jump back, 1 or more. It is j in the paper, which uses 10 of 250 steps. If the list
    /// of timesteps is not longer than this, there are no jumps, so choose a small value for few steps.
    pub jump_length: usize,
    /// The number of times that each stretch of `jump_length` steps is sampled, 1 or more. It is r in the paper, which
    /// uses 10. With 1 there are no jumps.
    pub jump_n_sample: usize,
}

/// Samples the unknown part of images (Lugmayr et al. 2022, algorithm 1, and figure 9 for the jumps). In each step the
/// unknown pixels follow ancestral sampling, and the known pixels are noised from the clean image:
///
/// ```text
/// x_prev = mask · q(x_prev given known) + (1−mask) · p(x_prev given xₜ)
/// ```
///
/// After each `jump_length` steps, a jump noises the image back by `jump_length` steps, so that the two parts become
/// consistent. The cost is about `jump_n_sample` runs without jumps. The noise index counts 0, 1, 2, …. The callback is
/// called for reverse steps only, and `total` counts these. The [module](super) describes the other arguments.
///
/// # Errors
///
/// If `jump_length` or `jump_n_sample` is 0, the network, the noise source or the callback fails, or the shapes do not fit.
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
    // `left` is the number of steps left to x₀. `jumps` holds the number of jumps left at each multiple of `jump_length`
    // that is far enough from the start of the list.
    let (steps, mut left) = (levels.len(), levels.len());
    let mut jumps = vec![jump_n_sample - 1; steps.saturating_sub(jump_length).div_ceil(jump_length)];
    let total = steps + jumps.len() * jump_length * (jump_n_sample - 1);
    let mut index = 0;
    while left > 0 {
        let (from, to) = levels[steps - left];
        let x_start = predict_x_start(schedule, &x_t, from, &mut model)?;
        let sampled = if to < 1.0 {
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
        x_t = (noised + (sampled * &unknown)?)?;
        left -= 1;
        callback(StepInfo { index, total, timestep: from, x_t: &x_t, x_start: &x_start })?;
        index += 1;
        if left.is_multiple_of(jump_length)
            && let Some(again) = left.checked_div(jump_length).and_then(|jump| jumps.get_mut(jump))
            && *again > 0
        {
            *again -= 1;
            // Applies `jump_length` steps of the forward process at once.
            let (back, reached) = (levels[steps - left - jump_length].0.alpha_cumprod(), to);
            let alpha = back / reached;
            let z = next_noise(&x_t)?;
            x_t = weighted_sum(&[(alpha.sqrt(), &x_t), ((1.0 - alpha).sqrt(), &z)])?;
            left += jump_length;
        }
    }
    Ok(x_t)
}
