//! Closed forms and identities of the forward process, the posterior and the conversions.

use candle_core::{DType, Device, Tensor};
use ddpm_core::{
    CounterRng, Error, NoiseSchedule, NoiseScheduleConfig, PredictionType, Purpose, ReverseVariance, Sampler,
    Timesteps, no_noise,
};

use crate::{largest_difference, network, schedule, values, velocity};

const ALL: [PredictionType; 3] =
    [PredictionType::Epsilon, PredictionType::Sample, PredictionType::VPrediction];

fn normal(seed: u64, batch: u64, dtype: DType) -> Tensor {
    let images: Vec<u64> = (0..batch).collect();
    CounterRng::new(seed).normal(Purpose::EVALUATION, &images, 0, &[6], dtype, &Device::Cpu).unwrap()
}

/// Bayes' rule for normal distributions, from the two factors q(xₜ given xₜ₋₁) and q(xₜ₋₁ given x₀): precisions add.
/// This shares no formula with the code under test.
#[test]
fn posterior_is_bayes_rule() {
    for config in [NoiseScheduleConfig::mnist20(), NoiseScheduleConfig::ho2020()] {
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

/// Single forward steps give the same distribution as eq. 4, which goes from x₀ to xₜ directly. Without noise the means
/// agree, and the variances follow the recursion v ← (1−β) v + β.
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
    let text = "the number of timesteps is 2, expected 1 or 3, one for each image";
    assert_eq!(wrong.unwrap_err().to_string(), text);
    let one_noise_for_all = eps.narrow(0, 0, 1).unwrap();
    let wrong = schedule.q_sample(&x_start, &[1, 2, 3], &one_noise_for_all);
    assert!(matches!(wrong, Err(Error::Shapes { .. })));
    let wrong = schedule.q_sample(&x_start, &[20], &eps);
    assert_eq!(wrong.unwrap_err().to_string(), "timestep is 20, expected 0 to 19");
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
        PredictionType::VPrediction => velocity(&schedule, &x_start, &t, &eps),
        other => panic!("no closed form of {other:?}"),
    };
    for kind in ALL {
        assert_eq!(values(&schedule.target(kind, &x_start, &eps, &t).unwrap()), values(&truth(kind)));
    }
    for from in ALL {
        for to in ALL {
            let converted = schedule.convert(from, to, &truth(from), &x_t, &t).unwrap();
            let difference = largest_difference(&values(&converted), &values(&truth(to)));
            assert!(difference < 1e-11, "{from:?} to {to:?}: {difference}");
        }
    }
}

#[test]
fn noising_to_a_timestep_is_noising_all_images_to_it() {
    let schedule = schedule(|_| {});
    let (x_start, eps) = (normal(1, 2, DType::F64), normal(2, 2, DType::F64));
    let at = schedule.timestep(3).unwrap();
    let one = schedule.q_sample(&x_start, &[3], &eps).unwrap();
    assert_eq!(values(&at.q_sample(&x_start, &eps).unwrap()), values(&one));
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

#[test]
fn ddim_with_eta_1_is_ancestral_sampling_with_fixed_small() {
    for prediction_type in ALL {
        let schedule = schedule(|c| c.prediction_type = prediction_type);
        for list in [(0..20).rev().collect(), vec![19, 12, 4, 3], vec![17, 2, 0]] {
            let timesteps = Timesteps::explicit(&schedule, list).unwrap();
            let noise = |x: &Tensor, t: usize| {
                CounterRng::new(5).normal_like(Purpose::SAMPLE_STEP, &[0, 1, 2, 3], t, x)
            };
            let x = normal(9, 4, DType::F64);
            let ancestral = Sampler::Ddpm(ReverseVariance::FixedSmall)
                .plan(&schedule, &timesteps)
                .unwrap()
                .sample(x.clone(), network, noise);
            let ddim = Sampler::Ddim(1.0).plan(&schedule, &timesteps).unwrap().sample(x, network, noise);
            let difference = largest_difference(&values(&ancestral.unwrap()), &values(&ddim.unwrap()));
            assert!(difference < 1e-10, "{prediction_type:?} {timesteps:?}: {difference}");
        }
    }
}

#[test]
fn the_last_step_lands_on_x_start_without_noise_and_clipped() {
    let schedule = schedule(|c| c.prediction_type = PredictionType::Sample);
    let timesteps = Timesteps::explicit(&schedule, vec![19, 5]).unwrap();
    for reverse_variance in [ReverseVariance::FixedSmall, ReverseVariance::FixedLarge, ReverseVariance::Zero]
    {
        let mut noise_indices = Vec::new();
        let mut seen = Vec::new();
        let x = Sampler::Ddpm(reverse_variance.clone()).plan(&schedule, &timesteps).unwrap().sample_with(
            normal(1, 2, DType::F32),
            |x, _| x * 3.0,
            |x, t| {
                noise_indices.push(t);
                x.ones_like()
            },
            |run| {
                let step = run.step().unwrap();
                seen.push((step.index, step.total, step.timestep.index()));
                assert!(values(step.x_start).iter().all(|x| x.abs() <= 1.0));
                Ok(())
            },
        );
        let noisy_steps: &[usize] = if reverse_variance == ReverseVariance::Zero { &[] } else { &[19] };
        assert_eq!(noise_indices, noisy_steps, "{reverse_variance:?}");
        assert_eq!(seen, [(0, 2, 19), (1, 2, 5)]);
        assert!(values(&x.unwrap()).iter().all(|x| x.abs() <= 1.0));
    }
}

/// Computes DDIM step by step over unevenly spaced timesteps. The target of each step must be the next timestep of the
/// list, not t − T/n.
#[test]
fn the_previous_timestep_is_the_next_of_the_list() {
    let schedule = schedule(|c| c.clip_sample = false);
    let list = [19, 11, 9, 2];
    let timesteps = Timesteps::explicit(&schedule, list.to_vec()).unwrap();
    let start = normal(9, 4, DType::F64);
    let mut x = values(&start);
    for (i, &t) in list.iter().enumerate() {
        let (to, at) = (list.get(i + 1).copied(), schedule.alphas_cumprod()[t]);
        let next = to.map_or(1.0, |to| schedule.alphas_cumprod()[to]);
        for x in &mut x {
            let eps = (0.7 * *x + 0.1 * (t as f64).sin()).tanh();
            let x_start = (*x - (1.0 - at).sqrt() * eps) / at.sqrt();
            *x = next.sqrt() * x_start + (1.0 - next).sqrt() * eps;
        }
    }
    let sampled = Sampler::Ddim(0.0).plan(&schedule, &timesteps).unwrap().sample(start, network, no_noise);
    let difference = largest_difference(&values(&sampled.unwrap()), &x);
    assert!(difference < 1e-10, "{difference}");
}

/// x̂₀ and ε̂ must combine to xₜ, even if x̂₀ is clipped.
#[test]
fn if_x_start_is_clipped_eps_is_derived_anew() {
    let schedule = schedule(|_| {});
    let timesteps = Timesteps::explicit(&schedule, vec![15, 6]).unwrap();
    let start = (normal(9, 4, DType::F64) * 3.0).unwrap();
    let (at, next) = (schedule.alphas_cumprod()[15], schedule.alphas_cumprod()[6]);
    let mut clipped = 0;
    let expected: Vec<f64> = values(&start)
        .into_iter()
        .map(|x| {
            let eps = (0.7 * x + 0.1 * 15.0_f64.sin()).tanh();
            let x_start = (x - (1.0 - at).sqrt() * eps) / at.sqrt();
            clipped += usize::from(x_start.abs() > 1.0);
            let x_start = x_start.clamp(-1.0, 1.0);
            let eps = (x - at.sqrt() * x_start) / (1.0 - at).sqrt();
            next.sqrt() * x_start + (1.0 - next).sqrt() * eps
        })
        .collect();
    assert!(clipped > 0 && clipped < expected.len());
    let mut first = Vec::new();
    let callback = |run: &mut ddpm_core::Run| {
        let step = run.step().unwrap();
        if step.index == 0 {
            first = values(step.x_t);
        }
        Ok(())
    };
    Sampler::Ddim(0.0)
        .plan(&schedule, &timesteps)
        .unwrap()
        .sample_with(start, network, no_noise, callback)
        .unwrap();
    assert!(largest_difference(&first, &expected) < 1e-12);
}

/// Song et al. 2021, eq. 16. The noise has standard deviation σ, and the factor of ε̂ is √(1 − ᾱ − σ²).
#[test]
fn ddim_adds_eta_times_the_deviation_of_the_posterior() {
    let schedule = schedule(|c| (c.prediction_type, c.clip_sample) = (PredictionType::Sample, false));
    let timesteps = Timesteps::explicit(&schedule, vec![15, 6]).unwrap();
    let (at, next) = (schedule.alphas_cumprod()[15], schedule.alphas_cumprod()[6]);
    for eta in [0.25, 0.5, 1.0] {
        let mut first = [0.0; 2];
        for (noise_value, first) in std::iter::zip([0.0, 1.0], &mut first) {
            let callback = |run: &mut ddpm_core::Run| {
                let step = run.step().unwrap();
                if step.index == 0 {
                    *first = values(step.x_t)[0];
                }
                Ok(())
            };
            // x̂₀ is 0, so ε̂ is xₜ/√(1−ᾱₜ), which is 1 here.
            let x = Tensor::new(&[[(1.0 - at).sqrt()]], &Device::Cpu).unwrap();
            let black = |x: &Tensor, _| x.zeros_like();
            let noise = |x: &Tensor, _| x.zeros_like()? + noise_value;
            Sampler::Ddim(eta)
                .plan(&schedule, &timesteps)
                .unwrap()
                .sample_with(x, black, noise, callback)
                .unwrap();
        }
        let sigma = eta * ((1.0 - next) / (1.0 - at)).sqrt() * (1.0 - at / next).sqrt();
        assert!((first[1] - first[0] - sigma).abs() < 1e-14, "{eta}: {first:?}");
        assert!((first[0] - (1.0 - next - sigma * sigma).sqrt()).abs() < 1e-14, "{eta}: {first:?}");
    }
}

/// Saharia et al. 2022, section 2.3, for each image: the quantile lies between two magnitudes, and in [1, max].
#[test]
fn dynamic_thresholding_clips_to_a_quantile_of_each_image_and_divides_by_it() {
    let run = |ratio: f64, max: f64| {
        let schedule = schedule(|c| {
            (c.prediction_type, c.thresholding) = (PredictionType::Sample, true);
            (c.dynamic_thresholding_ratio, c.sample_max_value) = (ratio, max);
        });
        let timesteps = Timesteps::explicit(&schedule, vec![9]).unwrap();
        let x_start = Tensor::new(&[[-4.0_f64, 1.0, 2.0, 0.5], [0.1, -0.2, 0.3, 0.4]], &Device::Cpu).unwrap();
        let model = |_: &Tensor, _| Ok::<_, Error>(x_start.clone());
        values(
            &Sampler::Ddim(0.0)
                .plan(&schedule, &timesteps)
                .unwrap()
                .sample(x_start.clone(), model, no_noise)
                .unwrap(),
        )
    };
    let second = [0.1, -0.2, 0.3, 0.4];
    for (ratio, max, s) in
        [(0.5, 9.0, 1.5), (0.75, 9.0, 2.5), (1.0, 9.0, 4.0), (0.75, 2.0, 2.0), (0.0, 9.0, 1.0)]
    {
        let first = [-4.0_f64, 1.0, 2.0, 0.5].map(|x| x.clamp(-s, s) / s);
        assert!(largest_difference(&run(ratio, max), &[first, second].concat()) < 1e-14, "{ratio} {max}");
    }
}
