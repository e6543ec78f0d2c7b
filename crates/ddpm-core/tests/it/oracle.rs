//! The analytic oracle: for data whose optimal denoiser is known in closed form, every sampler must reproduce the
//! distribution of the data.
//!
//! The tolerances cover the sampling error of the samples, and the bias of a finite number of steps. The tests in `solvers`
//! bound that bias separately.

use candle_core::Tensor;
use ddpm_core::{
    NoiseSchedule, PredictionType, ReverseVariance, Sampler, Timesteps, likelihood::optimal_variances,
};

use crate::{
    largest_difference,
    toy::{
        COLUMNS, Mixture, NORMAL, ROWS, SEPARATION, TWO, fine_schedule, kolmogorov_smirnov, log_uniform,
        moments, noise, samplers, start,
    },
    values,
};

const SAMPLES: f64 = ROWS as f64 * COLUMNS as f64;

/// Second-order samplers need only half the steps.
fn is_second_order(sampler: &Sampler) -> bool {
    matches!(sampler, Sampler::DpmSolverMultistep(_) | Sampler::Heun(_) | Sampler::UniPc(_))
}

/// Samples from noise at the schedule's largest σ to x₀.
fn sample(sampler: &Sampler, data: &Mixture) -> Vec<f64> {
    let schedule = fine_schedule(PredictionType::VPrediction);
    let n = if is_second_order(sampler) { 50 } else { 100 };
    let timesteps = log_uniform(&schedule, [157.0, 0.01], n);
    let sampled =
        sampler.plan(&schedule, &timesteps).unwrap().sample(start(1), data.network(&schedule), noise(2));
    values(&sampled.unwrap())
}

/// Asserts that mean and standard deviation of the samples agree with a normal distribution, within five standard errors
/// and a bias of at most `bias` standard deviations.
fn assert_moments(name: &str, samples: &[f64], (mean, deviation): (f64, f64), bias: f64) {
    let (found_mean, found_deviation) = moments(samples);
    let error = deviation / (samples.len() as f64).sqrt();
    let tolerance = 5.0 * error + bias * deviation;
    assert!((found_mean - mean).abs() < tolerance, "{name}: mean {found_mean}, expected {mean}");
    let tolerance = 5.0 * error / 2.0_f64.sqrt() + bias * deviation;
    let off = (found_deviation - deviation).abs();
    assert!(off < tolerance, "{name}: deviation {found_deviation}, expected {deviation}");
}

#[test]
fn every_sampler_recovers_mean_and_variance_of_normal_data() {
    let &[(_, mean, deviation)] = NORMAL.0 else { panic!("one component") };
    for (name, sampler) in samplers() {
        let bias = if is_second_order(&sampler) { 0.01 } else { 0.05 };
        assert_moments(name, &sample(&sampler, &NORMAL), (mean, deviation), bias);
    }
}

/// Checks weights, means and standard deviations of both components, and the cumulative distribution function. For n
/// independent samples the latter deviates by more than 2/√n with a probability of 0.001 (Massart 1990).
#[test]
fn every_sampler_recovers_a_mixture_of_two_normal_distributions() {
    for (name, sampler) in samplers() {
        let bias = if is_second_order(&sampler) { 0.015 } else { 0.06 };
        let samples = sample(&sampler, &TWO);
        let (low, high): (Vec<f64>, Vec<f64>) = samples.iter().partition(|x| **x < SEPARATION);
        for (part, &(weight, mean, deviation)) in std::iter::zip([low, high], TWO.0) {
            let share = part.len() as f64 / SAMPLES;
            let chance = 5.0 * (weight * (1.0 - weight) / SAMPLES).sqrt();
            assert!((share - weight).abs() < chance + 0.003, "{name}: {share}, expected {weight}");
            assert_moments(name, &part, (mean, deviation), bias);
        }
        let distance = kolmogorov_smirnov(samples, |x| TWO.cdf(x));
        assert!(distance < 2.0 / SAMPLES.sqrt() + bias / 6.0, "{name}: {distance}");
    }
}

/// For normal data the exact reverse step is normal with the variance β̃ + c² Var(x₀ given xₜ). With this variance
/// ancestral sampling has no bias for any number of steps, even if the last step ends before x₀.
#[test]
fn ancestral_sampling_with_optimal_variances_is_exact_for_normal_data_in_four_steps() {
    let &[(_, mean, deviation)] = NORMAL.0 else { panic!("one component") };
    for prediction_type in [PredictionType::Epsilon, PredictionType::Sample, PredictionType::VPrediction] {
        let schedule = fine_schedule(prediction_type);
        let timesteps = Timesteps::explicit(&schedule, vec![999, 600, 300, 100]).unwrap();
        let timesteps = timesteps.ending_at_sigma_min(&schedule);
        let last = timesteps.last_alpha_cumprod();
        // The variance of x₀ given xₜ, which is the error of the optimal network.
        let left = |alpha_cumprod: f64| {
            let noise = 1.0 - alpha_cumprod;
            deviation.powi(2) * noise / (alpha_cumprod * deviation.powi(2) + noise)
        };
        let mse: Vec<f64> =
            timesteps.as_slice().iter().map(|timestep| left(timestep.alpha_cumprod())).collect();
        let variances = optimal_variances(&timesteps, &mse).unwrap();
        let reverse_variance = ReverseVariance::PerStep(variances);
        let network = NORMAL.network(&schedule);
        let sampled = Sampler::Ddpm(reverse_variance.clone()).plan(&schedule, &timesteps).unwrap().sample(
            start(1),
            network,
            noise(2),
        );
        let expected = (last * deviation.powi(2) + 1.0 - last).sqrt();
        assert_moments("optimal", &values(&sampled.unwrap()), (last.sqrt() * mean, expected), 0.0);
    }
}

/// Without added noise, samples must have a smaller variance than the data.
#[test]
fn ancestral_sampling_without_noise_collapses() {
    let (_, deviation) = moments(&sample(&Sampler::Ddpm(ReverseVariance::Zero), &NORMAL));
    assert!(deviation < 0.2 * NORMAL.0[0].2, "{deviation}");
}

/// The parameterization of the network makes no difference to any sampler.
#[test]
fn the_three_kinds_of_prediction_give_the_same_samples() {
    let kinds = [PredictionType::Sample, PredictionType::Epsilon, PredictionType::VPrediction];
    let schedules: Vec<NoiseSchedule> = kinds.into_iter().map(fine_schedule).collect();
    let few = start(1).narrow(1, 0, 2).unwrap().contiguous().unwrap();
    for (name, sampler) in samplers() {
        let run = |schedule: &NoiseSchedule| {
            let timesteps = Timesteps::spaced(schedule, 12).unwrap();
            let x: Tensor = few.clone();
            let sampled =
                sampler.plan(schedule, &timesteps).unwrap().sample(x, TWO.network(schedule), noise(2));
            values(&sampled.unwrap())
        };
        let [x_start, eps, v] = [run(&schedules[0]), run(&schedules[1]), run(&schedules[2])];
        for other in [eps, v] {
            let difference = largest_difference(&other, &x_start);
            assert!(difference < 1e-9, "{name}: {difference}");
        }
    }
}
