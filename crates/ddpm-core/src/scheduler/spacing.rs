//! The timestep spacing of each class of diffusers.

use super::DiffusersConfig;
use crate::{
    Compat, NoiseSchedule, Result, Sampler, Timestep, TimestepSpacing, Timesteps,
    timestep::sigma,
    timesteps::{check_count, karras_sigmas, round, spread},
};

/// The timesteps that `set_timesteps` of diffusers computes.
pub(super) fn timesteps(config: &DiffusersConfig, schedule: &NoiseSchedule, n: usize) -> Result<Timesteps> {
    check_count(schedule, n)?;
    match config.sampler {
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
        // These classes have no option `use_karras_sigmas`. LCM and TCD ignore it, because they need the timesteps of the
        // distillation.
        Sampler::Lcm(_) | Sampler::Tcd(_) => config.sampler.spaced(schedule, n),
        _ if config.use_karras_sigmas => Timesteps::karras(schedule, n),
        _ => config.sampler.spaced(schedule, n),
    }
}

/// DPM-Solver and UniPC: n + 1 timesteps without the last one, t = 0. Trailing spacing does not contain t = 0, so it
/// gives n timesteps; and there are not more than all T (diffusers repeats some of them).
fn one_more(schedule: &NoiseSchedule, n: usize) -> Result<Timesteps> {
    let spacing = schedule.config().timestep_spacing;
    if spacing == TimestepSpacing::Trailing || n == schedule.num_train_timesteps() {
        return Timesteps::spaced(schedule, n);
    }
    let mut list = spread(schedule, n + 1)?;
    list.pop();
    Timesteps::explicit(schedule, list)
}

/// Euler and Heun: linspace is not rounded, and σ is interpolated linearly between neighbouring timesteps.
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

/// Rounds each timestep to an integer but keeps its noise level, so t and ᾱ no longer match.
fn rounded(timesteps: &Timesteps) -> Result<Timesteps> {
    let round = |at: &Timestep| Timestep::new(at.t().round_ties_even(), at.alpha_cumprod());
    Timesteps::new(timesteps.as_slice().iter().map(round).collect())
}
