//! The analytic oracle: for normal data the best denoiser is known in closed form, so samplers must give
//! back the data's mean and variance.
//!
//! With x₀ ~ N(μ, s²) and xₜ = √ᾱ x₀ + √(1−ᾱ) ε,
//! E[x₀ given xₜ] = μ + √ᾱ s² / (ᾱ s² + 1 − ᾱ) · (xₜ − √ᾱ μ).

use candle_core::{DType, Device, Tensor};
use ddpm_core::{
    AddressedRng, NoiseMode, NoiseSchedule, PredictionType, Purpose, Timestep, Timesteps, sampler,
};

use crate::{largest_difference, schedule, values};

const MEAN: f64 = 0.3;
const DEVIATION: f64 = 0.5;
const SAMPLES: u64 = 40_000;

fn fine_schedule(prediction_type: PredictionType) -> NoiseSchedule {
    schedule(|c| {
        *c = ddpm_core::ScheduleConfig::ho2020();
        c.prediction_type = prediction_type;
        c.clip_sample = false;
    })
}

/// The best prediction of x₀, handed over as the kind that the schedule expects.
fn oracle(schedule: &NoiseSchedule) -> impl Fn(&Tensor, Timestep) -> candle_core::Result<Tensor> + '_ {
    |x_t, timestep| {
        let alpha_bar = timestep.alpha_cumprod();
        let gain = alpha_bar.sqrt() * DEVIATION.powi(2) / (alpha_bar * DEVIATION.powi(2) + 1.0 - alpha_bar);
        let x_start = ((x_t - alpha_bar.sqrt() * MEAN)? * gain)? + MEAN;
        let to = schedule.config().prediction_type;
        PredictionType::Sample.convert(to, &x_start?, x_t, alpha_bar).map_err(candle_core::Error::wrap)
    }
}

fn start() -> (Vec<u64>, Tensor) {
    let images: Vec<u64> = (0..SAMPLES).collect();
    let rng = AddressedRng::new(11);
    let x = rng.normal(Purpose::SampleStart, &images, 0, &[1], DType::F64, &Device::Cpu).unwrap();
    (images, x)
}

/// Mean and standard deviation, checked against the data's within five standard errors plus the bias
/// that `slack` allows for a finite number of steps.
fn check_moments(samples: &[f64], slack: f64) {
    let n = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / n;
    let deviation = (samples.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    let error = DEVIATION / n.sqrt();
    assert!((mean - MEAN).abs() < 5.0 * error + slack, "mean {mean}");
    assert!((deviation - DEVIATION).abs() < 5.0 * error / 2.0_f64.sqrt() + slack, "deviation {deviation}");
}

#[test]
fn ancestral_sampling_recovers_mean_and_variance_with_either_variance() {
    let (images, x) = start();
    let noise = |x: &Tensor, t: usize| AddressedRng::new(12).normal_like(Purpose::SampleStep, &images, t, x);
    for prediction in [PredictionType::Epsilon, PredictionType::Sample, PredictionType::VPrediction] {
        let schedule = fine_schedule(prediction);
        for mode in [NoiseMode::Posterior, NoiseMode::Beta] {
            let timesteps = Timesteps::all(&schedule);
            let sampled =
                sampler::ddpm(&schedule, &timesteps, &mode, x.clone(), oracle(&schedule), noise, |_| Ok(()));
            check_moments(&values(&sampled.unwrap()), 0.004);
        }
    }
}

/// Leaving the noise out must *lose* variance: the option has a price.
#[test]
fn ancestral_sampling_without_noise_collapses() {
    let (_, x) = start();
    let schedule = fine_schedule(PredictionType::Epsilon);
    let timesteps = Timesteps::all(&schedule);
    let no_noise = |_: &Tensor, t: usize| panic!("noise was drawn at {t}");
    let sampled =
        sampler::ddpm(&schedule, &timesteps, &NoiseMode::None, x, oracle(&schedule), no_noise, |_| Ok(()));
    let samples = values(&sampled.unwrap());
    let mean = samples.iter().sum::<f64>() / samples.len() as f64;
    let variance = samples.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / samples.len() as f64;
    assert!(variance < 0.2 * DEVIATION.powi(2), "{variance}");
}

/// At η = 0, DDIM follows the probability-flow equation, whose solution for normal data is affine:
/// x₀ = μ + s (x_T − √ᾱ μ) / √(ᾱ s² + 1 − ᾱ). Its error must fall in proportion to the step.
#[test]
fn ddim_converges_to_the_exact_flow_with_order_one() {
    let schedule = fine_schedule(PredictionType::Epsilon);
    let x = Tensor::from_vec(vec![-2.0, -0.5, 0.0, 1.0, 3.0], (5, 1), &Device::Cpu).unwrap();
    let alpha_bar = schedule.alphas_cumprod()[999];
    let scale = DEVIATION / (alpha_bar * DEVIATION.powi(2) + 1.0 - alpha_bar).sqrt();
    let exact: Vec<f64> = values(&x).iter().map(|x| MEAN + scale * (x - alpha_bar.sqrt() * MEAN)).collect();
    let error = |n: usize| {
        let timesteps = Timesteps::spaced(&schedule, n).unwrap();
        let no_noise = |_: &Tensor, t: usize| panic!("noise was drawn at {t}");
        let sampled =
            sampler::ddim(&schedule, &timesteps, 0.0, x.clone(), oracle(&schedule), no_noise, |_| Ok(()));
        largest_difference(&values(&sampled.unwrap()), &exact)
    };
    let errors: Vec<f64> = [25, 50, 100, 200].into_iter().map(error).collect();
    for pair in errors.windows(2) {
        let order = (pair[0] / pair[1]).log2();
        assert!((0.75..1.35).contains(&order), "order {order} from {errors:?}");
    }
}

#[test]
fn ddim_recovers_mean_and_variance_at_any_eta() {
    let (images, x) = start();
    let noise = |x: &Tensor, t: usize| AddressedRng::new(13).normal_like(Purpose::SampleStep, &images, t, x);
    let schedule = fine_schedule(PredictionType::VPrediction);
    for eta in [0.0, 0.5, 1.0] {
        let timesteps = Timesteps::all(&schedule);
        let sampled =
            sampler::ddim(&schedule, &timesteps, eta, x.clone(), oracle(&schedule), noise, |_| Ok(()));
        check_moments(&values(&sampled.unwrap()), 0.004);
    }
}
