//! Noise along a Brownian path.

use candle_core::{DType, Device, Tensor};
use ddpm_core::{
    CounterRng, ImageNoise, NoiseSchedule, NoiseScheduleConfig, Operation, Plan, Register, Sampler, Steps,
    Timestep,
};

use crate::{
    largest_difference,
    toy::{TWO, fine_schedule, log_uniform, moments},
    values,
};

const PIXELS: usize = 2000;

fn schedule() -> NoiseSchedule {
    NoiseSchedule::new(&NoiseScheduleConfig { clip_sample: false, ..NoiseScheduleConfig::ho2020() }).unwrap()
}

fn images() -> ImageNoise {
    CounterRng::new(5).images([3, 8])
}

fn plan(sampler: &Sampler, steps: Steps) -> Plan {
    sampler.plan(&schedule(), steps).unwrap()
}

/// Samplers whose steps are draws from the reverse process of DDPM if x̂₀ does not change.
fn exact() -> [(&'static str, Sampler); 4] {
    [
        ("ddpm", Sampler::ddpm()),
        ("euler ancestral", Sampler::EulerAncestral),
        ("ddim 1", Sampler::ddim(1.0)),
        ("2m sde", Sampler::dpmpp_2m_sde()),
    ]
}

/// The noise indices of a plan.
fn indices(plan: &Plan) -> Vec<usize> {
    let terms = plan.operations().iter().filter_map(|operation| match operation {
        Operation::Update(terms) => Some(terms),
        _ => None,
    });
    let index = |register: &Register| match register {
        Register::Noise(index) => Some(*index),
        _ => None,
    };
    terms.flatten().filter_map(|(_, register)| index(register)).collect()
}

/// The images after each step, by the noise level to which it leads, for a network that always predicts the same x₀.
fn levels(plan: &Plan) -> Vec<(f64, Vec<f64>)> {
    let images = images();
    let noise = images.along_path(plan).unwrap();
    let start = images.start(&[PIXELS], &Device::Cpu).unwrap();
    // ε of x₀ = 0.25.
    let network = |x: &Tensor, at: Timestep| {
        let alpha_cumprod = at.alpha_cumprod();
        (x - 0.25 * alpha_cumprod.sqrt())? / (1.0 - alpha_cumprod).sqrt()
    };
    let mut found = Vec::new();
    plan.sample_with(start, network, noise.noise(), |run| {
        let step = run.step().unwrap();
        found.push((step.noise, values(step.x_t)));
        Ok(())
    })
    .unwrap();
    found
}

/// In closed form: with x̂₀ fixed, xₜ is a draw from the reverse process, and the path decides which one.
#[test]
fn images_of_a_fixed_prediction_are_the_same_at_any_number_of_steps() {
    let list = |list: &[usize]| Steps::Explicit(list.to_vec());
    let (few, many) = ([999, 700, 400, 90], [999, 980, 850, 700, 699, 530, 400, 210, 130, 90, 31]);
    for (name, sampler) in exact() {
        let few = levels(&plan(&sampler, list(&few)));
        let many = levels(&plan(&sampler, list(&many)));
        let mut common = 0;
        for (level, images) in &few {
            let Some((_, other)) = many.iter().find(|(other, _)| (other - level).abs() < 1e-12) else {
                continue;
            };
            let difference = largest_difference(images, other);
            assert!(difference < 1e-4, "{name} at noise {level}: {difference}");
            common += 1;
        }
        assert_eq!(common, 4, "{name}");
    }
}

#[test]
fn the_noise_of_each_step_is_standard_normal_and_independent_of_the_others() {
    let plan = plan(&Sampler::ddpm(), Steps::Spaced(12));
    let images = CounterRng::new(1).images(0..20);
    let like = Tensor::zeros((20, PIXELS), DType::F32, &Device::Cpu).unwrap();
    let noise = images.along_path(&plan).unwrap().noise();
    let drawn: Vec<Vec<f64>> =
        indices(&plan).into_iter().map(|index| values(&noise(&like, index).unwrap())).collect();
    assert_eq!(drawn.len(), 11);
    let n = (20 * PIXELS) as f64;
    for (i, one) in drawn.iter().enumerate() {
        let (mean, deviation) = moments(one);
        assert!(mean.abs() < 5.0 / n.sqrt(), "{i}: {mean}");
        assert!((deviation - 1.0).abs() < 5.0 / (2.0 * n).sqrt(), "{i}: {deviation}");
        for other in &drawn[..i] {
            let product: f64 = std::iter::zip(one, other).map(|(a, b)| a * b).sum::<f64>() / n;
            assert!(product.abs() < 5.0 / n.sqrt(), "{i}: {product}");
        }
    }
}

#[test]
fn an_image_has_the_same_noise_alone_and_in_a_batch() {
    let plan = plan(&Sampler::ddpm(), Steps::Spaced(7));
    let noise = |indices: &[u64], noise_index: usize| {
        let images = CounterRng::new(1).images(indices.iter().copied());
        let like = Tensor::zeros((indices.len(), 5), DType::F32, &Device::Cpu).unwrap();
        values(&images.along_path(&plan).unwrap().noise()(&like, noise_index).unwrap())
    };
    for index in indices(&plan) {
        let together = noise(&[4, 9, 2], index);
        assert_eq!(together[5..10], noise(&[9], index));
    }
}

/// A network with two modes: along the path more steps refine one picture, with independent noise they make another one.
#[test]
fn more_steps_come_closer_along_the_path() {
    let schedule = fine_schedule(ddpm_core::PredictionType::VPrediction);
    let images = CounterRng::new(2).images(0..50);
    let sample = |steps: usize, path: bool| {
        let timesteps = log_uniform(&schedule, [157.0, 0.01], steps);
        let plan = Sampler::dpmpp_2m_sde().plan(&schedule, &timesteps).unwrap();
        let start = images.start(&[100], &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
        let network = TWO.network(&schedule);
        let sampled = if path {
            plan.sample(start, network, images.along_path(&plan).unwrap().noise())
        } else {
            plan.sample(start, network, images.noise())
        };
        values(&sampled.unwrap())
    };
    let apart =
        |a: &[f64], b: &[f64]| std::iter::zip(a, b).map(|(a, b)| (a - b).abs()).sum::<f64>() / a.len() as f64;
    let reference = sample(160, true);
    let [few, more] = [20, 60].map(|steps| apart(&sample(steps, true), &reference));
    let independent = apart(&sample(60, false), &sample(160, false));
    assert!(more < 0.5 * few && few < 0.5 * independent, "{few}, {more}, independent {independent}");
}

#[test]
fn plans_without_a_path_are_refused() {
    let refused = |plan: &Plan| images().along_path(plan).unwrap_err().to_string();
    let expected = "expected one that adds noise once and leads to less noise, for a Brownian path";
    let message = refused(&plan(&Sampler::RePaint { jump_length: 10, jump_n_sample: 2 }, Steps::Spaced(50)));
    assert!(message.contains(expected), "{message}");
    // A step between two noise levels that are the same for the path.
    let schedule = schedule();
    let at = schedule.timestep(500).unwrap();
    let mut close = Plan::new(&schedule);
    close.evaluate(at);
    close.update([(1.0, Register::X), (0.1, Register::Noise(0))]);
    close.end_step(at, at.alpha_cumprod() * (1.0 + 1e-9));
    assert!(refused(&close).contains(expected));
    let path = images().along_path(&plan(&Sampler::ddpm(), Steps::Spaced(3))).unwrap();
    let like = Tensor::zeros((2, 5), DType::F32, &Device::Cpu).unwrap();
    let error = path.noise()(&like, 7).unwrap_err().to_string();
    assert_eq!(error, "the noise index is 7, expected one of the plan of this path");
}
