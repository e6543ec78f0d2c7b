//! Normal data x₀ ~ N(μ, s²), whose likelihood is known. The optimal network is x̂₀ = E[x₀ given xₜ], which is affine in
//! xₜ. With the optimal variance a reverse step p(x_prev given xₜ) equals q(x_prev given xₜ). So for *any* list of
//! timesteps the bound is tight. Its only excess is that sampling starts from N(0, 1) instead of q(x_first).

use std::f64::consts::{E, LN_2, PI};
use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use ddpm_core::likelihood::{BoundEstimator, optimal_variances};
use ddpm_core::{
    CounterRng, NoiseSchedule, NoiseScheduleConfig, PredictionType, Purpose, ReverseVariance, Timestep,
    TimestepCosts, Timesteps,
};

use super::statistics;
use crate::{schedule, values};

const MEAN: f64 = 0.1;
const DEVIATION: f64 = 0.25;

pub(crate) struct NormalData {
    pub(crate) schedule: NoiseSchedule,
}

impl NormalData {
    pub(crate) fn new() -> Self {
        let schedule = schedule(|config| {
            config.prediction_type = PredictionType::Sample;
            config.clip_sample = false;
        });
        Self { schedule }
    }

    /// E[x₀ given xₜ].
    #[allow(clippy::unused_self, reason = "reads as the data's own")]
    pub(crate) fn network(&self) -> impl Fn(&Tensor, Timestep) -> candle_core::Result<Tensor> + use<> {
        |x_t, timestep| {
            let alpha_cumprod = timestep.alpha_cumprod();
            let gain = alpha_cumprod.sqrt() * DEVIATION.powi(2) / variance(alpha_cumprod);
            ((x_t - alpha_cumprod.sqrt() * MEAN)? * gain)? + MEAN
        }
    }

    /// Images of 8-bit levels [B, D], and −log₂ of the probability of each image in bits per dimension, computed from the
    /// distribution function of the data.
    #[allow(clippy::unused_self, reason = "reads as the data's own")]
    pub(crate) fn images(&self, images: Range<u64>, dimensions: usize) -> (Tensor, Vec<f64>) {
        let numbers: Vec<u64> = images.collect();
        let rng = CounterRng::new(21);
        let normal =
            rng.normal(Purpose::SAMPLE_START, &numbers, 0, &[dimensions], DType::F64, &Device::Cpu).unwrap();
        let levels: Vec<f64> = values(&normal)
            .into_iter()
            .map(|z| ((MEAN + DEVIATION * z + 1.0) * 127.5).round().clamp(0.0, 255.0))
            .collect();
        let cdf = |edge: f64| 0.5 * libm::erfc((MEAN - edge) / (DEVIATION * 2.0_f64.sqrt()));
        let bits = |level: f64| {
            let x = level / 127.5 - 1.0;
            let upper = if level == 255.0 { 1.0 } else { cdf(x + 1.0 / 255.0) };
            let lower = if level == 0.0 { 0.0 } else { cdf(x - 1.0 / 255.0) };
            -(upper - lower).log2()
        };
        let each = levels.chunks(dimensions);
        let exact = each.map(|image| image.iter().map(|&level| bits(level)).sum::<f64>() / dimensions as f64);
        let exact = exact.collect();
        let x_start = levels.iter().map(|level| level / 127.5 - 1.0).collect();
        (Tensor::from_vec(x_start, (numbers.len(), dimensions), &Device::Cpu).unwrap(), exact)
    }
}

/// The variance of q(xₜ).
fn variance(alpha_cumprod: f64) -> f64 {
    alpha_cumprod * DEVIATION.powi(2) + 1.0 - alpha_cumprod
}

/// The variance of q(x₀ given xₜ), which is the mean squared error of the optimal network.
fn mse(alpha_cumprod: f64) -> f64 {
    DEVIATION.powi(2) * (1.0 - alpha_cumprod) / variance(alpha_cumprod)
}

/// E log₂ q(x_first) − log₂ N(x_first; 0, 1) over q(x_first given x₀), given the means of x₀ and x₀².
fn start_excess(alpha_cumprod: f64, mean: f64, mean_square: f64) -> f64 {
    let v = variance(alpha_cumprod);
    let around = alpha_cumprod * (mean_square - 2.0 * mean * MEAN + MEAN * MEAN) + 1.0 - alpha_cumprod;
    0.5 * (alpha_cumprod * mean_square + 1.0 - alpha_cumprod - around / v - v.ln()) / LN_2
}

fn lists(schedule: &NoiseSchedule) -> Vec<Timesteps> {
    let explicit = |list: &[usize]| Timesteps::explicit(schedule, list.to_vec()).unwrap();
    vec![
        Timesteps::all(schedule),
        Timesteps::spaced(schedule, 5).unwrap(),
        explicit(&[19]),
        // At the first timestep the image is clearly visible, which makes the prior term large.
        explicit(&[10, 3]),
        // Noise levels between timesteps.
        Timesteps::karras(schedule, 7).unwrap(),
    ]
}

/// Compares the bound of each image, averaged over the noise, for several lists. The bins of the levels have almost no
/// effect if the noise of the last step is wider than a bin. Here it is 4 times as wide, which leaves an error of
/// ¼ (4²·12)⁻² = 7e-6 nats.
#[test]
fn with_the_best_network_and_variances_the_bound_is_the_likelihood() {
    let data = NormalData::new();
    let (images, exact) = data.images(0..24, 1024);
    for timesteps in lists(&data.schedule) {
        let levels = timesteps.as_slice();
        let mse: Vec<f64> = levels.iter().map(|level| mse(level.alpha_cumprod())).collect();
        let optimal = ReverseVariance::PerStep(optimal_variances(&timesteps, &mse).unwrap());
        // The excess of the bound of each image over its exact cost, with mean and standard error over images.
        let excess = |reverse_variance: &ReverseVariance| {
            let excess = exact.iter().enumerate().map(|(image, exact)| {
                let mut estimator =
                    BoundEstimator::new(&data.schedule, &timesteps, reverse_variance).unwrap();
                let x_start = images.narrow(0, image, 1).unwrap();
                let noise = |x: &Tensor, noise_index: usize| {
                    CounterRng::new(22).normal_like(Purpose::EVALUATION, &[image as u64], noise_index, x)
                };
                estimator.add(&x_start, data.network(), noise).unwrap();
                let x = values(&x_start);
                let mean = |f: fn(f64) -> f64| x.iter().map(|&x| f(x)).sum::<f64>() / x.len() as f64;
                let start = start_excess(levels[0].alpha_cumprod(), mean(|x| x), mean(|x| x * x));
                estimator.finish().unwrap().total_bits_per_dim.mean - exact - start
            });
            statistics(&excess.collect::<Vec<_>>())
        };
        let [mean, error] = excess(&optimal);
        assert!(
            mean.abs() < 4.0 * error + 1e-5 && error < 0.012,
            "{mean} ± {error}, {:?}",
            timesteps.indices()
        );
        for reverse_variance in [ReverseVariance::FixedLarge, ReverseVariance::FixedSmall] {
            let [fixed, error] = excess(&reverse_variance);
            // For a list of a single step both fixed variances are 1 − ᾱ. For any list they cost more.
            assert!(fixed > mean + 4.0 * error, "{reverse_variance:?}: {fixed} ± {error}, {mean}");
        }
    }
}

/// The same without images or bins, which makes it exact. For each n the cost of the best list is the entropy of the data
/// plus the mismatch of the start, which is smallest at the noisiest level.
#[test]
fn the_best_list_of_any_length_costs_the_entropy() {
    for config in [NoiseScheduleConfig::mnist20(), NoiseScheduleConfig::ho2020()] {
        let schedule = NoiseSchedule::new(&config).unwrap();
        let errors: Vec<f64> =
            schedule.alphas_cumprod().iter().map(|&alpha_cumprod| mse(alpha_cumprod)).collect();
        let entropy = |variance: f64| 0.5 * (2.0 * PI * E * variance).log2();
        let decoder = errors.iter().map(|&mse| entropy(mse)).collect();
        let mean_square = MEAN.powi(2) + DEVIATION.powi(2);
        let costs = TimestepCosts::new(errors, decoder, mean_square).unwrap();
        let last = schedule.alphas_cumprod()[schedule.num_train_timesteps() - 1];
        let exact = entropy(DEVIATION.powi(2)) + start_excess(last, MEAN, mean_square);
        for n in [1, 2, 5, 20] {
            let (timesteps, bits) = costs.best(&schedule, n).unwrap();
            assert!((bits - exact).abs() < 1e-10, "{n}: {bits} {exact}");
            assert_eq!((timesteps.len(), timesteps.first().index()), (n, schedule.num_train_timesteps() - 1));
        }
    }
}

/// Bao et al. 2022, theorem 1, with E‖∇ log q(xₜ)‖²/d = 1/Var(xₜ).
#[test]
fn optimal_variances_are_those_of_the_score() {
    let data = NormalData::new();
    for timesteps in lists(&data.schedule) {
        let levels: Vec<f64> = timesteps.as_slice().iter().map(|level| level.alpha_cumprod()).collect();
        let errors: Vec<f64> = levels.iter().map(|&level| mse(level)).collect();
        let found = optimal_variances(&timesteps, &errors).unwrap();
        for (i, (&found, &alpha_cumprod)) in std::iter::zip(&found, &levels).enumerate() {
            let prev = levels.get(i + 1).copied().unwrap_or(1.0);
            let (alpha, noise, gamma) =
                (alpha_cumprod / prev, 1.0 - alpha_cumprod, 1.0 / variance(alpha_cumprod));
            let posterior = (1.0 - prev) / noise * (1.0 - alpha);
            let factor = (noise / alpha).sqrt() - (1.0 - prev - posterior).sqrt();
            let by_score = posterior + factor.powi(2) * (1.0 - noise * gamma);
            assert!((found / by_score - 1.0).abs() < 1e-9, "{i}: {found} {by_score}");
            // Theorem 2, which requires data in [−1, 1]. This data is almost always in that range.
            let c = prev.sqrt() * (1.0 - alpha) / noise;
            assert!(posterior <= found && found <= posterior + c * c, "{i}: {found}");
        }
    }
}

/// About 95 of a hundred intervals, each from 200 images, contain the mean of 20,000 images (92 to 98 within 1.5 σ). Their
/// widths are √100 times the width of the interval from all images.
#[test]
fn intervals_cover_the_value() {
    let data = NormalData::new();
    let timesteps = Timesteps::spaced(&data.schedule, 5).unwrap();
    let estimator = || BoundEstimator::new(&data.schedule, &timesteps, &ReverseVariance::FixedLarge).unwrap();
    let (mut all, mut intervals, mut widths) = (estimator(), Vec::new(), 0.0);
    for part in 0..100_u64 {
        let numbers: Vec<u64> = (200 * part..200 * (part + 1)).collect();
        let (images, _) = data.images(numbers[0]..numbers[0] + 200, 4);
        let noise = |x: &Tensor, noise_index: usize| {
            CounterRng::new(23).normal_like(Purpose::EVALUATION, &numbers, noise_index, x)
        };
        let mut few = estimator();
        few.add(&images, data.network(), noise).unwrap();
        all.add(&images, data.network(), noise).unwrap();
        let total = few.finish().unwrap().total_bits_per_dim;
        intervals.push(total.interval());
        widths += total.standard_error / 100.0;
    }
    let bound = all.finish().unwrap();
    let total = bound.total_bits_per_dim;
    let covered = intervals.iter().filter(|(low, high)| (*low..=*high).contains(&total.mean)).count();
    assert!((88..100).contains(&covered), "{covered} of 100");
    assert!((widths / total.standard_error / 10.0 - 1.0).abs() < 0.05, "{widths} {}", total.standard_error);
    let terms: f64 = bound.steps.iter().map(|step| step.bits_per_dim.mean).sum();
    assert!((total.mean - terms - bound.prior_bits_per_dim.mean).abs() < 1e-12);
    assert_eq!(bound.images, 20_000);
}
