//! Resampling of RePaint (Lugmayr et al. 2022, arXiv 2201.09865, algorithm 1, and figure 9 for the jumps). After each
//! `jump_length` steps of ancestral sampling, a jump noises the image back by `jump_length` steps:
//!
//! ```text
//! x_back = √(ᾱ_back/ᾱ) x + √(1 − ᾱ_back/ᾱ) z
//! ```

use super::ddpm;
use crate::{Compat, Plan, Register, ReverseVariance, Timesteps, timesteps::Transition};

pub(super) fn plan(plan: &mut Plan, timesteps: &Timesteps, jump_length: usize, jump_n_sample: usize) {
    let steps: Vec<_> = timesteps.transitions().collect();
    // `left` is the number of steps left to x₀. `jumps` holds the number of jumps left at each multiple of `jump_length`
    // that is far enough from the start of the list.
    let mut left = steps.len();
    let mut jumps = vec![jump_n_sample - 1; steps.len().saturating_sub(jump_length).div_ceil(jump_length)];
    let mut noise_index = 0;
    while left > 0 {
        let step = Transition { noise_index, ..steps[steps.len() - left] };
        noise_index += usize::from(step.to < 1.0);
        plan.step(step, ddpm::terms(step, &ReverseVariance::FixedSmall, Compat::Exact));
        left -= 1;
        if left.is_multiple_of(jump_length)
            && let Some(again) = left.checked_div(jump_length).and_then(|jump| jumps.get_mut(jump))
            && *again > 0
        {
            *again -= 1;
            left += jump_length;
            // `jump_length` steps of the forward process at once.
            let alpha = steps[steps.len() - left].from.alpha_cumprod() / step.to;
            plan.update([(alpha.sqrt(), Register::X), ((1.0 - alpha).sqrt(), Register::Noise(noise_index))]);
            noise_index += 1;
        }
    }
}
