//! The classifier on distributions that are known.

use std::sync::LazyLock;

use candle_core::Device;
use ddpm_core::NoiseScheduleConfig;

use super::*;

const SEED: u64 = 5;
const MEANS: [[f32; 3]; 2] = [[0.3, -0.2, 0.1], [-0.4, 0.1, 0.2]];
/// The standard deviation of each pixel in either class.
const DEVIATION: f64 = 0.5;

static SCHEDULE: LazyLock<NoiseSchedule> =
    LazyLock::new(|| NoiseSchedule::new(&NoiseScheduleConfig::mnist20()).unwrap());

fn schedule() -> &'static NoiseSchedule {
    &SCHEDULE
}

/// The factor of xₜ − √ᾱ m in the best prediction of x₀ ~ N(m, s²): s² √ᾱ / (s² ᾱ + 1 − ᾱ).
fn gain(t: usize) -> f64 {
    let (alpha_cumprod, variance) = (schedule().alphas_cumprod()[t], DEVIATION.powi(2));
    variance * alpha_cumprod.sqrt() / (variance * alpha_cumprod + 1.0 - alpha_cumprod)
}

/// The best denoiser for two classes, each a normal distribution about one of the means.
fn best(x_t: &Tensor, t: &[usize], labels: &[u32]) -> Result<Tensor> {
    let mut predictions = Vec::new();
    let rows = x_t.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    for ((x_t, &t), &label) in rows.iter().zip(t).zip(labels) {
        let signal = schedule().alphas_cumprod()[t].sqrt();
        let pull = |(m, x): (f64, &f64)| m + gain(t) * (x - signal * m);
        predictions.extend(std::iter::zip(MEANS[label as usize].map(f64::from), x_t).map(pull));
    }
    Ok(Tensor::from_vec(predictions, x_t.shape(), x_t.device())?.to_dtype(x_t.dtype())?)
}

/// Images of alternating classes from the two distributions, [count, 3], and their numbers.
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
    let errors = classifier.errors(&x_start, &indices, best).unwrap();
    assert_eq!(errors.errors.len(), 33 * 4 * 2);
    let mut found = errors.errors.iter();
    for (noise_index, &t) in classifier.timesteps().iter().enumerate() {
        let eps = CounterRng::new(SEED).normal_like(Purpose::EVALUATION, &indices, noise_index, &x_start);
        let (eps, alpha_cumprod) = (eps.unwrap().to_vec2::<f32>().unwrap(), schedule().alphas_cumprod()[t]);
        for (image, eps) in x_start.to_vec2::<f32>().unwrap().iter().zip(&eps) {
            for mean in MEANS {
                let residual = |i: usize| {
                    (1.0 - gain(t) * alpha_cumprod.sqrt()) * f64::from(image[i] - mean[i])
                        - gain(t) * (1.0 - alpha_cumprod).sqrt() * f64::from(eps[i])
                };
                let expected: f64 = (0..3).map(|i| residual(i).powi(2)).sum();
                let found = f64::from(*found.next().unwrap());
                assert!((found - expected).abs() < 1e-5, "noise_index {noise_index}: {found} {expected}");
            }
        }
    }
}

/// Bayes' rule for equal variances is the nearest mean, and its accuracy Φ(|m₁ − m₀| / 2s).
#[test]
fn two_normal_distributions_are_told_apart_as_by_bayes() {
    let (x_start, indices) = images(1000);
    let bayes = |image: &Vec<f32>| {
        let [first, second] = distances(image);
        u8::from(second < first)
    };
    let bayes: Vec<u8> = x_start.to_vec2::<f32>().unwrap().iter().map(bayes).collect();
    let classifier = DiffusionClassifier::new(schedule(), 2, 400, SEED).unwrap();
    let errors = classifier.errors(&x_start, &indices, best).unwrap();
    let agreement = |weight: ErrorWeight, draws: usize| {
        let found = errors.classes(&weight.over_timesteps(schedule()).unwrap(), draws).unwrap();
        std::iter::zip(&bayes, found).filter(|(bayes, found)| *bayes == found).count()
    };
    // Draws differ where the noise is much of the error, so the weight decides how many are needed.
    for (weight, least) in [(ErrorWeight::Bound, 870), (ErrorWeight::BEST, 960)] {
        assert!(agreement(weight, 400) >= least, "{weight:?}: {}", agreement(weight, 400));
        assert!(agreement(weight, 20) < agreement(weight, 400), "{weight:?}: {}", agreement(weight, 20));
    }
    let right = bayes.iter().enumerate().filter(|(image, class)| image % 2 == usize::from(**class)).count();
    assert!((755..=815).contains(&right), "Φ(0.7937) is 0.786: {right}");
}

#[test]
fn the_weight_decides_which_timesteps_count() {
    let x_start = Tensor::new(&[[0.0_f32]], &Device::Cpu).unwrap();
    let classifier = DiffusionClassifier::new(schedule(), 2, 20, SEED).unwrap();
    // The second class is better at t = 3 alone.
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
fn draws_are_even_and_nested() {
    let timesteps = |schedule: &NoiseSchedule, draws| {
        DiffusionClassifier::new(schedule, 2, draws, SEED).unwrap().timesteps().to_vec()
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
    let mut few = timesteps(&long, 20);
    few.sort_unstable();
    few.push(1000);
    assert!(few.windows(2).all(|pair| pair[1] - pair[0] <= 64), "{few:?}");
}

#[test]
fn an_image_has_the_same_class_alone_and_with_fewer_draws_made() {
    let (x_start, indices) = images(40);
    let weights = ErrorWeight::BEST.over_timesteps(schedule()).unwrap();
    let found = |x_start: &Tensor, indices: &[u64], made, draws| {
        let classifier = DiffusionClassifier::new(schedule(), 2, made, SEED).unwrap();
        classifier.errors(x_start, indices, best).unwrap().classes(&weights, draws).unwrap()
    };
    let together = found(&x_start, &indices, 50, 20);
    assert_eq!(found(&x_start, &indices, 20, 20), together);
    let alone: Vec<u8> =
        (0..40).flat_map(|i| found(&x_start.narrow(0, i, 1).unwrap(), &indices[i..=i], 20, 20)).collect();
    assert_eq!(alone, together);
    assert_ne!(found(&x_start, &indices, 50, 1), together, "the draws matter");
}

/// Σ c²/(2β̃) telescopes to half the difference of the signal-to-noise ratios.
#[test]
fn weights_are_those_of_the_bound_and_of_the_losses() {
    let schedule = schedule();
    let snr: Vec<f64> = (0..20).map(|t| schedule.snr(t).unwrap()).collect();
    let bound = ErrorWeight::Bound.over_timesteps(schedule).unwrap();
    assert_eq!(bound[0], 0.5 / schedule.posterior_variance()[1]);
    let sum: f64 = bound[1..].iter().sum();
    assert!((sum / (0.5 * (snr[0] - snr[19])) - 1.0).abs() < 1e-12, "{sum}");
    let space = |loss| ErrorWeight::Space(loss).over_timesteps(schedule).unwrap();
    assert_eq!(space(LossWeighting::Epsilon), snr);
    assert_eq!(space(LossWeighting::Sample), [1.0; 20]);
    assert!(std::iter::zip(space(LossWeighting::VPrediction), snr).all(|(weight, snr)| weight == snr + 1.0));
}

#[test]
fn what_cannot_be_classified_is_refused() {
    let new = |classes, draws| DiffusionClassifier::new(schedule(), classes, draws, SEED);
    for found in [0, 1, 257] {
        assert!(matches!(new(found, 20), Err(Error::ModelClasses { found: f }) if f == found));
    }
    assert!(matches!(new(2, 0), Err(Error::Draws { found: 0, largest: None })));
    let (x_start, indices) = images(2);
    let errors = new(2, 3).unwrap().errors(&x_start, &indices, best).unwrap();
    for draws in [0, 4] {
        assert!(matches!(errors.classes(&[1.0; 20], draws), Err(Error::Draws { largest: Some(3), .. })));
    }
    assert!(matches!(errors.classes(&[1.0; 3], 3), Err(Error::Core(_))));
    let nan = |x: &Tensor, _: &[usize], _: &[u32]| Ok((x * f64::NAN)?);
    assert!(matches!(new(2, 1).unwrap().errors(&x_start, &indices, nan), Err(Error::Prediction { t: 0 })));
    assert!(new(2, 1).unwrap().errors(&x_start, &indices[..1], best).is_err());
}
