//! Closed forms and identities of the forward process, the posterior and the conversions.

use candle_core::{DType, Device, Tensor};
use ddpm_core::{
    AddressedRng, Error, NoiseMode, NoiseSchedule, PredictionType, Purpose, ScheduleConfig, Timestep,
    Timesteps, sampler,
};

use crate::{largest_difference, schedule, values};

const ALL: [PredictionType; 3] =
    [PredictionType::Epsilon, PredictionType::Sample, PredictionType::VPrediction];

fn normal(seed: u64, batch: u64, dtype: DType) -> Tensor {
    let images: Vec<u64> = (0..batch).collect();
    AddressedRng::new(seed).normal(Purpose::Evaluation, &images, 0, &[6], dtype, &Device::Cpu).unwrap()
}

/// Bayes' rule for normal distributions, from the two factors q(xₜ given xₜ₋₁) and q(xₜ₋₁ given x₀)
/// themselves: precisions add. This shares no formula with the code under test.
#[test]
fn posterior_is_bayes_rule() {
    for config in [ScheduleConfig::mnist20(), ScheduleConfig::ho2020()] {
        let schedule = NoiseSchedule::new(&config).unwrap();
        let alphas_cumprod = schedule.alphas_cumprod();
        for t in 1..config.num_train_timesteps {
            let beta = schedule.betas()[t];
            let (prior_variance, prior_scale) = (1.0 - alphas_cumprod[t - 1], alphas_cumprod[t - 1].sqrt());
            let precision = (1.0 - beta) / beta + 1.0 / prior_variance;
            let variance = 1.0 / precision;
            let x_t_coef = variance * (1.0 - beta).sqrt() / beta;
            let x_start_coef = variance * prior_scale / prior_variance;
            let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9 * b.abs().max(1e-3), "{t}: {a} {b}");
            close(schedule.posterior_variance()[t], variance);
            close(schedule.posterior_mean_coef1()[t], x_start_coef);
            close(schedule.posterior_mean_coef2()[t], x_t_coef);
        }
    }
}

#[test]
fn at_t_0_the_posterior_is_x_start_and_its_log_variance_is_clamped() {
    let schedule = schedule(|_| {});
    let (x_start, x_t) = (normal(1, 2, DType::F64), normal(2, 2, DType::F64));
    let posterior = schedule.q_posterior(&x_start, &x_t, &[0, 1]).unwrap();
    assert!(largest_difference(&values(&posterior.mean)[..6], &values(&x_start)[..6]) < 1e-12);
    assert_eq!(posterior.variance[0], 0.0);
    assert_eq!(posterior.log_variance_clipped[0], posterior.variance[1].ln());
    assert!(posterior.log_variance_clipped.iter().all(|log| log.is_finite()));
}

#[test]
fn the_prior_of_mnist20_is_reached_and_that_of_an_unscaled_ho2020_at_20_steps_is_not() {
    let log_snr = schedule(|_| {}).snr(19).unwrap().ln();
    assert!((log_snr - -9.8).abs() < 0.05, "{log_snr}");
    let unscaled = schedule(|c| (c.beta_start, c.beta_end) = (1e-4, 0.02));
    assert!((unscaled.alphas_cumprod()[19] - 0.82).abs() < 0.01);
}

/// Forward steps one by one give the same distribution as the jump of eq. 4: with noise set to zero the
/// means agree, and variances follow the recursion v ← (1−β) v + β.
#[test]
fn single_steps_compose_to_q_sample() {
    let schedule = schedule(|_| {});
    let (mut scale, mut variance) = (1.0_f64, 0.0_f64);
    for t in 0..20 {
        scale *= (1.0 - schedule.betas()[t]).sqrt();
        variance = (1.0 - schedule.betas()[t]) * variance + schedule.betas()[t];
        let ones = Tensor::ones((1, 1), DType::F64, &Device::Cpu).unwrap();
        let zeros = ones.zeros_like().unwrap();
        let mean = values(&schedule.q_sample(&ones, &[t], &zeros).unwrap())[0];
        let deviation = values(&schedule.q_sample(&zeros, &[t], &ones).unwrap())[0];
        assert!((mean - scale).abs() < 1e-12 && (deviation - variance.sqrt()).abs() < 1e-12, "t = {t}");
    }
}

#[test]
fn q_sample_takes_one_timestep_for_each_image() {
    let schedule = schedule(|_| {});
    let (x_start, eps) = (normal(1, 3, DType::F64), normal(2, 3, DType::F64));
    let mixed = values(&schedule.q_sample(&x_start, &[19, 0, 7], &eps).unwrap());
    for (image, t) in [19, 0, 7].into_iter().enumerate() {
        let all = values(&schedule.q_sample(&x_start, &[t], &eps).unwrap());
        assert!(largest_difference(&mixed[6 * image..6 * image + 6], &all[6 * image..6 * image + 6]) < 1e-15);
    }
    let wrong = schedule.q_sample(&x_start, &[1, 2], &eps);
    assert!(matches!(wrong, Err(Error::TimestepBatch { found: 2, batch: 3 })));
    let one_noise_for_all = eps.narrow(0, 0, 1).unwrap();
    let wrong = schedule.q_sample(&x_start, &[1, 2, 3], &one_noise_for_all);
    assert!(matches!(wrong, Err(Error::Shapes { .. })));
    let wrong = schedule.q_sample(&x_start, &[20], &eps);
    assert!(matches!(wrong, Err(Error::TimestepRange { found: 20, last: 19 })));
}

#[test]
fn every_conversion_of_the_true_quantities_is_exact() {
    let schedule = schedule(|_| {});
    let (x_start, eps) = (normal(1, 20, DType::F64), normal(2, 20, DType::F64));
    let t: Vec<usize> = (0..20).collect();
    let x_t = schedule.q_sample(&x_start, &t, &eps).unwrap();
    let truth = |kind| match kind {
        PredictionType::Epsilon => eps.clone(),
        PredictionType::Sample => x_start.clone(),
        PredictionType::VPrediction => schedule.velocity(&x_start, &t, &eps).unwrap(),
    };
    for from in ALL {
        for to in ALL {
            let converted = schedule.convert(from, to, &truth(from), &x_t, &t).unwrap();
            let difference = largest_difference(&values(&converted), &values(&truth(to)));
            assert!(difference < 1e-11, "{from:?} to {to:?}: {difference}");
        }
    }
}

#[test]
fn conversions_there_and_back_return_any_prediction() {
    let schedule = schedule(|_| {});
    let (prediction, x_t) = (normal(3, 20, DType::F64), normal(4, 20, DType::F64));
    let t: Vec<usize> = (0..20).collect();
    for from in ALL {
        for to in ALL {
            let there = schedule.convert(from, to, &prediction, &x_t, &t).unwrap();
            let back = schedule.convert(to, from, &there, &x_t, &t).unwrap();
            assert!(largest_difference(&values(&back), &values(&prediction)) < 1e-11, "{from:?} {to:?}");
        }
    }
}

/// A network for the comparison of samplers: any smooth function will do.
fn network(x: &Tensor, timestep: Timestep) -> candle_core::Result<Tensor> {
    ((x * 0.7)? + 0.1 * timestep.t().sin())?.tanh()
}

#[test]
fn ddim_with_eta_1_is_ancestral_sampling_with_fixed_small() {
    for prediction_type in ALL {
        let schedule = schedule(|c| c.prediction_type = prediction_type);
        for list in [(0..20).rev().collect(), vec![19, 12, 4, 3], vec![17, 2, 0]] {
            let timesteps = Timesteps::explicit(&schedule, list).unwrap();
            let noise = |x: &Tensor, t: usize| {
                AddressedRng::new(5).normal_like(Purpose::SampleStep, &[0, 1, 2, 3], t, x)
            };
            let x = normal(9, 4, DType::F64);
            let ancestral = sampler::ddpm(
                &schedule,
                &timesteps,
                &NoiseMode::Posterior,
                x.clone(),
                network,
                noise,
                |_| Ok(()),
            );
            let ddim = sampler::ddim(&schedule, &timesteps, 1.0, x, network, noise, |_| Ok(()));
            let difference = largest_difference(&values(&ancestral.unwrap()), &values(&ddim.unwrap()));
            assert!(difference < 1e-10, "{prediction_type:?} {timesteps:?}: {difference}");
        }
    }
}

#[test]
fn the_last_step_lands_on_x_start_without_noise_and_clipped() {
    let schedule = schedule(|c| c.prediction_type = PredictionType::Sample);
    let timesteps = Timesteps::explicit(&schedule, vec![19, 5]).unwrap();
    for mode in [NoiseMode::Posterior, NoiseMode::Beta, NoiseMode::None] {
        let mut drawn = Vec::new();
        let mut seen = Vec::new();
        let x = sampler::ddpm(
            &schedule,
            &timesteps,
            &mode,
            normal(1, 2, DType::F32),
            |x, _| x * 3.0,
            |x, t| {
                drawn.push(t);
                Ok(x.ones_like()?)
            },
            |step| {
                seen.push((step.index, step.total, step.timestep.index()));
                assert!(values(step.x_start).iter().all(|x| x.abs() <= 1.0));
                Ok(())
            },
        );
        let noisy_steps: &[usize] = if mode == NoiseMode::None { &[] } else { &[19] };
        assert_eq!(drawn, noisy_steps, "{mode:?}");
        assert_eq!(seen, [(0, 2, 19), (1, 2, 5)]);
        assert!(values(&x.unwrap()).iter().all(|x| x.abs() <= 1.0));
    }
}

#[test]
fn an_observers_error_ends_the_run() {
    let schedule = schedule(|_| {});
    let mut calls = 0;
    let stopped = sampler::ddim(
        &schedule,
        &Timesteps::all(&schedule),
        0.0,
        normal(1, 1, DType::F32),
        network,
        |x, _| Ok(x.zeros_like()?),
        |_| {
            calls += 1;
            Err(Error::NoTimesteps)
        },
    );
    assert!(matches!(stopped, Err(Error::NoTimesteps)));
    assert_eq!(calls, 1);
    let eta = sampler::ddim(
        &schedule,
        &Timesteps::all(&schedule),
        1.5,
        normal(1, 1, DType::F32),
        network,
        |x, _| Ok(x.zeros_like()?),
        |_| Ok(()),
    );
    assert!(matches!(eta, Err(Error::SamplerOption { option: "eta", .. })));
}
