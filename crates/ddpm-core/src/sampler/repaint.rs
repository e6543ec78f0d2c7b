//! Resampling of RePaint (Lugmayr et al. 2022, arXiv 2201.09865, algorithm 1, and figure 9 for the jumps). After each
//! `jump_length` steps of ancestral sampling, a jump noises the image back by `jump_length` steps:
//!
//! ```text
//! x_back = √(ᾱ_back/ᾱ) x + √(1 − ᾱ_back/ᾱ) z
//! ```

use crate::{Plan, PosteriorCoefs, Register, Timesteps};

pub(super) fn plan(plan: &mut Plan, timesteps: &Timesteps, jump_length: usize, jump_n_sample: usize) {
    let steps: Vec<_> = timesteps.transitions().collect();
    // `left` is the number of steps left to x₀. `jumps` holds the number of jumps left at each multiple of `jump_length`
    // that is far enough from the start of the list.
    let mut left = steps.len();
    let mut jumps = vec![jump_n_sample - 1; steps.len().saturating_sub(jump_length).div_ceil(jump_length)];
    let mut indices = 0..;
    let mut noise = || Register::Noise(indices.next().unwrap_or_default());
    while left > 0 {
        let step = steps[steps.len() - left];
        let posterior = PosteriorCoefs::between(step.from.alpha_cumprod(), step.to);
        let mut terms =
            vec![(posterior.x_start_coef, Register::XStart(0)), (posterior.x_t_coef, Register::X)];
        if step.to < 1.0 {
            terms.push((posterior.variance.sqrt(), noise()));
        } else {
            terms = vec![(1.0, Register::XStart(0))];
        }
        plan.step(step, terms);
        left -= 1;
        if left.is_multiple_of(jump_length)
            && let Some(again) = left.checked_div(jump_length).and_then(|jump| jumps.get_mut(jump))
            && *again > 0
        {
            *again -= 1;
            left += jump_length;
            // `jump_length` steps of the forward process at once.
            let alpha = steps[steps.len() - left].from.alpha_cumprod() / step.to;
            plan.update([(alpha.sqrt(), Register::X), ((1.0 - alpha).sqrt(), noise())]);
        }
    }
}
