//! The variational bound. Every term is compared with numpy's (`fixtures/README.md`), and the bound with the exact
//! likelihood of normal data, for which the optimal network is known.

mod normal_data;

use candle_core::{DType, Tensor};
use ddpm_core::likelihood::{Bound, BoundEstimator, optimal_variances, progressive_decoding};
use ddpm_core::{
    CounterRng, Error, NoiseSchedule, PredictionType, Purpose, ReverseVariance, Timestep, Timesteps,
};

use crate::{largest_difference, network_of, schedule, tensor_of, values};
use normal_data::NormalData;

const BYTES: &[u8] = include_bytes!("../fixtures/likelihood.safetensors");

pub(crate) fn tensor(name: &str) -> Tensor {
    tensor_of(BYTES, name)
}

pub(crate) fn list(schedule: &NoiseSchedule, name: &str) -> Timesteps {
    let list = values(&tensor(name)).into_iter().map(|t| t as usize).collect();
    Timesteps::explicit(schedule, list).unwrap()
}

/// The schedule of the fixture, for a `prediction_type` by its name in the fixture.
pub(crate) fn fixture_schedule(prediction: &str, variance_type: ReverseVariance) -> NoiseSchedule {
    schedule(|config| {
        config.clip_sample = prediction == "epsilon_clip";
        config.variance_type = variance_type;
        config.prediction_type = match prediction {
            "sample" => PredictionType::Sample,
            "v_prediction" => PredictionType::VPrediction,
            _ => PredictionType::Epsilon,
        };
    })
}

pub(crate) fn images(dtype: DType) -> Tensor {
    let grey = tensor("grey").to_dtype(DType::F64).unwrap();
    ((grey * (2.0 / 255.0)).unwrap() - 1.0).unwrap().to_dtype(dtype).unwrap()
}

/// The noise of the fixture, for a batch of images that starts at `first`.
pub(crate) fn noise(first: usize) -> impl Fn(&Tensor, usize) -> ddpm_core::Result<Tensor> {
    let noise = tensor("noise");
    move |x, noise_index| Ok(noise.get(noise_index)?.narrow(0, first, x.dim(0)?)?.to_dtype(x.dtype())?)
}

fn bound(
    schedule: &NoiseSchedule,
    timesteps: &Timesteps,
    reverse_variance: &ReverseVariance,
    dtype: DType,
) -> Bound {
    let mut estimator = BoundEstimator::new(schedule, timesteps, reverse_variance).unwrap();
    estimator.add(&images(dtype), network_of(schedule), noise(0)).unwrap();
    estimator.finish().unwrap()
}

fn means(bound: &Bound) -> Vec<f64> {
    let steps = bound.steps.iter().map(|step| step.bits_per_dim.mean);
    std::iter::once(bound.prior_bits_per_dim.mean).chain(steps).collect()
}

/// Compares the terms [N + 1][B] of each image, each from a separate bound, with the fixture. Then it compares their means
/// and standard errors. `reverse_variance` belongs to the entry `name` of the fixture.
fn compare(
    schedule: &NoiseSchedule,
    name: &str,
    reverse_variance: &ReverseVariance,
    dtype: DType,
    tolerance: f64,
) {
    let list_name = name.split('/').next().unwrap();
    let timesteps = list(schedule, &format!("timesteps/{list_name}"));
    let expected = tensor(&format!("terms/{name}"));
    let images = images(dtype);
    let count = images.dim(0).unwrap();
    for image in 0..count {
        let mut estimator = BoundEstimator::new(schedule, &timesteps, reverse_variance).unwrap();
        let alone = images.narrow(0, image, 1).unwrap();
        estimator.add(&alone, network_of(schedule), noise(image)).unwrap();
        let found = means(&estimator.finish().unwrap());
        let difference = largest_difference(&found, &values(&expected.narrow(1, image, 1).unwrap()));
        assert!(difference < tolerance, "{name} {dtype:?}, image {image}: {difference}");
    }
    let bound = bound(schedule, &timesteps, reverse_variance, dtype);
    assert_eq!(bound.images, count);
    let total = expected.sum(0).unwrap();
    let (expected_total, expected_terms) = (statistics(&values(&total)), expected.to_vec2::<f64>().unwrap());
    let steps = bound.steps.iter().map(|step| step.bits_per_dim);
    let estimates = [bound.total_bits_per_dim, bound.prior_bits_per_dim].into_iter().chain(steps);
    let expected = std::iter::once(expected_total).chain(expected_terms.iter().map(|term| statistics(term)));
    for (found, expected) in estimates.zip(expected) {
        let difference = largest_difference(&[found.mean, found.standard_error], &expected);
        assert!(difference < tolerance, "{name} {dtype:?}: {found:?} {expected:?}");
    }
}

/// Mean and standard error.
fn statistics(values: &[f64]) -> [f64; 2] {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    [mean, (squares / (n - 1.0) / n).sqrt()]
}

#[test]
fn every_term_of_every_image_is_that_of_numpy() {
    for (dtype, tolerance) in [(DType::F64, 1e-9), (DType::F32, 1e-5)] {
        for prediction in ["epsilon", "epsilon_clip", "sample", "v_prediction"] {
            let schedule = fixture_schedule(prediction, ReverseVariance::FixedSmall);
            let learned = fixture_schedule(prediction, ReverseVariance::LearnedRange);
            for name in ["all", "five", "one"] {
                let timesteps = list(&schedule, &format!("timesteps/{name}"));
                let mse = bound(&schedule, &timesteps, &ReverseVariance::FixedLarge, dtype).mse();
                let all_mse = values(&tensor(&format!("mse/{prediction}")));
                let expected: Vec<f64> = timesteps.indices().into_iter().map(|t| all_mse[t]).collect();
                assert!(largest_difference(&mse, &expected) < tolerance, "{name} {prediction} {dtype:?}");
                let optimal = optimal_variances(&timesteps, &mse).unwrap();
                let expected = values(&tensor(&format!("optimal/{name}/{prediction}")));
                assert!(largest_difference(&optimal, &expected) < tolerance, "{name} {prediction} {dtype:?}");
                for (variance, reverse_variance, schedule) in [
                    ("fixed_small", ReverseVariance::FixedSmall, &schedule),
                    ("fixed_large", ReverseVariance::FixedLarge, &schedule),
                    ("learned_range", ReverseVariance::LearnedRange, &learned),
                    ("optimal", ReverseVariance::PerStep(optimal), &schedule),
                ] {
                    compare(
                        schedule,
                        &format!("{name}/{prediction}/{variance}"),
                        &reverse_variance,
                        dtype,
                        tolerance,
                    );
                }
            }
        }
    }
}

#[test]
fn the_rate_distortion_curve_is_that_of_numpy() {
    let schedule = fixture_schedule("epsilon_clip", ReverseVariance::FixedSmall);
    let timesteps = Timesteps::all(&schedule);
    let curve = bound(&schedule, &timesteps, &ReverseVariance::FixedSmall, DType::F64).rate_distortion();
    let rate: Vec<f64> = curve.iter().map(|point| point.rate_bits_per_dim).collect();
    let distortion: Vec<f64> = curve.iter().map(|point| point.distortion_rmse).collect();
    assert!(largest_difference(&rate, &values(&tensor("rate_distortion/rate"))) < 1e-9);
    assert!(largest_difference(&distortion, &values(&tensor("rate_distortion/distortion"))) < 1e-9);
    assert_eq!((curve[0].t, curve[19].t), (19.0, 0.0));
}

#[test]
fn batches_may_be_of_any_size_and_shape() {
    let schedule = fixture_schedule("epsilon", ReverseVariance::LearnedRange);
    let timesteps = Timesteps::all(&schedule);
    let whole = bound(&schedule, &timesteps, &ReverseVariance::LearnedRange, DType::F64);
    let mut estimator = BoundEstimator::new(&schedule, &timesteps, &ReverseVariance::LearnedRange).unwrap();
    for (first, count) in [(0, 3), (3, 1)] {
        let part = images(DType::F64).narrow(0, first, count).unwrap().reshape((count, 2, 3, 2)).unwrap();
        let noise = noise(first);
        let noise = |x: &Tensor, noise_index: usize| noise(x, noise_index)?.reshape(x.shape());
        estimator.add(&part, network_of(&schedule), noise).unwrap();
    }
    let parts = estimator.finish().unwrap();
    assert!(largest_difference(&means(&parts), &means(&whole)) < 1e-12);
    assert!(largest_difference(&parts.mse(), &whole.mse()) < 1e-12);
    let error = |bound: &Bound| bound.total_bits_per_dim.standard_error;
    assert!((error(&parts) - error(&whole)).abs() < 1e-12 && error(&whole) > 1e-3);
}

#[test]
fn a_batch_that_fails_leaves_no_trace() {
    let schedule = fixture_schedule("sample", ReverseVariance::FixedSmall);
    let timesteps = Timesteps::all(&schedule);
    let mut estimator = BoundEstimator::new(&schedule, &timesteps, &ReverseVariance::FixedLarge).unwrap();
    assert!(matches!(estimator.finish(), Err(Error::NoImages)));
    let network = network_of(&schedule);
    let breaks = |x: &Tensor, timestep: Timestep| match timestep.index() {
        7 => Err(candle_core::Error::Msg("broken".into())),
        _ => network(x, timestep),
    };
    assert!(matches!(estimator.add(&images(DType::F64), breaks, noise(0)), Err(Error::Network(_))));
    assert!(matches!(estimator.finish(), Err(Error::NoImages)));
    estimator.add(&images(DType::F64), &network, noise(0)).unwrap();
    assert_eq!(
        estimator.finish().unwrap(),
        bound(&schedule, &timesteps, &ReverseVariance::FixedLarge, DType::F64)
    );
}

#[test]
fn what_has_no_finite_bound_is_refused() {
    let schedule = schedule(|_| {});
    let timesteps = Timesteps::explicit(&schedule, vec![19, 7]).unwrap();
    let refused = |timesteps: &Timesteps, reverse_variance| {
        BoundEstimator::new(&schedule, timesteps, &reverse_variance).unwrap_err()
    };
    assert!(matches!(refused(&timesteps, ReverseVariance::Zero), Error::NoVariance { position: 0 }));
    let zero = ReverseVariance::PerStep(vec![0.1, 0.0]);
    assert!(matches!(refused(&timesteps, zero), Error::NoVariance { position: 1 }));
    let few = ReverseVariance::PerStep(vec![0.1]);
    assert!(matches!(refused(&timesteps, few), Error::TableLength { found: 1, expected: 2, .. }));
    assert!(matches!(refused(&timesteps, ReverseVariance::LearnedRange), Error::NoLearnedVariance));
    let noisy = timesteps.clone().ending_at_sigma_min(&schedule);
    assert!(matches!(refused(&noisy, ReverseVariance::FixedLarge), Error::EndsBeforeXStart { .. }));
    let mut estimator = BoundEstimator::new(&schedule, &timesteps, &ReverseVariance::FixedLarge).unwrap();
    let between = (images(DType::F64) * 0.99).unwrap();
    assert!(matches!(estimator.add(&between, network_of(&schedule), noise(0)), Err(Error::Level { .. })));
}

/// The report is written as JSON, so its field names are part of the interface.
#[test]
fn the_report_names_its_units() {
    let schedule = fixture_schedule("sample", ReverseVariance::FixedSmall);
    let timesteps = Timesteps::explicit(&schedule, vec![19, 7]).unwrap();
    let bound = bound(&schedule, &timesteps, &ReverseVariance::FixedLarge, DType::F64);
    let json = serde_json::to_value(&bound).unwrap();
    assert_eq!(json["images"], 4);
    assert_eq!(json["total_bits_per_dim"]["mean"], bound.total_bits_per_dim.mean);
    assert_eq!(json["prior_bits_per_dim"]["standard_error"], bound.prior_bits_per_dim.standard_error);
    assert_eq!(json["steps"][1]["t"], 7.0);
    assert_eq!(json["steps"][1]["bits_per_dim"]["mean"], bound.steps[1].bits_per_dim.mean);
    let curve = serde_json::to_value(bound.rate_distortion()).unwrap();
    assert_eq!(curve[0]["rate_bits_per_dim"], bound.prior_bits_per_dim.mean);
    assert!(curve[0]["distortion_rmse"].as_f64().unwrap() > 1.0);
}

/// Each xₜ must have the distribution q(xₜ given x₀), and so must the receiver's estimates.
#[test]
fn progressive_decoding_visits_the_forward_process_and_ends_at_the_image() {
    let data = NormalData::new();
    let (schedule, timesteps) = (&data.schedule, Timesteps::all(&data.schedule));
    let (images, _) = data.images(0..8, 4096);
    let noise = |x: &Tensor, noise_index: usize| {
        CounterRng::new(4).normal_like(Purpose::SAMPLE_STEP, &(0..8).collect::<Vec<_>>(), noise_index, x)
    };
    let mut estimator = BoundEstimator::new(schedule, &timesteps, &ReverseVariance::FixedLarge).unwrap();
    estimator.add(&images, data.network(), noise).unwrap();
    let mse = estimator.finish().unwrap().mse();
    let (mut steps, mut last) = (0, None);
    let plan = progressive_decoding(schedule, &timesteps).unwrap();
    plan.sample_with(images.clone(), data.network(), noise, |run| {
        let step = run.step().unwrap();
        let sent: Vec<f64> = values(&(step.x_start - &images)?);
        let found = sent.iter().map(|x| x * x).sum::<f64>() / sent.len() as f64;
        // 32,768 values give a relative standard error of √(2/32768) = 0.8 % in each of the two.
        assert!((found / mse[step.index] - 1.0).abs() < 0.05, "{}: {found} {}", step.index, mse[step.index]);
        if let Some(next) = timesteps.as_slice().get(step.index + 1) {
            let alpha_cumprod = next.alpha_cumprod();
            let eps = values(&(step.x_t - (&images * alpha_cumprod.sqrt())?)?);
            let [mean, error] = statistics(&eps);
            let variance = error * error * eps.len() as f64 / (1.0 - alpha_cumprod);
            assert!(mean.abs() < 5.0 * error && (variance - 1.0).abs() < 0.04, "{mean} {variance}");
        }
        (steps, last) = (steps + 1, Some(step.x_t.clone()));
        Ok(())
    })
    .unwrap();
    assert_eq!((steps, values(&last.unwrap())), (20, values(&images)));
    let noisy = timesteps.ending_at_sigma_min(schedule);
    let refused = progressive_decoding(schedule, &noisy);
    assert!(matches!(refused, Err(Error::EndsBeforeXStart { .. })));
}
