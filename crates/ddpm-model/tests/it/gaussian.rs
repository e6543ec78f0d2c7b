//! The Gaussian head: what it believes about x₀, by kernels and by tensors, against Bayes' rule in f64.

use std::collections::HashMap;

use candle_core::{DType, Tensor};
use ddpm_core::{NoiseMode, NoiseSchedule, PredictionType, Sampler, ScheduleConfig};
use ddpm_model::{Denoiser, DenoiserConfig, Error, Head, Network, SampleConfig, Steps};

use crate::{bits, images, small, small_mlp, small_patch_mlp, small_plain, weights, with_gaussian_head};

const SPREAD: [(&str, &str); 2] = [("spread.weight", "output.weight"), ("spread.bias", "output.bias")];

fn zero_snr() -> ScheduleConfig {
    ScheduleConfig {
        rescale_betas_zero_snr: true,
        prediction_type: PredictionType::Sample,
        ..ScheduleConfig::mnist20()
    }
}

/// Pixels that no panel divides, and one panel exactly.
fn configs() -> [DenoiserConfig; 5] {
    let odd = small(Network::Mlp { width: 45, hidden: 70, blocks: 2, embedding: 6 });
    let whole = DenoiserConfig { rows: 4, ..small_mlp() };
    let plain = DenoiserConfig { output_type: PredictionType::Sample, ..small_plain() };
    [small_mlp(), plain, odd, whole, small_patch_mlp()].map(|config| with_gaussian_head(&config))
}

fn exact(tensor: &Tensor) -> Tensor {
    tensor.to_dtype(DType::F64).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    exact(tensor).flatten_all().unwrap().to_vec1().unwrap()
}

/// m and u of a network in f64, by two networks of which they are all the output.
fn parts(
    config: &DenoiserConfig,
    schedule: &ScheduleConfig,
    weights: &HashMap<String, Tensor>,
    (x_t, t, labels): (&Tensor, &[usize], &[u32]),
) -> [Vec<f64>; 2] {
    let config = DenoiserConfig { head: Head::Direct, ..config.clone() };
    [false, true].map(|u| {
        let mut direct: HashMap<_, _> = weights.iter().map(|(name, w)| (name.clone(), exact(w))).collect();
        for (spread, output) in SPREAD {
            let spread = direct.remove(spread).unwrap();
            if u {
                direct.insert(output.to_owned(), spread);
            }
        }
        let denoiser = Denoiser::new(&config, schedule, direct).unwrap();
        values(&denoiser.forward(&exact(x_t), t, labels).unwrap())
    })
}

/// Mean and variance of x₀ given xₜ: the product of two normal densities of x₀, one around m with the precision
/// 1 + e⁻ᵘ, the other around xₜ/√ᾱ with the precision SNR. Written so that an SNR of 0 is no special case.
fn bayes(alpha_bar: f64, x_t: f64, m: f64, u: f64) -> [f64; 2] {
    let (prior, noise) = (1.0 + (-u).exp(), 1.0 - alpha_bar);
    let total = prior * noise + alpha_bar;
    [(prior * noise * m + alpha_bar.sqrt() * x_t) / total, noise / total]
}

/// The formulas as the documentation of `Head::Gaussian` has them.
fn documented(alpha_bar: f64, x_t: f64, m: f64, u: f64) -> [f64; 2] {
    let p = 1.0 / (1.0 + (1.0 - alpha_bar) * (-u).exp());
    [m + p * alpha_bar.sqrt() * (x_t - alpha_bar.sqrt() * m), (1.0 - alpha_bar) * p]
}

/// Compares the belief of kernels and of tensors with Bayes' rule, and returns all u.
fn check(
    config: &DenoiserConfig,
    schedule_config: &ScheduleConfig,
    weights: &HashMap<String, Tensor>,
    batch: usize,
) -> Vec<f64> {
    let schedule = NoiseSchedule::new(schedule_config).unwrap();
    let x_t = images(config, batch as u64);
    let t: Vec<usize> = (0..batch).map(|i| 19 - i * 7 % 20).collect();
    let labels: Vec<u32> = (0..batch as u32).map(|i| i * 5 % 6).collect();
    let [m, u] = parts(config, schedule_config, weights, (&x_t, &t, &labels));
    let double = weights.iter().map(|(name, w)| (name.clone(), exact(w))).collect();
    let tensors = Denoiser::new(config, schedule_config, double).unwrap();
    let kernels = Denoiser::new(config, schedule_config, weights.clone()).unwrap();
    let theirs = tensors.belief(&exact(&x_t), &t, &labels).unwrap();
    let ours = kernels.belief(&x_t, &t, &labels).unwrap();
    let output = kernels.forward(&x_t, &t, &labels).unwrap();
    let x = values(&x_t);
    for (belief, tolerance) in [(theirs, 1e-12), (ours, 1e-4)] {
        assert_eq!(belief.x_start.dims(), x_t.dims());
        assert_eq!(belief.variance.dims(), x_t.dims());
        let (means, variances) = (values(&belief.x_start), values(&belief.variance));
        for (i, (mean, variance)) in std::iter::zip(means, variances).enumerate() {
            let alpha_bar = schedule.alphas_cumprod()[t[i / config.pixels()]];
            for [x_start, expected] in [bayes, documented].map(|rule| rule(alpha_bar, x[i], m[i], u[i])) {
                let near = |a: f64, b: f64, scale: f64| (a - b).abs() < tolerance * scale;
                let at = format!("{:?}, {batch} images, number {i}, u {}", config.network, u[i]);
                assert!(near(mean, x_start, 1.0 + x_start.abs()), "{at}: mean {mean}, {x_start}");
                assert!(near(variance, expected, expected), "{at}: variance {variance}, {expected}");
            }
            // A unit in the last place of f32 may be lost to rounding.
            assert!(0.0 < variance && variance <= (1.0 - alpha_bar) * (1.0 + 1e-6), "{variance}");
        }
    }
    // What one samples from is m, untouched.
    for (found, m) in std::iter::zip(values(&output), m) {
        assert!((found - m).abs() < 1e-4 * (1.0 + m.abs()), "{found} {m}");
    }
    u
}

#[test]
fn the_belief_of_kernels_and_of_tensors_is_that_of_bayes() {
    for config in configs() {
        for schedule in [ScheduleConfig::mnist20(), zero_snr()] {
            for batch in [1, 2, 20, 117] {
                let u = check(&config, &schedule, &weights(&config, DType::F32), batch);
                let low = u.iter().copied().fold(f64::MAX, f64::min);
                let high = u.iter().copied().fold(f64::MIN, f64::max);
                assert!(low < -0.05 && high > 0.05, "u tells the pixels apart: {low} to {high}");
            }
        }
    }
}

/// Weights with the same u for all pixels.
fn with_constant_u(config: &DenoiserConfig, u: f64) -> HashMap<String, Tensor> {
    let mut weights = weights(config, DType::F32);
    for ((name, _), value) in std::iter::zip(SPREAD, [0.0, u]) {
        let constant = (weights[name].zeros_like().unwrap() + value).unwrap();
        weights.insert(name.to_owned(), constant);
    }
    weights
}

#[test]
fn the_belief_is_right_from_certainty_to_ignorance() {
    for config in configs() {
        for schedule in [ScheduleConfig::mnist20(), zero_snr()] {
            for u in [-60.0, -12.0, -2.0, 0.5, 8.0, 60.0] {
                check(&config, &schedule, &with_constant_u(&config, u), 20);
            }
        }
    }
}

/// Beyond what e⁻ᵘ can hold, and with no signal at all: certain of m, or the widest there is.
#[test]
fn no_spread_and_no_noise_level_gives_what_is_no_number() {
    for config in configs() {
        for schedule_config in [ScheduleConfig::mnist20(), zero_snr()] {
            let schedule = NoiseSchedule::new(&schedule_config).unwrap();
            let x_t = images(&config, 20);
            let (t, labels): (Vec<usize>, Vec<u32>) = (0..20).map(|i| (i, i as u32 % 6)).unzip();
            for u in [-1e30, -300.0, 300.0, 1e30] {
                let weights = with_constant_u(&config, u);
                let kernels = Denoiser::new(&config, &schedule_config, weights.clone()).unwrap();
                let double = weights.iter().map(|(name, w)| (name.clone(), exact(w))).collect();
                let tensors = Denoiser::new(&config, &schedule_config, double).unwrap();
                let [m, _] = parts(&config, &schedule_config, &weights, (&x_t, &t, &labels));
                let x = values(&x_t);
                for belief in [
                    kernels.belief(&x_t, &t, &labels).unwrap(),
                    tensors.belief(&exact(&x_t), &t, &labels).unwrap(),
                ] {
                    let (means, variances) = (values(&belief.x_start), values(&belief.variance));
                    for (i, (mean, variance)) in std::iter::zip(means, variances).enumerate() {
                        let alpha_bar = schedule.alphas_cumprod()[t[i / config.pixels()]];
                        let (expected, widest) = match u < 0.0 {
                            true => (m[i], 0.0),
                            false => (bayes(alpha_bar, x[i], m[i], u)[0], 1.0 - alpha_bar),
                        };
                        assert!((mean - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{u}: {mean}");
                        assert!((variance - widest).abs() < 1e-6, "{u}: {variance} {widest}");
                    }
                }
            }
        }
    }
}

/// [B, 2·pixels]: the belief, converted and guided as a prediction is, and the variance of the class.
#[test]
fn the_prediction_and_its_variance_are_those_of_the_belief() {
    for config in configs() {
        for to in [PredictionType::Epsilon, PredictionType::Sample, PredictionType::VPrediction] {
            let schedule = ScheduleConfig { prediction_type: to, ..ScheduleConfig::mnist20() };
            let denoiser = Denoiser::new(&config, &schedule, weights(&config, DType::F32)).unwrap();
            let (x_t, pixels) = (images(&config, 2), config.pixels());
            let [class, null] =
                [[1, 2], [5, 5]].map(|labels| denoiser.belief(&x_t, &[7, 7], &labels).unwrap());
            for guidance in [1.0, 0.0, 3.0] {
                let both = denoiser.predict_with_variance(&x_t, 7, &[1, 2], guidance).unwrap();
                assert_eq!(both.dims(), [2, 2 * pixels]);
                let (prediction, variance) =
                    (both.narrow(1, 0, pixels).unwrap(), both.narrow(1, pixels, pixels).unwrap());
                assert_eq!(bits(&variance), bits(&class.variance), "guidance {guidance}");
                let back = denoiser.schedule().convert(to, PredictionType::Sample, &prediction, &x_t, &[7]);
                let means = std::iter::zip(values(&null.x_start), values(&class.x_start));
                for (found, (null, class)) in std::iter::zip(values(&back.unwrap()), means) {
                    let expected = null + guidance * (class - null);
                    assert!((found - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{to:?} {guidance}");
                }
            }
        }
    }
}

/// At the real size, in blocks of images over several threads.
#[test]
fn the_belief_about_an_image_is_the_same_bits_alone_and_in_a_batch() {
    let config = with_gaussian_head(&DenoiserConfig::patch_mlp(28, 28, 10));
    let denoiser = Denoiser::new(&config, &ScheduleConfig::mnist20(), weights(&config, DType::F32)).unwrap();
    let batch = 117;
    let x_t = images(&config, batch as u64);
    let labels: Vec<u32> = (0..batch as u32).map(|i| i % 11).collect();
    let t: Vec<usize> = (0..batch).map(|i| i % 20).collect();
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| denoiser.belief(&x_t, &t, &labels).unwrap())
    };
    let (one, three) = (on(1), on(3));
    assert_eq!(bits(&one.x_start), bits(&three.x_start));
    assert_eq!(bits(&one.variance), bits(&three.variance));
    for i in [0, 13, batch - 1] {
        let x_t = x_t.narrow(0, i, 1).unwrap();
        let alone = denoiser.belief(&x_t, &t[i..=i], &labels[i..=i]).unwrap();
        assert_eq!(bits(&alone.x_start), bits(&three.x_start.narrow(0, i, 1).unwrap()), "image {i}");
        assert_eq!(bits(&alone.variance), bits(&three.variance.narrow(0, i, 1).unwrap()), "image {i}");
    }
}

fn learned(denoiser: &Denoiser) -> SampleConfig {
    SampleConfig {
        sampler: Sampler::Ddpm(NoiseMode::Learned),
        steps: Steps::Spaced(5),
        ..SampleConfig::ancestral(1, denoiser)
    }
}

#[test]
fn noise_as_learnt_samples_each_image_alone_as_with_others() {
    for schedule in [ScheduleConfig::mnist20(), zero_snr()] {
        let config = with_gaussian_head(&small_mlp());
        let denoiser = Denoiser::new(&config, &schedule, weights(&config, DType::F32)).unwrap();
        let sample = |images: &[u64], labels: &[u32]| {
            bits(&denoiser.sample(&learned(&denoiser), images, labels, |_| Ok(())).unwrap())
        };
        let together = sample(&[3, 4, 5], &[0, 1, 2]);
        assert_eq!(together[12..24], sample(&[4], &[1]));
        assert!(together.iter().all(|&bits| f32::from_bits(bits).is_finite()));
        let posterior = SampleConfig { sampler: Sampler::Ddpm(NoiseMode::Posterior), ..learned(&denoiser) };
        let posterior = bits(&denoiser.sample(&posterior, &[3, 4, 5], &[0, 1, 2], |_| Ok(())).unwrap());
        assert_ne!(together, posterior);
    }
}

#[test]
fn a_direct_head_has_no_variance() {
    let denoiser = crate::denoiser(&small_mlp());
    let x_t = images(&small_mlp(), 1);
    let failed = |error: Error| {
        assert!(error.to_string().contains("the variance of x₀"), "{error}");
    };
    failed(denoiser.belief(&x_t, &[3], &[0]).unwrap_err());
    failed(denoiser.predict_with_variance(&x_t, 3, &[0], 1.0).unwrap_err());
    failed(denoiser.sample(&learned(&denoiser), &[0], &[0], |_| Ok(())).unwrap_err());
    let (_, belief) = denoiser.forward_with_belief(&x_t, &[3], &[0]).unwrap();
    assert!(belief.is_none());
}

#[test]
fn bad_arguments_of_a_belief_are_refused() {
    let denoiser = crate::denoiser(&with_gaussian_head(&small_mlp()));
    let x_t = images(&small_mlp(), 2);
    let refused = |x_t: &Tensor, t: &[usize], labels: &[u32]| {
        let both = denoiser.forward_with_belief(x_t, t, labels).unwrap_err().to_string();
        let error = denoiser.belief(x_t, t, labels).unwrap_err();
        assert_eq!(error.to_string(), both);
        error
    };
    assert!(matches!(refused(&x_t, &[3], &[1, 2]), Error::TimestepCount { found: 1, batch: 2 }));
    assert!(matches!(refused(&x_t, &[3, 3], &[1]), Error::ClassCount { found: 1, batch: 2 }));
    assert!(matches!(refused(&x_t, &[3, 3], &[1, 6]), Error::Class { found: 6, last: 4 }));
    let range = refused(&x_t, &[3, 20], &[1, 2]);
    assert_eq!(range.to_string(), "timestep is 20, expected 0 to 19");
    let other = images(&DenoiserConfig { cols: 5, ..small_mlp() }, 2);
    assert!(matches!(refused(&other, &[3, 3], &[1, 2]), Error::Pixels { found: 15, expected: 12 }));
    let empty = denoiser.belief(&images(&small_mlp(), 0), &[], &[]).unwrap();
    assert_eq!((empty.x_start.dims(), empty.variance.dims()), (&[0, 12][..], &[0, 12][..]));
}
