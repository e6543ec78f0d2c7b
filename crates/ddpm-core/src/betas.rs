//! The β tables of the published noise schedules.

use std::f64::consts::PI;

use crate::{BetaSchedule, NoiseScheduleConfig};

/// The largest β of the cosine schedule (Nichol & Dhariwal 2021, section 3.2).
const MAX_BETA: f64 = 0.999;

/// Computes the betas of a validated configuration.
pub(crate) fn betas(config: &NoiseScheduleConfig) -> Vec<f64> {
    let betas = match &config.trained_betas {
        Some(betas) => betas.clone(),
        None => named(config),
    };
    if config.rescale_betas_zero_snr { rescale_zero_terminal_snr(&betas) } else { betas }
}

fn named(config: &NoiseScheduleConfig) -> Vec<f64> {
    let &NoiseScheduleConfig { num_train_timesteps: total, beta_start: start, beta_end: end, .. } = config;
    let evenly = |from: f64, to: f64| {
        let last = (total - 1) as f64;
        (0..total).map(move |t| from + (to - from) * t as f64 / last)
    };
    match config.beta_schedule {
        BetaSchedule::Linear => evenly(start, end).collect(),
        BetaSchedule::ScaledLinear => evenly(start.sqrt(), end.sqrt()).map(|root| root * root).collect(),
        BetaSchedule::Sigmoid => {
            evenly(-6.0, 6.0).map(|x| start + (end - start) / (1.0 + (-x).exp())).collect()
        }
        BetaSchedule::SquaredcosCapV2 => {
            // The offset keeps β from vanishing near t = 0.
            let alpha_cumprod =
                |t: usize| ((t as f64 / total as f64 + 0.008) / 1.008 * PI / 2.0).cos().powi(2);
            (0..total).map(|t| (1.0 - alpha_cumprod(t + 1) / alpha_cumprod(t)).min(MAX_BETA)).collect()
        }
    }
}

/// Shifts and scales √ᾱ: the last value becomes 0, and the first stays as it is (Lin et al. 2023, arXiv 2305.08891,
/// algorithm 1). The last β becomes 1.
fn rescale_zero_terminal_snr(betas: &[f64]) -> Vec<f64> {
    let mut signal: Vec<f64> = alphas_cumprod(betas).into_iter().map(f64::sqrt).collect();
    let (first, last) = (signal[0], signal[signal.len() - 1]);
    for s in &mut signal {
        *s = (*s - last) * first / (first - last);
    }
    let mut before = 1.0;
    let beta = |signal: f64| {
        let alpha = (signal / before).powi(2);
        before = signal;
        1.0 - alpha
    };
    signal.into_iter().map(beta).collect()
}

/// ᾱₜ = ∏ₛ₌₀ᵗ (1 − βₛ).
pub(crate) fn alphas_cumprod(betas: &[f64]) -> Vec<f64> {
    let mut product = 1.0;
    let next = |beta: &f64| {
        product *= 1.0 - beta;
        product
    };
    betas.iter().map(next).collect()
}
