//! Golden traces of diffusers with every intermediate xₜ. `fixtures/README.md` describes how they were made.

use candle_core::{DType, Tensor};
use ddpm_core::{
    NoiseSchedule, NoiseScheduleConfig, PredictionType, ReverseVariance, Sampler, TimestepSpacing, Timesteps,
};

use crate::{largest, largest_difference, network, schedule, tensor_of, values};

const BYTES: &[u8] = include_bytes!("../fixtures/schedulers.safetensors");

fn tensor(name: &str) -> Tensor {
    tensor_of(BYTES, name)
}

#[test]
fn tables_agree_with_numpy() {
    for (name, config) in
        [("mnist20", NoiseScheduleConfig::mnist20()), ("ho2020", NoiseScheduleConfig::ho2020())]
    {
        let schedule = NoiseSchedule::new(&config).unwrap();
        let check = |table: &str, ours: &[f64]| {
            let reference = values(&tensor(&format!("schedule/{name}/{table}")));
            let worst = largest(std::iter::zip(ours, &reference).map(|(a, b)| (a - b).abs()));
            assert!(ours.len() == reference.len() && worst < 1e-12, "{name} {table}: {worst}");
        };
        check("betas", schedule.betas());
        check("alphas_cumprod", schedule.alphas_cumprod());
        check("posterior_variance", &schedule.posterior_variance());
        check("posterior_mean_coef1", &schedule.posterior_mean_coef1());
        check("posterior_mean_coef2", &schedule.posterior_mean_coef2());
    }
}

/// Runs the sampler on the fixture's start image and noise, in `dtype`, and returns the largest difference
/// over every intermediate image.
fn trace(name: &str, sampler: &Sampler, clip: bool, spacing: TimestepSpacing, dtype: DType) -> f64 {
    let mut worst = 0.0_f64;
    for (kind, prediction_type) in [
        ("epsilon", PredictionType::Epsilon),
        ("sample", PredictionType::Sample),
        ("v_prediction", PredictionType::VPrediction),
    ] {
        let schedule = schedule(|c| {
            c.prediction_type = prediction_type;
            c.clip_sample = clip;
            c.timestep_spacing = spacing;
        });
        let reference = tensor(&format!("trace/{name}/{kind}/x"));
        let steps: Vec<i64> = tensor(&format!("trace/{name}/{kind}/timesteps")).to_vec1().unwrap();
        let timesteps = Timesteps::spaced(&schedule, steps.len()).unwrap();
        let ours: Vec<i64> = timesteps.indices().into_iter().map(|t| t as i64).collect();
        assert_eq!(ours, steps, "{name}");
        let noise = tensor(&format!("noise/steps{}", steps.len())).to_dtype(dtype).unwrap();
        let x_t = tensor("noise/x_T").to_dtype(dtype).unwrap();
        let noise = |_: &Tensor, t: usize| {
            let step = timesteps.indices().into_iter().position(|other| other == t).unwrap();
            noise.get(step)
        };
        let callback = |run: &mut ddpm_core::Run| {
            let step = run.step().unwrap();
            let expected = values(&reference.get(step.index + 1)?);
            worst = worst.max(largest_difference(&values(step.x_t), &expected));
            Ok(())
        };
        sampler.plan(&schedule, &timesteps).unwrap().sample_with(x_t, network, noise, callback).unwrap();
    }
    worst
}

#[test]
fn every_intermediate_image_agrees_with_diffusers() {
    use TimestepSpacing::{Leading, Trailing};
    let (small, large) =
        (Sampler::Ddpm(ReverseVariance::FixedSmall), Sampler::Ddpm(ReverseVariance::FixedLarge));
    for (name, sampler, clip, spacing) in [
        ("ddpm/fixed_small_clip_20", &small, true, Trailing),
        ("ddpm/fixed_large_clip_20", &large, true, Trailing),
        ("ddpm/fixed_small_noclip_20", &small, false, Trailing),
        ("ddpm/fixed_small_clip_5_leading", &small, true, Leading),
        ("ddpm/fixed_small_clip_5_trailing", &small, true, Trailing),
        ("ddim/eta0_20", &Sampler::Ddim(0.0), true, Trailing),
        ("ddim/eta1_20", &Sampler::Ddim(1.0), true, Trailing),
        ("ddim/eta0_5_leading", &Sampler::Ddim(0.0), true, Leading),
        ("ddim/eta0_5_trailing", &Sampler::Ddim(0.0), true, Trailing),
    ] {
        let f64_difference = trace(name, sampler, clip, spacing, DType::F64);
        let f32_difference = trace(name, sampler, clip, spacing, DType::F32);
        println!("{name}: {f64_difference:.1e} in f64, {f32_difference:.1e} in f32");
        // In a last step that starts above t = 0 diffusers adds noise of standard deviation 1e-10 instead of 0.
        assert!(f64_difference < 1e-9, "{name}: {f64_difference}");
        assert!(f32_difference < 1e-5, "{name}: {f32_difference}");
    }
}
