//! How each of diffusers' classes spreads its steps.

use super::{Sampler, SchedulerConfig};
use crate::{
    Compat, NoiseSchedule, Result, Timestep, TimestepSpacing, Timesteps,
    timestep::sigma,
    timesteps::{check_count, karras_sigmas, round, trailing},
};

/// The timesteps of diffusers' `set_timesteps`.
pub(super) fn timesteps(config: &SchedulerConfig, schedule: &NoiseSchedule, n: usize) -> Result<Timesteps> {
    check_count(schedule, n)?;
    match config.sampler {
        // diffusers has no such option for these two.
        Sampler::Ddpm(_) | Sampler::Ddim(_) if config.use_karras_sigmas => Timesteps::karras(schedule, n),
        Sampler::Ddpm(_) | Sampler::Ddim(_) => Timesteps::spaced(schedule, n),
        Sampler::DpmSolverMultistep(_) | Sampler::UniPc(_) if config.use_karras_sigmas => {
            let timesteps = Timesteps::karras(schedule, n)?;
            match config.schedule.compat {
                Compat::Exact => Ok(timesteps),
                Compat::Diffusers => rounded(&timesteps),
            }
        }
        Sampler::DpmSolverMultistep(_) | Sampler::UniPc(_) => one_more(schedule, n),
        Sampler::Euler(_) | Sampler::EulerAncestral | Sampler::Heun(_) => {
            let timesteps = fractional(schedule, n)?;
            if !config.use_karras_sigmas {
                return Ok(timesteps);
            }
            let list = timesteps.as_slice();
            let (max, min) = (list[0].sigma(), list[list.len() - 1].sigma());
            Timesteps::from_sigmas(schedule, &karras_sigmas(max, min, n))
        }
    }
}

/// DPM-Solver and UniPC: of n + 1 points the last, t = 0, is left out.
#[allow(clippy::integer_division, reason = "leading spacing is defined by the floor")]
fn one_more(schedule: &NoiseSchedule, n: usize) -> Result<Timesteps> {
    let (total, config) = (schedule.num_train_timesteps(), schedule.config());
    let list = match config.timestep_spacing {
        TimestepSpacing::Leading => {
            (1..=n).rev().map(|i| i * (total / (n + 1)) + config.steps_offset).collect()
        }
        TimestepSpacing::Trailing => trailing(total, n),
        TimestepSpacing::Linspace => {
            let stride = (total - 1) as f64 / n as f64;
            (1..=n).rev().map(|i| round(i as f64 * stride)).collect()
        }
    };
    Timesteps::explicit(schedule, list)
}

/// Euler and Heun: linspace is not rounded, and σ is interpolated between the neighbours.
fn fractional(schedule: &NoiseSchedule, n: usize) -> Result<Timesteps> {
    let total = schedule.num_train_timesteps();
    if schedule.config().timestep_spacing != TimestepSpacing::Linspace || n == 1 {
        return Timesteps::spaced(schedule, n);
    }
    let stride = (total - 1) as f64 / (n - 1) as f64;
    let at = |i: usize| {
        let t = i as f64 * stride;
        let below = schedule.alphas_cumprod()[round(t.floor())];
        let above = schedule.alphas_cumprod()[round(t.ceil())];
        if t.fract() == 0.0 {
            return Timestep::new(t, below);
        }
        let sigma = sigma(below) + t.fract() * (sigma(above) - sigma(below));
        Timestep::new(t, 1.0 / (1.0 + sigma * sigma))
    };
    Timesteps::new((0..n).rev().map(at).collect())
}

/// The same noise levels with whole timesteps, which then are not theirs.
fn rounded(timesteps: &Timesteps) -> Result<Timesteps> {
    let round = |at: &Timestep| Timestep::new(at.t().round_ties_even(), at.alpha_cumprod());
    Timesteps::new(timesteps.as_slice().iter().map(round).collect())
}
