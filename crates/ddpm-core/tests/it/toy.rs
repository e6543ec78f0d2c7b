//! Data whose optimal denoiser is known in closed form, and all samplers to test on it.

use candle_core::{DType, Device, Tensor};
use ddpm_core::{
    CounterRng, NoiseSchedule, NoiseScheduleConfig, PredictionType, Purpose, Result, ReverseVariance,
    Sampler, Timestep, Timesteps,
    sampler::{Bh, Churn, DpmSolver, Lcm, SolverType, Tcd, UniPc},
};

/// A mixture of one-dimensional normal distributions: (weight, mean, standard deviation) of each component.
pub(crate) struct Mixture(pub(crate) &'static [(f64, f64, f64)]);

pub(crate) const NORMAL: Mixture = Mixture(&[(1.0, 0.3, 0.5)]);

/// Two separate components: 0.3 of the samples are below `SEPARATION` and 0.7 above.
pub(crate) const TWO: Mixture = Mixture(&[(0.3, -0.6, 0.1), (0.7, 0.5, 0.2)]);
pub(crate) const SEPARATION: f64 = -0.2;

impl Mixture {
    /// P(x₀ ≤ x).
    pub(crate) fn cdf(&self, x: f64) -> f64 {
        let normal = |z: f64| f64::midpoint(1.0, libm::erf(z / 2.0_f64.sqrt()));
        self.0.iter().map(|(weight, mean, deviation)| weight * normal((x - mean) / deviation)).sum()
    }

    /// E[x₀ given xₜ]: the expectation for each component, weighted by the probability of the component given xₜ.
    fn denoise(&self, x_t: f64, alpha_cumprod: f64) -> f64 {
        let (signal, noise) = (alpha_cumprod.sqrt(), 1.0 - alpha_cumprod);
        let of = |&(weight, mean, deviation): &(f64, f64, f64)| {
            let variance = alpha_cumprod * deviation.powi(2) + noise;
            let away = x_t - signal * mean;
            let log = weight.ln() - (variance.ln() + away * away / variance) / 2.0;
            (log, mean + signal * deviation.powi(2) / variance * away)
        };
        let most = self.0.iter().map(|component| of(component).0).fold(f64::NEG_INFINITY, f64::max);
        let (mut sum, mut total) = (0.0, 0.0);
        for component in self.0 {
            let (log, x_start) = of(component);
            let weight = (log - most).exp();
            (sum, total) = (sum + weight * x_start, total + weight);
        }
        sum / total
    }

    /// The optimal network, with the parameterization of the schedule's `prediction_type`.
    pub(crate) fn network(
        &self,
        schedule: &NoiseSchedule,
    ) -> impl Fn(&Tensor, Timestep) -> candle_core::Result<Tensor> {
        let to = schedule.config().prediction_type;
        move |x_t, timestep| {
            let alpha_cumprod = timestep.alpha_cumprod();
            let x_start = x_t.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
            let x_start: Vec<f64> = x_start.into_iter().map(|x| self.denoise(x, alpha_cumprod)).collect();
            let x_start = Tensor::from_vec(x_start, x_t.shape(), &Device::Cpu)?.to_dtype(x_t.dtype())?;
            let converted = PredictionType::Sample.convert(to, &x_start, x_t, alpha_cumprod);
            converted.map_err(candle_core::Error::wrap)
        }
    }
}

/// Every sampler with every option that changes its result, by name.
pub(crate) fn samplers() -> Vec<(&'static str, Sampler)> {
    let churn = Churn { s_churn: 20.0, s_tmin: 0.02, s_tmax: 50.0, s_noise: 1.0 };
    let heun = |options| DpmSolver { solver_type: SolverType::Heun, ..options };
    vec![
        ("ddpm posterior", Sampler::Ddpm(ReverseVariance::FixedSmall)),
        ("ddpm beta", Sampler::Ddpm(ReverseVariance::FixedLarge)),
        ("ddim 0", Sampler::Ddim(0.0)),
        ("ddim 0.5", Sampler::Ddim(0.5)),
        ("ddim 1", Sampler::Ddim(1.0)),
        ("dpm-solver++ 2M midpoint", Sampler::DpmSolverMultistep(DpmSolver::plus_plus_2m())),
        ("dpm-solver++ 2M heun", Sampler::DpmSolverMultistep(heun(DpmSolver::plus_plus_2m()))),
        ("sde-dpm-solver++ 2M midpoint", Sampler::DpmSolverMultistep(DpmSolver::sde_2m())),
        ("sde-dpm-solver++ 2M heun", Sampler::DpmSolverMultistep(heun(DpmSolver::sde_2m()))),
        ("euler", Sampler::Euler(Churn::NONE)),
        ("euler with churn", Sampler::Euler(churn)),
        ("euler ancestral", Sampler::EulerAncestral),
        ("heun", Sampler::Heun(Churn::NONE)),
        ("heun with churn", Sampler::Heun(churn)),
        ("uni-pc bh1", Sampler::UniPc(UniPc { solver_type: Bh::Bh1, ..UniPc::order_2() })),
        ("uni-pc bh2", Sampler::UniPc(UniPc::order_2())),
        ("pndm", Sampler::Pndm),
    ]
}

/// The samplers that do not give the distribution of any data too: for distilled models, to encode, with jumps back.
pub(crate) fn all_samplers() -> Vec<(&'static str, Sampler)> {
    let more = [
        ("lcm", Sampler::Lcm(Lcm { timestep_scaling: 10.0, original_inference_steps: 20 })),
        ("tcd", Sampler::Tcd(Tcd { eta: 0.3, original_inference_steps: 20 })),
        ("ddim inverse", Sampler::DdimInverse(2)),
        ("repaint", Sampler::RePaint { jump_length: 2, jump_n_sample: 2 }),
    ];
    samplers().into_iter().chain(more).collect()
}

/// A schedule with T = 1000 and without clipping.
pub(crate) fn fine_schedule(prediction_type: PredictionType) -> NoiseSchedule {
    let config = NoiseScheduleConfig { prediction_type, clip_sample: false, ..NoiseScheduleConfig::ho2020() };
    NoiseSchedule::new(&config).unwrap()
}

/// `n` noise levels σ from the first to the last, evenly in ln σ, both included.
pub(crate) fn log_uniform(schedule: &NoiseSchedule, [first, last]: [f64; 2], n: usize) -> Timesteps {
    let ratio = (last / first).ln();
    let sigma = |i: usize| first * (ratio * i as f64 / (n - 1) as f64).exp();
    Timesteps::from_sigmas(schedule, &(0..n).map(sigma).collect::<Vec<_>>()).unwrap()
}

/// The rows of a batch. The samples within a row are independent too.
pub(crate) const ROWS: u64 = 50;
pub(crate) const COLUMNS: usize = 800;

pub(crate) fn rows() -> Vec<u64> {
    (0..ROWS).collect()
}

/// Independent standard normal values, [`ROWS`, `COLUMNS`].
pub(crate) fn start(seed: u64) -> Tensor {
    let rng = CounterRng::new(seed);
    rng.normal(Purpose::SAMPLE_START, &rows(), 0, &[COLUMNS], DType::F64, &Device::Cpu).unwrap()
}

/// The noise of a run over [`rows`].
pub(crate) fn noise(seed: u64) -> impl Fn(&Tensor, usize) -> Result<Tensor> {
    move |x, noise_index| CounterRng::new(seed).normal_like(Purpose::SAMPLE_STEP, &rows(), noise_index, x)
}

/// Mean and standard deviation.
pub(crate) fn moments(samples: &[f64]) -> (f64, f64) {
    let n = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / n;
    (mean, (samples.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt())
}

/// The Kolmogorov-Smirnov statistic: the largest distance between the empirical and the exact distribution function.
pub(crate) fn kolmogorov_smirnov(mut samples: Vec<f64>, cdf: impl Fn(f64) -> f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let n = samples.len() as f64;
    let distance = |(i, x): (usize, &f64)| {
        let expected = cdf(*x);
        (expected - i as f64 / n).abs().max((expected - (i + 1) as f64 / n).abs())
    };
    crate::largest(samples.iter().enumerate().map(distance))
}
