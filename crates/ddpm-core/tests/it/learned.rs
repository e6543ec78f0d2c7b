//! `NoiseMode::Learned`: the variance of x₀ from the network, held to data for which all is known.

use candle_core::{DType, Device, Tensor};
use ddpm_core::{
    AddressedRng, Error, NoiseMode, NoiseSchedule, PredictionType, Purpose, Result, Timestep, Timesteps,
    VarianceType, likelihood::BoundEstimator, sampler,
};

use crate::schedule;

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
    let start = (normal(Purpose::SampleStart, 0) * scale).unwrap();
    let mut found = Vec::new();
    let mut left: Vec<f64> =
        timesteps.indices().iter().skip(1).map(|&t| schedule.alphas_cumprod()[t]).collect();
    left.reverse();
    let model = |x_t: &Tensor, timestep: Timestep| match mode {
        NoiseMode::Learned => posterior(x_t, timestep),
        _ => posterior(x_t, timestep)?.narrow(1, 0, NUMBERS),
    };
    let noise = |_: &Tensor, draw: usize| Ok(normal(Purpose::SampleStep, draw));
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
        let start = rng.normal(Purpose::SampleStart, &[5], 0, &[30], DType::F64, &Device::Cpu).unwrap();
        let model = |x_t: &Tensor, _| match mode {
            NoiseMode::Learned => Tensor::cat(&[x_t.tanh()?, x_t.zeros_like()?], 1),
            _ => x_t.tanh(),
        };
        let noise = |x_t: &Tensor, draw: usize| rng.normal_like(Purpose::SampleStep, &[5], draw, x_t);
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
    let noise = |x: &Tensor, draw: usize| rng.normal_like(Purpose::Evaluation, &[0, 1], draw, x);
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

#[test]
fn where_it_does_not_fit_it_is_refused() {
    let learned_range = schedule(|config| config.variance_type = VarianceType::LearnedRange);
    let timesteps = Timesteps::all(&learned_range);
    let refused = BoundEstimator::new(&learned_range, &timesteps, &NoiseMode::Learned);
    assert!(matches!(refused, Err(Error::NoLearnedVariance)));

    let schedule = exact_schedule();
    let x = Tensor::zeros((1, 3), DType::F64, &Device::Cpu).unwrap();
    let noise = |x: &Tensor, _| -> Result<Tensor> { Ok(x.zeros_like()?) };
    let one_width = |x_t: &Tensor, _| Ok(x_t.clone());
    let mode = NoiseMode::Learned;
    let failed = sampler::ddpm(&schedule, &timesteps, &mode, x, one_width, noise, |_| Ok(())).unwrap_err();
    assert!(failed.to_string().contains("twice the width"), "{failed}");
}
