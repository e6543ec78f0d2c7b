//! Edge cases of every sampler: few steps, few timesteps, no signal at the start, other final levels, data types,
//! layouts and shapes.

use candle_core::{DType, Device, Tensor};
use ddpm_core::{
    CounterRng, NoiseSchedule, NoiseScheduleConfig, PredictionType, Purpose, ReverseVariance, Sampler,
    Timesteps,
};

use crate::{
    largest_difference, network, schedule,
    toy::{NORMAL, fine_schedule, samplers},
    values,
};

fn normal(shape: &[usize], dtype: DType) -> Tensor {
    let images: Vec<u64> = (0..shape[0] as u64).collect();
    let rng = CounterRng::new(8);
    rng.normal(Purpose::SAMPLE_START, &images, 0, &shape[1..], dtype, &Device::Cpu).unwrap()
}

fn noise(x: &Tensor, noise_index: usize) -> ddpm_core::Result<Tensor> {
    let images: Vec<u64> = (0..x.dim(0)? as u64).collect();
    CounterRng::new(9).normal_like(Purpose::SAMPLE_STEP, &images, noise_index, x)
}

fn run(sampler: &Sampler, schedule: &NoiseSchedule, timesteps: &Timesteps, x: &Tensor) -> Tensor {
    sampler.plan(schedule, timesteps).unwrap().sample(x.clone(), network, noise).unwrap()
}

fn assert_finite(name: &str, x: &Tensor) {
    let x = values(x);
    assert!(x.iter().all(|x| x.is_finite()), "{name}: {x:?}");
}

/// With every method a single step from any level to x₀ returns x̂₀.
#[test]
fn one_step_to_x_start_is_the_prediction() {
    for zero_snr in [false, true] {
        let schedule = schedule(|c| {
            c.prediction_type = PredictionType::VPrediction;
            c.rescale_betas_zero_snr = zero_snr;
        });
        for t in [19, 7, 0] {
            let timesteps = Timesteps::explicit(&schedule, vec![t]).unwrap();
            let x = normal(&[2, 3], DType::F64);
            let at = timesteps.first();
            let v = network(&x, at).unwrap();
            let to = PredictionType::Sample;
            let x_start = PredictionType::VPrediction.convert(to, &v, &x, at.alpha_cumprod()).unwrap();
            let x_start = values(&x_start.clamp(-1.0, 1.0).unwrap());
            // PNDM does not clip.
            for (name, sampler) in
                samplers().into_iter().filter(|(name, _)| !name.ends_with("churn") && *name != "pndm")
            {
                let difference =
                    largest_difference(&values(&run(&sampler, &schedule, &timesteps, &x)), &x_start);
                assert!(difference < 1e-14, "{name} from {t}: {difference}");
            }
        }
    }
}

#[test]
fn a_schedule_of_two_timesteps_samples_in_one_step_or_two() {
    for zero_snr in [false, true] {
        let schedule = schedule(|c| {
            (c.num_train_timesteps, c.beta_start, c.beta_end) = (2, 0.5, 0.999);
            c.prediction_type = PredictionType::Sample;
            c.rescale_betas_zero_snr = zero_snr;
        });
        for n in [1, 2] {
            let timesteps = Timesteps::spaced(&schedule, n).unwrap();
            for (name, sampler) in samplers() {
                assert_finite(name, &run(&sampler, &schedule, &timesteps, &normal(&[2, 3], DType::F32)));
            }
        }
    }
}

/// From pure noise the first step has an infinite length in the log-SNR. Its result must be the limit of steps from a
/// decreasing signal.
#[test]
fn a_start_without_any_signal_is_the_limit_of_ever_less_signal() {
    let x = normal(&[2, 3], DType::F64);
    let config = NoiseScheduleConfig {
        prediction_type: PredictionType::VPrediction,
        rescale_betas_zero_snr: true,
        ..NoiseScheduleConfig::mnist20()
    };
    let limit = NoiseSchedule::new(&config).unwrap();
    assert_eq!(limit.alphas_cumprod()[19], 0.0);
    // The same betas except the last, which gives ᾱ = 1e-14 instead of 0.
    let mut betas = limit.betas().to_vec();
    betas[19] = 1.0 - 1e-14 / limit.alphas_cumprod()[18];
    let almost = NoiseScheduleConfig { trained_betas: Some(betas), rescale_betas_zero_snr: false, ..config };
    let almost = NoiseSchedule::new(&almost).unwrap();
    for n in [1, 2, 5, 20] {
        for (name, sampler) in samplers() {
            // From pure noise Heun takes a first-order step, and B₂ replaces B₁.
            if n > 1 && (matches!(sampler, Sampler::Heun(_)) || name == "uni-pc bh1") {
                assert_finite(name, &run(&sampler, &limit, &Timesteps::spaced(&limit, n).unwrap(), &x));
                continue;
            }
            let [limit, almost] = [&limit, &almost]
                .map(|schedule| run(&sampler, schedule, &Timesteps::spaced(schedule, n).unwrap(), &x));
            let difference = largest_difference(&values(&almost), &values(&limit));
            // The multistep slope decreases only with 1/h, and h is 17.
            let tolerance = if name.contains("2M") || name.starts_with("uni") { 0.1 } else { 1e-5 };
            assert!(difference < tolerance, "{name} in {n} steps: {difference}");
        }
    }
}

/// Lists that end at σ of t = 0 instead of x₀, including lists whose last step has length 0.
#[test]
fn runs_may_end_at_the_smallest_noise_level() {
    let schedule = fine_schedule(PredictionType::Epsilon);
    let karras = Timesteps::karras(&schedule, 20).unwrap();
    let all = Timesteps::spaced(&schedule, 40).unwrap();
    let to_0 = Timesteps::explicit(&schedule, (0..20).rev().map(|i| 50 * i).collect()).unwrap();
    let one = Timesteps::explicit(&schedule, vec![500]).unwrap();
    let nothing = Timesteps::explicit(&schedule, vec![0]).unwrap();
    for timesteps in [karras, all, to_0, one, nothing] {
        let timesteps = timesteps.ending_at_sigma_min(&schedule);
        for (name, sampler) in samplers() {
            let x = normal(&[2, 3], DType::F64);
            let sampled = sampler.plan(&schedule, &timesteps).unwrap().sample(
                x.clone(),
                NORMAL.network(&schedule),
                noise,
            );
            let sampled = values(&sampled.unwrap());
            assert!(
                sampled.iter().all(|x| x.abs() < 5.0),
                "{name} from {:?}: {sampled:?}",
                timesteps.first()
            );
            if timesteps.first().t() == 0.0 && !name.ends_with("churn") {
                assert!(largest_difference(&sampled, &values(&x)) < 1e-12, "{name}: a step to where one is");
            }
        }
    }
}

/// All samplers add noise in a last step that does not end at x₀.
#[test]
fn ddpm_and_ddim_with_eta_1_agree_where_a_run_ends_before_x_start() {
    let schedule = schedule(|_| {});
    let timesteps = Timesteps::explicit(&schedule, vec![19, 9, 4]).unwrap().ending_at_sigma_min(&schedule);
    let x = normal(&[2, 3], DType::F64);
    let ddim = values(&run(&Sampler::Ddim(1.0), &schedule, &timesteps, &x));
    for sampler in [Sampler::Ddpm(ReverseVariance::FixedSmall), Sampler::EulerAncestral] {
        let difference = largest_difference(&values(&run(&sampler, &schedule, &timesteps, &x)), &ddim);
        assert!(difference < 1e-12, "{sampler:?}: {difference}");
    }
}

#[test]
fn half_precision_stays_near_f64() {
    let schedule = schedule(|_| {});
    let timesteps = Timesteps::all(&schedule);
    for (dtype, tolerance) in [(DType::F32, 1e-4), (DType::F16, 0.05), (DType::BF16, 0.3)] {
        for (name, sampler) in samplers() {
            let sampled = run(&sampler, &schedule, &timesteps, &normal(&[4, 5], dtype));
            assert_eq!(sampled.dtype(), dtype, "{name}");
            let exact = run(&sampler, &schedule, &timesteps, &normal(&[4, 5], DType::F64));
            let difference = largest_difference(&values(&sampled), &values(&exact));
            assert!(difference < tolerance, "{name} {dtype:?}: {difference}");
        }
    }
}

#[test]
fn views_in_another_layout_give_the_same_bits() {
    let schedule = schedule(|_| {});
    let timesteps = Timesteps::spaced(&schedule, 6).unwrap();
    let wide = normal(&[4, 6, 2], DType::F32);
    for view in [wide.transpose(1, 2).unwrap(), wide.narrow(1, 2, 3).unwrap(), wide.narrow(0, 1, 2).unwrap()]
    {
        for (name, sampler) in samplers() {
            let [strided, plain] = [&view, &view.contiguous().unwrap()]
                .map(|x| values(&run(&sampler, &schedule, &timesteps, x)));
            assert_eq!(strided, plain, "{name}");
        }
    }
}

/// Runs with clipping, and with dynamic thresholding, which depends on whole images.
#[test]
fn images_may_have_any_number_of_dimensions_and_a_batch_any_number_of_images() {
    for thresholding in [false, true] {
        let schedule = schedule(|c| (c.thresholding, c.sample_max_value) = (thresholding, 2.0));
        let timesteps = Timesteps::spaced(&schedule, 4).unwrap();
        for shape in [&[3][..], &[1, 4], &[2, 3, 4], &[2, 1, 3, 4], &[0, 4], &[0, 1, 3, 4]] {
            for (name, sampler) in samplers() {
                let sampled = run(&sampler, &schedule, &timesteps, &normal(shape, DType::F32));
                assert_eq!(sampled.dims(), shape, "{name}");
                assert_finite(name, &sampled);
            }
        }
    }
}

#[test]
fn a_network_output_of_the_wrong_shape_is_refused_with_both_shapes() {
    for prediction_type in [PredictionType::Sample, PredictionType::Epsilon] {
        let schedule = schedule(|c| c.prediction_type = prediction_type);
        let timesteps = Timesteps::spaced(&schedule, 3).unwrap();
        for (name, sampler) in samplers() {
            let x = normal(&[2, 3], DType::F32);
            let wide = |x: &Tensor, _| Tensor::cat(&[x, x], 1);
            let failed =
                sampler.plan(&schedule, &timesteps).unwrap().sample(x, wide, noise).unwrap_err().to_string();
            assert!(failed.contains("[2, 6]") && failed.contains("[2, 3]"), "{name}: {failed}");
        }
    }
}
