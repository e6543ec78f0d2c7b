//! Golden traces of seven schedulers of diffusers with every intermediate xₜ, and tables of its schedules.
//! `fixtures/README.md` describes how they were made. Each scheduler is built from its `scheduler_config.json`, so these
//! tests cover that file too.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use ddpm_core::{Compat, DiffusersConfig, NoiseSchedule, NoiseScheduleConfig, Sampler, Scheduler};
use serde_json::Value;

use crate::{largest, largest_difference, network_of, tensor_of, values};

const BYTES: &[u8] = include_bytes!("../fixtures/samplers.safetensors");

fn tensor(name: &str) -> Tensor {
    tensor_of(BYTES, name)
}

fn metadata() -> Value {
    let (_, header) = safetensors::SafeTensors::read_metadata(BYTES).unwrap();
    serde_json::from_str(&header.metadata().as_ref().unwrap()["generator"]).unwrap()
}

/// The scheduler of a trace, from its `scheduler_config.json`.
fn scheduler(about: &Value, compat: Compat) -> Scheduler {
    let mut config = DiffusersConfig::from_diffusers_json(&about["config"].to_string()).unwrap();
    config.schedule.compat = compat;
    if let Some(eta) = about["eta"].as_f64() {
        config.sampler = Sampler::Ddim(eta);
    }
    Scheduler::new(&config).unwrap()
}

/// Runs the sampler on the fixture's start image and noise, in `dtype`, and returns the largest difference over
/// every intermediate image and timestep.
fn trace(name: &str, about: &Value, compat: Compat, dtype: DType) -> f64 {
    let scheduler = scheduler(about, compat);
    let timesteps = scheduler.timesteps(about["steps"].as_u64().unwrap() as usize).unwrap();
    let expected = values(&tensor(&format!("trace/{name}/timesteps")));
    let ours: Vec<f64> = timesteps.as_slice().iter().map(|timestep| timestep.t()).collect();
    let mut worst = largest_difference(&ours, &expected);
    let reference = tensor(&format!("trace/{name}/x"));
    let step_noise = tensor("noise/steps").to_dtype(dtype).unwrap();
    let x_t = tensor("noise/x_T").to_dtype(dtype).unwrap();
    let done = std::cell::Cell::new(0);
    scheduler
        .config()
        .sampler
        .plan(scheduler.schedule(), &timesteps)
        .unwrap()
        .sample_with(
            x_t,
            network_of(scheduler.schedule()),
            |_: &Tensor, _| step_noise.get(done.get()),
            |run| {
                let step = run.step().unwrap();
                done.set(step.index + 1);
                let expected = values(&reference.get(step.index + 1)?);
                worst = worst.max(largest_difference(&values(step.x_t), &expected));
                Ok(())
            },
        )
        .unwrap();
    assert_eq!(done.get(), expected.len(), "{name}: steps");
    worst
}

#[test]
fn every_intermediate_image_of_seven_schedulers_agrees_with_diffusers() {
    let metadata = metadata();
    let traces = metadata["traces"].as_object().unwrap();
    let mut worst: BTreeMap<&str, [f64; 3]> = BTreeMap::new();
    let mut failed = Vec::new();
    for (name, about) in traces {
        let exact = about["deviates"].is_null();
        // This crate computes ε̂ from the clipped x̂₀. In diffusers that is an argument of `step`.
        let fresh = about["use_clipped_model_output"].as_bool() == Some(true);
        let compat = if fresh { Compat::Exact } else { Compat::Diffusers };
        let in_f64 = trace(name, about, compat, DType::F64);
        let in_f32 = trace(name, about, compat, DType::F32);
        let by_equations = if exact { trace(name, about, Compat::Exact, DType::F64) } else { 0.0 };
        let class = about["config"]["_class_name"].as_str().unwrap();
        let entry = worst.entry(class).or_default();
        for (worst, new) in std::iter::zip(entry, [in_f64, by_equations, in_f32]) {
            *worst = worst.max(new);
        }
        if !(in_f64 < 1e-8 && by_equations < 1e-8 && in_f32 < 1e-5) {
            failed.push(format!("{name}: f64 {in_f64:.1e}, exact {by_equations:.1e}, f32 {in_f32:.1e}"));
        }
        if !exact {
            let deviation = trace(name, about, Compat::Exact, DType::F64);
            if deviation <= 1e-5 {
                failed.push(format!("{name}: the exact mode has {} too", about["deviates"]));
            }
        }
    }
    println!("{} traces; largest difference to diffusers, relative to max(1, |x|)", traces.len());
    println!("{:36} {:>10} {:>10} {:>10}", "", "f64", "equations", "f32");
    for (class, [in_f64, by_equations, in_f32]) in worst {
        println!("{class:36} {in_f64:>10.1e} {by_equations:>10.1e} {in_f32:>10.1e}");
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// The file must contain all traces.
#[test]
fn the_traces_are_seven_schedulers_by_prediction_by_spacing_by_number_of_steps() {
    let metadata = metadata();
    let traces = metadata["traces"].as_object().unwrap();
    for sampler in ["ddpm", "ddim", "dpmpp", "euler", "euler_ancestral", "heun", "unipc"] {
        for prediction in ["epsilon", "sample", "v_prediction"] {
            for spacing in ["leading", "trailing", "linspace"] {
                for steps in [5, 20, 50] {
                    let about = &traces[&format!("{sampler}/{prediction}/{spacing}/{steps}")];
                    assert_eq!(about["steps"], steps);
                    let config =
                        DiffusersConfig::from_diffusers_json(&about["config"].to_string()).unwrap().schedule;
                    let name = |value: Value| value.as_str().unwrap().to_owned();
                    assert_eq!(name(serde_json::to_value(config.prediction_type).unwrap()), prediction);
                    assert_eq!(name(serde_json::to_value(config.timestep_spacing).unwrap()), spacing);
                }
            }
        }
    }
}

/// The tables of every β schedule at several T, computed in f64 by numpy.
#[test]
fn schedules_agree_with_numpy() {
    let metadata = metadata();
    let schedules = metadata["schedules"].as_object().unwrap();
    let mut worst = 0.0_f64;
    for (name, about) in schedules {
        let mut json = about.clone();
        json["_class_name"] = "DDPMScheduler".into();
        json["prediction_type"] = "v_prediction".into();
        let config: NoiseScheduleConfig =
            DiffusersConfig::from_diffusers_json(&json.to_string()).unwrap().schedule;
        let schedule = NoiseSchedule::new(&config).unwrap();
        for (table, ours) in [("betas", schedule.betas()), ("alphas_cumprod", schedule.alphas_cumprod())] {
            let expected = values(&tensor(&format!("schedule/{name}/{table}")));
            assert_eq!(ours.len(), expected.len(), "{name}");
            let relative = std::iter::zip(ours, &expected)
                .map(|(a, b)| if a == b { 0.0 } else { (a - b).abs() / b.abs() });
            let relative = largest(relative);
            worst = worst.max(relative);
            assert!(relative < 1e-9, "{name} {table}: {relative:.1e}");
        }
    }
    println!("{} schedules, largest relative difference {worst:.1e}", schedules.len());
}
