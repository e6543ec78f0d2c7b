//! Golden traces of PNDM, LCM, TCD, flow matching and EDM in diffusers, of other noise levels, and of rescaled guidance.
//! `fixtures/README.md` describes how they were made.

use std::{cell::Cell, collections::BTreeMap};

use candle_core::{DType, Device, Tensor};
use ddpm_core::{
    Compat, DiffusersConfig, FlowMatchEuler, Guidance, NoiseSchedule, NoiseScheduleConfig, Plan,
    PredictionType, Sampler, Scheduler, Steps, Timestep, Timesteps, edm_preconditioned, karras_sigmas,
    sampler::{Churn, Tcd},
};
use serde_json::Value;

use crate::{largest_difference, network, tensor_of, values};

const BYTES: &[u8] = include_bytes!("../fixtures/more_samplers.safetensors");

fn tensor(name: &str) -> Tensor {
    tensor_of(BYTES, name)
}

fn traces() -> serde_json::Map<String, Value> {
    let (_, header) = safetensors::SafeTensors::read_metadata(BYTES).unwrap();
    let generator: Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["generator"]).unwrap();
    generator["traces"].as_object().unwrap().clone()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// The plan of a trace, and the schedule of its network; `None` for an option that this crate refuses.
fn plan(about: &Value, compat: Compat) -> Option<(Plan, NoiseSchedule)> {
    let (class, text) = (about["config"]["_class_name"].as_str().unwrap(), about["config"].to_string());
    let (steps, given) = (about["steps"].as_u64().unwrap() as usize, &about["set_timesteps"]);
    if class == "FlowMatchEulerDiscreteScheduler" {
        let mut flow = FlowMatchEuler::from_diffusers_json(&text).ok()?;
        flow.compat = compat;
        let mu = given["mu"].as_f64();
        let sigmas = match (&given["sigmas"], &given["timesteps"]) {
            (Value::Null, Value::Null) => flow.sigmas(steps, mu).unwrap(),
            (Value::Null, _) => return None,
            (sigmas, _) => flow.shift(&numbers(sigmas), mu).unwrap(),
        };
        let schedule = NoiseSchedule::new(&NoiseScheduleConfig::ho2020()).unwrap();
        return Some((flow.plan(&sigmas).unwrap(), schedule));
    }
    let mut config = DiffusersConfig::from_diffusers_json(&text).ok()?;
    config.schedule.compat = compat;
    if let (Sampler::Tcd(options), Some(eta)) = (&config.sampler, about["eta"].as_f64()) {
        config.sampler = Sampler::Tcd(Tcd { eta, ..*options });
    }
    let scheduler = Scheduler::new(&config).unwrap();
    let schedule = scheduler.schedule();
    let timesteps = match given {
        Value::Null => scheduler.timesteps(steps).unwrap(),
        given if given["sigmas"].is_array() => {
            // Euler's list includes the last level; only 0 and the smallest of the schedule are supported.
            let sigmas = numbers(&given["sigmas"]);
            let (last, list) = sigmas.split_last().unwrap();
            if *last != 0.0 {
                return None;
            }
            Timesteps::from_sigmas(schedule, list).unwrap()
        }
        given if given["timesteps"].is_array() => {
            let list = numbers(&given["timesteps"]);
            if list.iter().any(|t| t.fract() != 0.0) {
                return None;
            }
            Timesteps::explicit(schedule, list.iter().map(|t| *t as usize).collect()).unwrap()
        }
        // Image to image of the distilled models, and a list that TCD takes from all timesteps.
        _ => return None,
    };
    let plan = config.sampler.plan(schedule, timesteps).unwrap();
    Some((plan, schedule.clone()))
}

/// The largest difference over every timestep and every image after an evaluation (PNDM), or after a step (others).
fn trace(name: &str, plan: &Plan, dtype: DType) -> f64 {
    let expected = values(&tensor(&format!("trace/{name}/timesteps")));
    let reference = tensor(&format!("trace/{name}/x"));
    let noise = tensor("noise/steps").to_dtype(dtype).unwrap();
    let by_evaluation = name.starts_with("pndm");
    let (done, mut asked) = (Cell::new(0), Vec::new());
    let noise = |_: &Tensor, _: usize| noise.get(done.get());
    let mut run = plan.start(tensor("noise/x_T").to_dtype(dtype).unwrap(), noise).unwrap();
    let mut worst = 0.0_f64;
    while let Some(ask) = run.ask().unwrap() {
        asked.push(ask.timestep.t());
        run.answer(&network(&ask.x_t, ask.timestep).unwrap(), noise).unwrap();
        if by_evaluation || run.step().is_some() {
            done.set(done.get() + 1);
            let expected = values(&reference.get(done.get()).unwrap());
            worst = worst.max(largest_difference(&values(run.x_t()), &expected));
        }
    }
    assert_eq!(done.get() + 1, reference.dim(0).unwrap(), "{name}");
    if !name.starts_with("heun") {
        worst = worst.max(largest_difference(&asked, &expected));
    }
    worst
}

#[test]
fn every_intermediate_image_of_more_schedulers_agrees_with_diffusers() {
    let (mut worst, mut failed, mut refused) =
        (BTreeMap::<String, ([f64; 3], usize)>::new(), Vec::new(), Vec::new());
    for (name, about) in traces().iter().filter(|(name, _)| !name.starts_with("edm")) {
        let Some((plan_of_diffusers, _)) = plan(about, Compat::Diffusers) else {
            refused.push(name.clone());
            continue;
        };
        let in_f64 = trace(name, &plan_of_diffusers, DType::F64);
        let in_f32 = trace(name, &plan_of_diffusers, DType::F32);
        let exact = trace(name, &plan(about, Compat::Exact).unwrap().0, DType::F64);
        let is_exact = about["deviates"].is_null();
        let class = name.split('/').next().unwrap().to_owned();
        let (entry, count) = worst.entry(class).or_default();
        *count += 1;
        for (worst, new) in std::iter::zip(entry, [in_f64, if is_exact { exact } else { 0.0 }, in_f32]) {
            *worst = worst.max(new);
        }
        if in_f64.is_nan()
            || in_f64 > 1e-12
            || in_f32.is_nan()
            || in_f32 > 1e-5
            || (exact < 1e-12) != is_exact
        {
            failed.push(format!(
                "{name}: f64 {in_f64:.1e}, exact {exact:.1e}, f32 {in_f32:.1e} {}",
                about["deviates"]
            ));
        }
    }
    println!("{:24} {:>6} {:>10} {:>10} {:>10}", "", "traces", "f64", "equations", "f32");
    for (class, ([in_f64, exact, in_f32], count)) in &worst {
        println!("{class:24} {count:>6} {in_f64:>10.1e} {exact:>10.1e} {in_f32:>10.1e}");
    }
    assert!(failed.is_empty(), "{failed:#?}");
    // Beta-spaced and Lu's noise levels, Runge-Kutta steps of PNDM, ends and fractions of one's own, image to image of LCM
    // and TCD, and unshifted timesteps beside shifted noise levels.
    assert_eq!(
        (worst.values().map(|(_, count)| count).sum::<usize>(), refused.len()),
        (142, 31),
        "{refused:#?}"
    );
}

/// EDM's Euler method: its images are x/√ᾱ, and its network has the preconditioning of the paper.
#[test]
fn networks_of_edm_agree_with_diffusers() {
    let mut compared = 0;
    for (name, about) in traces().iter().filter(|(name, _)| name.starts_with("edm")) {
        let (config, steps) = (&about["config"], about["steps"].as_u64().unwrap() as usize);
        let option = |name: &str, default: f64| config[name].as_f64().unwrap_or(default);
        if config["sigma_schedule"] == "exponential"
            || option("rho", 7.0) != 7.0
            || !about["step"].is_null()
            || config["final_sigmas_type"] == "sigma_min"
        {
            continue;
        }
        let prediction_type = PredictionType::Sample;
        let schedule =
            NoiseSchedule::new(&NoiseScheduleConfig { prediction_type, ..NoiseScheduleConfig::ho2020() });
        let sigmas = karras_sigmas(option("sigma_max", 80.0), option("sigma_min", 0.002), steps);
        let plan = Sampler::Euler(Churn::NONE).plan(&schedule.unwrap(), Steps::Sigmas(sigmas)).unwrap();
        let (reference, expected) =
            (tensor(&format!("trace/{name}/x")), tensor(&format!("trace/{name}/timesteps")));
        let (expected, mut asked) = (values(&expected), Vec::new());
        // With v_prediction diffusers reverses the sign of c_out.
        let sign = if config["prediction_type"] == "v_prediction" { -1.0 } else { 1.0 };
        let f = |x: &Tensor, c_noise: f64| -> candle_core::Result<Tensor> {
            asked.push(c_noise);
            ((x * 0.7)? + 0.1 * c_noise.sin())?.tanh()? * sign
        };
        let network = edm_preconditioned(option("sigma_data", 0.5), f);
        let mut worst = 0.0_f64;
        let mut step = 0;
        plan.sample_with(
            tensor("noise/x_T").to_dtype(DType::F64).unwrap(),
            network,
            ddpm_core::no_noise,
            |run| {
                let info = run.step().ok_or("a step")?;
                step = info.index + 1;
                let unscaled = (info.x_t / info.signal)?;
                worst = worst.max(largest_difference(&values(&unscaled), &values(&reference.get(step)?)));
                Ok(())
            },
        )
        .unwrap();
        assert!(largest_difference(&asked, &expected) < 1e-9, "{name}");
        assert!(step == steps && worst < 1e-9, "{name}: {worst:.1e}");
        compared += 1;
    }
    assert!(compared >= 7, "{compared}");
}

#[test]
fn rescaled_guidance_agrees_with_diffusers() {
    let schedule = NoiseSchedule::new(&NoiseScheduleConfig::ho2020()).unwrap();
    let at = schedule.timestep(500).unwrap();
    for set in ["vector", "image"] {
        let [text, uncond] = ["text", "uncond"].map(|name| tensor(&format!("guidance/{set}/{name}")));
        for rescale in ["0", "0.7", "1"] {
            let guidance = Guidance::new(7.5).rescaled(rescale.parse().unwrap()).unwrap();
            let found = guidance.combine(&text, at, &text, &uncond).unwrap();
            let expected = values(&tensor(&format!("guidance/{set}/rescaled_{rescale}")));
            assert!(largest_difference(&values(&found), &expected) < 1e-12, "{set} {rescale}");
        }
    }
    assert!(Guidance::new(7.5).rescaled(1.5).is_err());
}

/// EDM's preconditioning has no limit without noise or without signal, nor for data without a deviation.
#[test]
fn edm_preconditioning_outside_its_range_is_refused() {
    let x_t = Tensor::ones((1, 1), DType::F64, &Device::Cpu).unwrap();
    for (sigma_data, alpha_cumprod, expected) in [
        (0.0, 0.5, "sigma_data is 0"),
        (f64::NAN, 0.5, "sigma_data is NaN"),
        (0.5, 0.0, "sigma is inf"),
        (0.5, 1.0, "sigma is 0"),
    ] {
        let mut network = edm_preconditioned(sigma_data, |x: &Tensor, _| x * 2.0);
        let refused = network(&x_t, Timestep::new(0.0, alpha_cumprod)).unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
    }
}
