//! How each of diffusers' classes spreads its steps.

use super::{DiffusersConfig, Sampler};
use crate::{
    Compat, NoiseSchedule, Result, Timestep, TimestepSpacing, Timesteps,
    timestep::sigma,
    timesteps::{check_count, karras_sigmas, round, spread},
};

/// The timesteps of diffusers' `set_timesteps`.
pub(super) fn timesteps(config: &DiffusersConfig, schedule: &NoiseSchedule, n: usize) -> Result<Timesteps> {
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

/// DPM-Solver and UniPC: of n + 1 points the last, t = 0, is left out; trailing has none there.
fn one_more(schedule: &NoiseSchedule, n: usize) -> Result<Timesteps> {
    if schedule.config().timestep_spacing == TimestepSpacing::Trailing {
        return Timesteps::spaced(schedule, n);
    }
    let mut list = spread(schedule, n + 1)?;
    list.pop();
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
        Timestep::with_sigma(t, sigma)
    };
    Timesteps::new((0..n).rev().map(at).collect())
}

/// The same noise levels with whole timesteps, which then are not theirs.
fn rounded(timesteps: &Timesteps) -> Result<Timesteps> {
    let round = |at: &Timestep| Timestep::new(at.t().round_ties_even(), at.alpha_cumprod());
    Timesteps::new(timesteps.as_slice().iter().map(round).collect())
}
