//! `NoiseMode::Learned`: the variance of x₀ from the network, held to data for which all is known.

use candle_core::{DType, Device, Tensor};
use ddpm_core::{
    AddressedRng, Error, NoiseMode, NoiseSchedule, PredictionType, Purpose, Result, Timestep, Timesteps,
    VarianceType, likelihood::BoundEstimator, sampler,
};

use crate::{largest_difference, schedule, values};

/// The standard deviation of normal data with mean 0.
const DEVIATION: f64 = 0.4;
const NUMBERS: usize = 400_000;

fn exact_schedule() -> NoiseSchedule {
    schedule(|config| {
        config.prediction_type = PredictionType::Sample;
        config.clip_sample = false;
    })
}

/// The mean and the variance of x₀ given xₜ, beside each other.
fn posterior(x_t: &Tensor, timestep: Timestep) -> candle_core::Result<Tensor> {
    let (alpha_bar, prior) = (timestep.alpha_cumprod(), DEVIATION * DEVIATION);
    let total = alpha_bar * prior + 1.0 - alpha_bar;
    let mean = (x_t * (alpha_bar.sqrt() * prior / total))?;
    let variance = (x_t.zeros_like()? + prior * (1.0 - alpha_bar) / total)?;
    Tensor::cat(&[mean, variance], 1)
}

/// The variances of xₜ after each step, from x_T as the forward process leaves it.
fn variances(mode: &NoiseMode, steps: usize) -> Vec<(f64, f64)> {
    let schedule = exact_schedule();
    let timesteps = Timesteps::spaced(&schedule, steps).unwrap();
    let rng = AddressedRng::new(3);
    let normal =
        |purpose, draw| rng.normal(purpose, &[0], draw, &[NUMBERS], DType::F64, &Device::Cpu).unwrap();
    let first = schedule.alphas_cumprod()[19];
    let scale = (first * DEVIATION * DEVIATION + 1.0 - first).sqrt();
    let start = (normal(Purpose::SAMPLE_START, 0) * scale).unwrap();
    let mut found = Vec::new();
    let mut left: Vec<f64> =
        timesteps.indices().iter().skip(1).map(|&t| schedule.alphas_cumprod()[t]).collect();
    left.reverse();
    let model = |x_t: &Tensor, timestep: Timestep| match mode {
        NoiseMode::Learned => posterior(x_t, timestep),
        _ => posterior(x_t, timestep)?.narrow(1, 0, NUMBERS),
    };
    let noise = |_: &Tensor, draw: usize| Ok(normal(Purpose::SAMPLE_STEP, draw));
    sampler::ddpm(&schedule, &timesteps, mode, start, model, noise, |step| {
        if let Some(alpha_bar) = left.pop() {
            let variance = step.x_t.sqr()?.mean_all()?.to_scalar::<f64>()?;
            found.push((variance, alpha_bar * DEVIATION * DEVIATION + 1.0 - alpha_bar));
        }
        Ok(())
    })
    .unwrap();
    found
}

/// Its noise makes up for what the mean leaves out, however long the steps; the posterior's does not.
#[test]
fn normal_data_keep_their_variance_in_few_long_steps() {
    let learned = variances(&NoiseMode::Learned, 4);
    assert_eq!(learned.len(), 3);
    for (found, expected) in learned {
        // The standard error is 0.0022 of it.
        assert!((found / expected - 1.0).abs() < 0.01, "{found} {expected}");
    }
    let fixed = variances(&NoiseMode::Posterior, 4);
    assert!(fixed.iter().any(|(found, expected)| found / expected < 0.9), "{fixed:?}");
}

#[test]
fn a_network_that_is_sure_gets_the_noise_of_the_posterior() {
    let schedule = exact_schedule();
    let timesteps = Timesteps::all(&schedule);
    let rng = AddressedRng::new(1);
    let sample = |mode: &NoiseMode| {
        let start = rng.normal(Purpose::SAMPLE_START, &[5], 0, &[30], DType::F64, &Device::Cpu).unwrap();
        let model = |x_t: &Tensor, _| match mode {
            NoiseMode::Learned => Tensor::cat(&[x_t.tanh()?, x_t.zeros_like()?], 1),
            _ => x_t.tanh(),
        };
        let noise = |x_t: &Tensor, draw: usize| rng.normal_like(Purpose::SAMPLE_STEP, &[5], draw, x_t);
        let image = sampler::ddpm(&schedule, &timesteps, mode, start, model, noise, |_| Ok(())).unwrap();
        image.flatten_all().unwrap().to_vec1::<f64>().unwrap()
    };
    for (a, b) in std::iter::zip(sample(&NoiseMode::Learned), sample(&NoiseMode::Posterior)) {
        assert!((a - b).abs() < 1e-12, "{a} {b}");
    }
}

/// Pixels of ±1 about which the network knows nothing: its mean is 0 and its variance 1, both right, so each step
/// costs ½ log₂(1 + SNR(prev) − SNR(t)) bits.
#[test]
fn the_bound_of_black_and_white_is_known() {
    let schedule = exact_schedule();
    let timesteps = Timesteps::all(&schedule);
    let mut bound = BoundEstimator::new(&schedule, &timesteps, &NoiseMode::Learned).unwrap();
    let x_start = Tensor::new(&[[1.0, -1.0, 1.0, 1.0], [-1.0, 1.0, -1.0, -1.0]], &Device::Cpu).unwrap();
    let know_nothing = |x_t: &Tensor, _| Tensor::cat(&[x_t.zeros_like()?, x_t.ones_like()?], 1);
    let rng = AddressedRng::new(1);
    let noise = |x: &Tensor, draw: usize| rng.normal_like(Purpose::EVALUATION, &[0, 1], draw, x);
    bound.add(&x_start, know_nothing, noise).unwrap();
    let bound = bound.finish().unwrap();
    let snr: Vec<f64> = schedule.alphas_cumprod().iter().map(|a| a / (1.0 - a)).collect();
    for (step, t) in std::iter::zip(&bound.steps, (1..20).rev()) {
        let expected = 0.5 * (1.0 + snr[t - 1] - snr[t]).log2();
        let found = step.bits_per_dim.mean;
        assert!((found - expected).abs() < 1e-12 * expected.max(1.0), "t {t}: {found} {expected}");
    }
    // The decoder: beyond 1 − 1/255 of a standard normal variable, Φ(−0.99608) = 0.15960.
    let decoder = bound.steps[19].bits_per_dim.mean;
    assert!((decoder - -0.159_606_f64.log2()).abs() < 1e-4, "{decoder}");
}

/// A mean and a variance of their own for each pixel.
fn uneven(x_t: &Tensor, timestep: Timestep) -> candle_core::Result<Tensor> {
    let variance = (((x_t * 3.0)?.sin()? * 0.4)? + 0.5)?.affine(1.0 - timestep.alpha_cumprod(), 0.02)?;
    Tensor::cat(&[crate::network(x_t, timestep)?, variance], 1)
}

/// β̃, the factors of x₀ and of xₜ, from the definitions.
fn reverse(alpha_bar: f64, prev: f64) -> [f64; 3] {
    let (alpha, noise) = (alpha_bar / prev, 1.0 - alpha_bar);
    let beta = 1.0 - alpha;
    [beta * (1.0 - prev) / noise, prev.sqrt() * beta / noise, alpha.sqrt() * (1.0 - prev) / noise]
}

#[test]
fn each_pixel_gets_noise_of_its_own_variance() {
    let schedule = exact_schedule();
    let timesteps = Timesteps::explicit(&schedule, vec![18, 11, 4]).unwrap();
    let rng = AddressedRng::new(7);
    let normal = |draw| rng.normal(Purpose::SAMPLE_STEP, &[0], draw, &[9], DType::F64, &Device::Cpu).unwrap();
    for dtype in [DType::F64, DType::F32] {
        let (mut x_t, mut found) = (values(&normal(9)), Vec::new());
        let start = normal(9).to_dtype(dtype).unwrap();
        let noise = |_: &Tensor, draw: usize| Ok(normal(draw).to_dtype(dtype)?);
        let mode = NoiseMode::Learned;
        sampler::ddpm(&schedule, &timesteps, &mode, start, uneven, noise, |step| {
            found.push(values(step.x_t));
            Ok(())
        })
        .unwrap();
        let levels: Vec<f64> = timesteps.as_slice().iter().map(|level| level.alpha_cumprod()).collect();
        for (step, level) in timesteps.as_slice().iter().enumerate() {
            let prev = levels.get(step + 1).copied().unwrap_or(1.0);
            let [small, of_x_start, of_x_t] = reverse(level.alpha_cumprod(), prev);
            let said = Tensor::from_slice(&x_t, (1, 9), &Device::Cpu).unwrap();
            let said = values(&uneven(&said, *level).unwrap());
            let noise = values(&normal(level.index()));
            for i in 0..9 {
                // The last step lands on the mean.
                let variance = small + of_x_start.powi(2) * said[9 + i];
                let added = if prev == 1.0 { 0.0 } else { variance.sqrt() * noise[i] };
                x_t[i] = of_x_start * said[i] + of_x_t * x_t[i] + added;
            }
            let tolerance = if dtype == DType::F64 { 1e-12 } else { 1e-5 };
            assert!(largest_difference(&found[step], &x_t) < tolerance, "{dtype:?} step {step}");
        }
        assert_eq!(found.len(), 3);
    }
}

/// KL(N(μ̃, β̃) ‖ N(μ, β̃ + c² Var x₀)) from the means and variances themselves, pixel by pixel; at the end the mass of
/// a level's bin under N(x̂₀, Var x₀).
#[test]
fn the_bound_of_uneven_pixels_is_the_divergence_of_each() {
    let schedule = exact_schedule();
    let grey = [0.0, 40.0, 127.0, 128.0, 200.0, 255.0, 3.0, 255.0, 90.0, 254.0].map(|g| g / 127.5 - 1.0);
    let x_start = Tensor::from_slice(&grey, (2, 5), &Device::Cpu).unwrap();
    let rng = AddressedRng::new(8);
    let noise_of = |x: &Tensor, draw: usize| rng.normal_like(Purpose::EVALUATION, &[0, 1], draw, x);
    for list in [(0..20).rev().collect(), vec![19, 12, 5, 1], vec![9]] {
        let timesteps = Timesteps::explicit(&schedule, list).unwrap();
        for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 1e-4)] {
            let mut estimator = BoundEstimator::new(&schedule, &timesteps, &NoiseMode::Learned).unwrap();
            let rounded = |x: &Tensor, draw: usize| Ok(noise_of(&x_start, draw)?.to_dtype(x.dtype())?);
            estimator.add(&x_start.to_dtype(dtype).unwrap(), uneven, rounded).unwrap();
            let bound = estimator.finish().unwrap();
            assert_eq!(bound.steps.len(), timesteps.len());
            for (step, level) in timesteps.as_slice().iter().enumerate() {
                let alpha_bar = level.alpha_cumprod();
                let next = timesteps.as_slice().get(step + 1);
                let draw = level.index();
                let x_t = level.q_sample(&x_start, &noise_of(&x_start, draw).unwrap()).unwrap();
                let said: Vec<Vec<f64>> = uneven(&x_t, *level).unwrap().to_vec2().unwrap();
                let x_t = values(&x_t);
                let bits = (0..10).map(|i| {
                    let (mean, variance) = (said[i / 5][i % 5], said[i / 5][5 + i % 5]);
                    let Some(next) = next else {
                        let cdf = |edge: f64| 0.5 * libm::erfc((mean - edge) / (2.0 * variance).sqrt());
                        let upper = if grey[i] == 1.0 { 1.0 } else { cdf(grey[i] + 1.0 / 255.0) };
                        let lower = if grey[i] == -1.0 { 0.0 } else { cdf(grey[i] - 1.0 / 255.0) };
                        return -(upper - lower).log2();
                    };
                    let [small, of_x_start, of_x_t] = reverse(alpha_bar, next.alpha_cumprod());
                    let (exact, found) =
                        (of_x_start * grey[i] + of_x_t * x_t[i], of_x_start * mean + of_x_t * x_t[i]);
                    let large = small + of_x_start.powi(2) * variance;
                    let nats = (large / small).ln() + (small + (exact - found).powi(2)) / large - 1.0;
                    0.5 * nats * std::f64::consts::LOG2_E
                });
                let (expected, found) = (bits.sum::<f64>() / 10.0, bound.steps[step].bits_per_dim.mean);
                let at = format!("{dtype:?} step {step} of {}", timesteps.len());
                assert!((found - expected).abs() < tolerance * (1.0 + expected), "{at}: {found} {expected}");
            }
        }
    }
}

#[test]
fn where_it_does_not_fit_it_is_refused() {
    let learned_range = schedule(|config| config.variance_type = VarianceType::LearnedRange);
    let timesteps = Timesteps::all(&learned_range);
    let refused = BoundEstimator::new(&learned_range, &timesteps, &NoiseMode::Learned);
    assert!(matches!(refused, Err(Error::NoLearnedVariance)));
    let start = Tensor::zeros((1, 3), DType::F64, &Device::Cpu).unwrap();
    let never = |_: &Tensor, _| -> candle_core::Result<Tensor> { panic!("refused before it is asked") };
    let no_noise = |x: &Tensor, _| Ok(x.zeros_like()?);
    let mode = NoiseMode::Learned;
    let refused = sampler::ddpm(&learned_range, &timesteps, &mode, start, never, no_noise, |_| Ok(()));
    assert!(matches!(refused, Err(Error::NoLearnedVariance)));

    let schedule = exact_schedule();
    let x = Tensor::zeros((1, 3), DType::F64, &Device::Cpu).unwrap();
    let noise = |x: &Tensor, _| -> Result<Tensor> { Ok(x.zeros_like()?) };
    let one_width = |x_t: &Tensor, _| Ok(x_t.clone());
    let mode = NoiseMode::Learned;
    let failed = sampler::ddpm(&schedule, &timesteps, &mode, x, one_width, noise, |_| Ok(())).unwrap_err();
    assert!(failed.to_string().contains("twice the width"), "{failed}");
    let mut bound = BoundEstimator::new(&schedule, &timesteps, &NoiseMode::Learned).unwrap();
    let x_start = Tensor::ones((1, 3), DType::F64, &Device::Cpu).unwrap();
    let failed = bound.add(&x_start, one_width, noise).unwrap_err();
    assert!(failed.to_string().contains("twice the width"), "{failed}");
    assert!(matches!(bound.finish(), Err(Error::NoImages)));
}
