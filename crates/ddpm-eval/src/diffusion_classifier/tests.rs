//! The classifier on normal distributions, with the optimal denoiser in closed form.

use std::sync::LazyLock;

use candle_core::Device;
use ddpm_core::{LossWeighting, NoiseScheduleConfig};

use super::*;

const SEED: u64 = 5;
const MEANS: [[f32; 3]; 2] = [[0.3, -0.2, 0.1], [-0.4, 0.1, 0.2]];
/// The standard deviation of each pixel, in both classes.
const DEVIATION: f64 = 0.5;

static SCHEDULE: LazyLock<NoiseSchedule> =
    LazyLock::new(|| NoiseSchedule::new(&NoiseScheduleConfig::mnist20()).unwrap());

fn schedule() -> &'static NoiseSchedule {
    &SCHEDULE
}

/// The gain of xₜ − √ᾱ m in the optimal prediction of x₀ ~ N(m, s²): s² √ᾱ / (s² ᾱ + 1 − ᾱ).
fn gain(t: usize) -> f64 {
    let (alpha_cumprod, variance) = (schedule().alphas_cumprod()[t], DEVIATION.powi(2));
    variance * alpha_cumprod.sqrt() / (variance * alpha_cumprod + 1.0 - alpha_cumprod)
}

/// The optimal denoiser for two classes, each a normal distribution around one of the means.
fn optimal_denoiser(x_t: &Tensor, t: &[usize], labels: &[u32]) -> Result<Tensor> {
    let mut predictions = Vec::new();
    let rows = x_t.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    for ((x_t, &t), &label) in rows.iter().zip(t).zip(labels) {
        let signal = schedule().alphas_cumprod()[t].sqrt();
        let predict = |(m, x): (f64, &f64)| m + gain(t) * (x - signal * m);
        predictions.extend(std::iter::zip(MEANS[label as usize].map(f64::from), x_t).map(predict));
    }
    Ok(Tensor::from_vec(predictions, x_t.shape(), x_t.device())?.to_dtype(x_t.dtype())?)
}

/// Images of alternating classes from the two distributions, [count, 3], and their indices.
fn images(count: usize) -> (Tensor, Vec<u64>) {
    let indices: Vec<u64> = (0..count as u64).collect();
    let normal =
        CounterRng::new(9).normal(Purpose::SAMPLE_START, &indices, 0, &[3], DType::F32, &Device::Cpu);
    let means: Vec<f32> = (0..count).flat_map(|image| MEANS[image % 2]).collect();
    let means = Tensor::from_vec(means, (count, 3), &Device::Cpu).unwrap();
    (((normal.unwrap() * DEVIATION).unwrap() + means).unwrap(), indices)
}

fn distances(image: &[f32]) -> [f64; 2] {
    MEANS.map(|mean| std::iter::zip(mean, image).map(|(m, x)| f64::from(m - x).powi(2)).sum())
}

/// The error is |(1 − g√ᾱ)(x₀ − m) − g√(1−ᾱ) ε|², with one ε for both classes.
#[test]
fn errors_are_those_of_the_closed_form_with_the_same_noise_for_each_class() {
    let (x_start, indices) = images(4);
    let classifier = DiffusionClassifier::new(schedule(), 2, 33, SEED).unwrap();
    let errors = classifier.errors(&x_start, &indices, optimal_denoiser).unwrap();
    assert_eq!(errors.errors.len(), 33 * 4 * 2);
    let mut found = errors.errors.iter();
    for (sample, &t) in classifier.timesteps.iter().enumerate() {
        let eps = CounterRng::new(SEED).normal_like(Purpose::EVALUATION, &indices, sample, &x_start);
        let (eps, alpha_cumprod) = (eps.unwrap().to_vec2::<f32>().unwrap(), schedule().alphas_cumprod()[t]);
        for (image, eps) in x_start.to_vec2::<f32>().unwrap().iter().zip(&eps) {
            for mean in MEANS {
                let residual = |i: usize| {
                    (1.0 - gain(t) * alpha_cumprod.sqrt()) * f64::from(image[i] - mean[i])
                        - gain(t) * (1.0 - alpha_cumprod).sqrt() * f64::from(eps[i])
                };
                let expected: f64 = (0..3).map(|i| residual(i).powi(2)).sum();
                let found = f64::from(*found.next().unwrap());
                assert!((found - expected).abs() < 1e-5, "noise sample {sample}: {found} {expected}");
            }
        }
    }
}

/// With equal variances, the optimal (Bayes) class is the class of the nearest mean. Its accuracy is
/// Φ(|m₁ − m₀| / 2s).
#[test]
fn the_classifier_agrees_with_bayes_on_two_normal_distributions() {
    let (x_start, indices) = images(1000);
    let bayes = |image: &Vec<f32>| {
        let [first, second] = distances(image);
        u8::from(second < first)
    };
    let bayes: Vec<u8> = x_start.to_vec2::<f32>().unwrap().iter().map(bayes).collect();
    let classifier = DiffusionClassifier::new(schedule(), 2, 400, SEED).unwrap();
    let errors = classifier.errors(&x_start, &indices, optimal_denoiser).unwrap();
    let agreement = |weight: ErrorWeighting, num_noise: usize| {
        let found = errors.classes(&weight.weights(schedule()).unwrap(), num_noise).unwrap();
        std::iter::zip(&bayes, found).filter(|(bayes, found)| *bayes == found).count()
    };
    // The variance of the estimate depends on the weighting, and so does the number of noise samples needed.
    for (weight, at_least) in [(ErrorWeighting::Bound, 870), (ErrorWeighting::BEST, 960)] {
        assert!(agreement(weight, 400) >= at_least, "{weight:?}: {}", agreement(weight, 400));
        assert!(agreement(weight, 20) < agreement(weight, 400), "{weight:?}: {}", agreement(weight, 20));
    }
    let correct = bayes.iter().enumerate().filter(|(image, class)| image % 2 == usize::from(**class)).count();
    assert!((755..=815).contains(&correct), "Φ(0.7937) is 0.786: {correct}");
}

#[test]
fn the_weight_decides_which_timesteps_count() {
    let x_start = Tensor::new(&[[0.0_f32]], &Device::Cpu).unwrap();
    let classifier = DiffusionClassifier::new(schedule(), 2, 20, SEED).unwrap();
    // Class 1 has the smaller error at t = 3 only.
    let model = |x_t: &Tensor, t: &[usize], labels: &[u32]| {
        let error = |(&t, &label): (&usize, &u32)| if (t == 3) == (label == 0) { 1.0_f32 } else { 0.5 };
        Ok(Tensor::from_vec(std::iter::zip(t, labels).map(error).collect(), x_t.shape(), x_t.device())?)
    };
    let errors = classifier.errors(&x_start, &[0], model).unwrap();
    let mut weights = vec![1.0; 20];
    assert_eq!(errors.classes(&weights, 20).unwrap(), [0]);
    weights[3] = 19.5;
    assert_eq!(errors.classes(&weights, 20).unwrap(), [1]);
}

#[test]
fn timesteps_are_spread_evenly_and_nested() {
    let timesteps = |schedule: &NoiseSchedule, num_noise| {
        DiffusionClassifier::new(schedule, 2, num_noise, SEED).unwrap().timesteps
    };
    let fifty = timesteps(schedule(), 50);
    for round in [&fifty[..20], &fifty[20..40]] {
        let mut sorted = round.to_vec();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..20));
    }
    let mut rest = fifty[40..].to_vec();
    rest.sort_unstable();
    assert!(rest.into_iter().eq((0..20).step_by(2)), "half a round is every second timestep");
    assert_eq!(timesteps(schedule(), 20), fifty[..20]);
    let long = NoiseSchedule::new(&NoiseScheduleConfig::ho2020()).unwrap();
    let mut twenty = timesteps(&long, 20);
    twenty.sort_unstable();
    twenty.push(1000);
    assert!(twenty.windows(2).all(|pair| pair[1] - pair[0] <= 64), "{twenty:?}");
}

#[test]
fn a_class_does_not_depend_on_the_batch_or_on_unused_noise_samples() {
    let (x_start, indices) = images(40);
    let weights = ErrorWeighting::BEST.weights(schedule()).unwrap();
    let found = |x_start: &Tensor, indices: &[u64], made, used| {
        let classifier = DiffusionClassifier::new(schedule(), 2, made, SEED).unwrap();
        classifier.errors(x_start, indices, optimal_denoiser).unwrap().classes(&weights, used).unwrap()
    };
    let together = found(&x_start, &indices, 50, 20);
    assert_eq!(found(&x_start, &indices, 20, 20), together);
    let alone: Vec<u8> =
        (0..40).flat_map(|i| found(&x_start.narrow(0, i, 1).unwrap(), &indices[i..=i], 20, 20)).collect();
    assert_eq!(alone, together);
    assert_ne!(found(&x_start, &indices, 50, 1), together, "one noise sample is not enough");
}

/// Σ c²/(2β̃) telescopes to half the difference between the first and the last signal-to-noise ratio.
#[test]
fn weights_equal_the_bound_and_the_losses() {
    let schedule = schedule();
    let snr: Vec<f64> = (0..20).map(|t| schedule.snr(t).unwrap()).collect();
    let bound = ErrorWeighting::Bound.weights(schedule).unwrap();
    assert_eq!(bound[0], 0.5 / schedule.posterior_variance()[1]);
    let sum: f64 = bound[1..].iter().sum();
    assert!((sum / (0.5 * (snr[0] - snr[19])) - 1.0).abs() < 1e-12, "{sum}");
    let loss_weights = |loss| ErrorWeighting::Loss(loss).weights(schedule).unwrap();
    assert_eq!(loss_weights(LossWeighting::Epsilon), snr);
    assert_eq!(loss_weights(LossWeighting::Sample), [1.0; 20]);
    assert!(
        std::iter::zip(loss_weights(LossWeighting::VPrediction), snr)
            .all(|(weight, snr)| weight == snr + 1.0)
    );
}

#[test]
fn invalid_arguments_are_refused() {
    let new = |classes, num_noise| DiffusionClassifier::new(schedule(), classes, num_noise, SEED);
    assert!(matches!(new(0, 20), Err(Error::NoClasses)));
    for found in [1, 257] {
        let error = new(found, 20).unwrap_err().to_string();
        assert_eq!(error, format!("number of classes of the model is {found}, expected 2 to 256"));
    }
    assert_eq!(new(2, 0).unwrap_err().to_string(), "num_noise is 0, expected at least 1");
    let (x_start, indices) = images(2);
    let errors = new(2, 3).unwrap().errors(&x_start, &indices, optimal_denoiser).unwrap();
    for num_noise in [0, 4] {
        let error = errors.classes(&[1.0; 20], num_noise).unwrap_err().to_string();
        assert_eq!(error, format!("num_noise is {num_noise}, expected 1 to 3"));
    }
    let error = errors.classes(&[1.0; 3], 3).unwrap_err().to_string();
    assert!(error.starts_with("timestep is ") && error.ends_with("expected below 3, the number of weights"));
    let nan = |x: &Tensor, _: &[usize], _: &[u32]| Ok((x * f64::NAN)?);
    assert!(matches!(new(2, 1).unwrap().errors(&x_start, &indices, nan), Err(Error::Prediction { t: 0 })));
    assert!(new(2, 1).unwrap().errors(&x_start, &indices[..1], optimal_denoiser).is_err());
}
