//! The crate without its feature `candle`: schedules, plans, likelihood terms, timestep search and diffusers' files. The
//! golden traces are matched by the loop of the example `07_plan_without_candle` on plain vectors.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may panic, and its numbers are small"
)]

#[path = "../examples/07_plan_without_candle/vectors.rs"]
mod vectors;

use ddpm_core::{
    Compat, DiffusersConfig, NoiseSchedule, NoiseScheduleConfig, Sampler, Scheduler, TimestepCosts,
    Timesteps, likelihood,
};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

const BYTES: &[u8] = include_bytes!("fixtures/samplers.safetensors");

fn tensor(name: &str) -> Vec<f64> {
    let file = SafeTensors::deserialize(BYTES).unwrap();
    let view = file.tensor(name).unwrap();
    match view.dtype() {
        Dtype::F64 => view.data().as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect(),
        Dtype::F32 => {
            view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes).into()).collect()
        }
        other => panic!("{name} is {other:?}"),
    }
}

fn rounded(values: &[f64]) -> Vec<f32> {
    values.iter().map(|value| *value as f32).collect()
}

/// Every trace of diffusers, but those with a learned variance or dynamic thresholding, which the loop leaves out.
#[test]
fn plans_on_vectors_agree_with_diffusers() {
    let (_, header) = SafeTensors::read_metadata(BYTES).unwrap();
    let metadata: Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["generator"]).unwrap();
    let (x_t, noise) = (rounded(&tensor("noise/x_T")), rounded(&tensor("noise/steps")));
    let mut compared = 0;
    for (name, about) in metadata["traces"].as_object().unwrap() {
        let mut config = DiffusersConfig::from_diffusers_json(&about["config"].to_string()).unwrap();
        let is_fresh = about["use_clipped_model_output"] == true;
        config.schedule.compat = if is_fresh { Compat::Exact } else { Compat::Diffusers };
        if let Some(eta) = about["eta"].as_f64() {
            config.sampler = Sampler::Ddim(eta);
        }
        if config.schedule.thresholding || about["config"]["variance_type"] == "learned_range" {
            continue;
        }
        let scheduler = Scheduler::new(&config).unwrap();
        let plan = scheduler.plan(about["steps"].as_u64().unwrap() as usize).unwrap();
        let network = |x_t: &[f32], timestep: ddpm_core::Timestep| {
            x_t.iter().map(|x| (0.7 * x + 0.1 * timestep.t().sin() as f32).tanh()).collect()
        };
        let mut step = 0..;
        let mut indices = Vec::new();
        let next = |index: usize| {
            // The noise of the fixture is in the order of the steps.
            indices.push(index);
            let start = x_t.len() * step.next().unwrap_or_default();
            Ok(noise[start..][..x_t.len()].to_vec())
        };
        let steps = vectors::run(&plan, x_t.clone(), network, next).unwrap();
        let reference = tensor(&format!("trace/{name}/x"));
        assert_eq!((steps.len() + 1) * x_t.len(), reference.len(), "{name}");
        for (ours, expected) in steps.iter().zip(reference.chunks(x_t.len()).skip(1)) {
            for (a, b) in ours.iter().zip(expected) {
                let difference = (f64::from(*a) - b).abs() / b.abs().max(1.0);
                assert!(difference < 2e-5, "{name}: {a} and {b}");
            }
        }
        compared += 1;
    }
    assert!(compared > 230, "{compared}");
}

/// The three kinds of terms add up to the entropy of pixels that are known exactly.
#[test]
fn the_terms_of_the_bound_are_numbers() {
    let schedule = NoiseSchedule::new(&NoiseScheduleConfig::mnist20()).unwrap();
    let timesteps = Timesteps::all(&schedule);
    // A network that knows the image: its squared error is 0, and the last step is certain of the level.
    let variances = likelihood::optimal_variances(&timesteps, &[0.0; 20]).unwrap();
    let prior = likelihood::prior_bits(schedule.alphas_cumprod()[19], 1.0);
    let steps = (1..20).map(|t| {
        let posterior = schedule.posterior_coefs(t, Some(t - 1)).unwrap();
        likelihood::step_bits(&posterior, variances[19 - t], 0.0)
    });
    let total: f64 = steps.sum::<f64>() + likelihood::decoder_bits(255, 1.0, 1e-6) + prior;
    assert!(total > 0.0 && total < 1e-3, "{total}");
    assert!(likelihood::decoder_bits(128, 1.0, 1e-2) > 8.0);
}

#[test]
fn the_search_of_timesteps_needs_no_tensor() {
    let schedule = NoiseSchedule::new(&NoiseScheduleConfig::mnist20()).unwrap();
    let mse: Vec<f64> = schedule.alphas_cumprod().iter().map(|alpha| 0.1 * (1.0 - alpha)).collect();
    let decoder = mse.iter().map(|mse| 9.0 + 0.5 * mse.log2()).collect();
    let costs = TimestepCosts::new(mse, decoder, 0.9).unwrap();
    let (few, more) = (costs.best(&schedule, 2).unwrap(), costs.best(&schedule, 6).unwrap());
    assert!(few.0.len() == 2 && more.0.len() == 6 && more.1 < few.1);
}
