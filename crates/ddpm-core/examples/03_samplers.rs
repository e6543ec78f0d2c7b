//! All samplers on data whose optimal denoiser is known: a mixture of two normal distributions in one dimension.
//!
//! ```sh
//! cargo run -p ddpm-core --example 03_samplers
//! ```
//!
//! It shows the order of convergence of each deterministic sampler, and how well each stochastic sampler reproduces the
//! data, including DDPM without added noise. No network is trained, so every error is the sampler's.

#![allow(clippy::print_stdout, reason = "an example prints its results")]

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use ddpm_core::{
    CounterRng, NoiseSchedule, NoiseScheduleConfig, Purpose, ReverseVariance, Sampler, Timestep, Timesteps,
    sampler::{Churn, DpmSolver, UniPc},
};

/// (weight, mean, standard deviation) of each component of the data.
const MIXTURE: [(f64, f64, f64); 2] = [(0.3, -1.0, 0.2), (0.7, 0.6, 0.4)];
const STEPS: [usize; 5] = [5, 10, 20, 50, 100];
const SAMPLES: usize = 10_000;

fn main() -> Result<()> {
    let schedule = NoiseSchedule::new(&NoiseScheduleConfig::ho2020())?;
    deterministic(&schedule)?;
    stochastic(&schedule)
}

/// The data noised to ᾱ, which is a mixture too: (weight, mean, variance) of each component.
fn mixture_at(alpha_cumprod: f64) -> [(f64, f64, f64); 2] {
    MIXTURE.map(|(weight, mean, deviation)| {
        (weight, alpha_cumprod.sqrt() * mean, alpha_cumprod * deviation.powi(2) + 1.0 - alpha_cumprod)
    })
}

/// The optimal network in closed form: ε̂ = −√(1−ᾱ) ∇ log q(xₜ).
fn network(x_t: &Tensor, timestep: Timestep) -> candle_core::Result<Tensor> {
    let parts = mixture_at(timestep.alpha_cumprod());
    let score = |x: f64| {
        let (mut density, mut slope) = (0.0, 0.0);
        for (weight, mean, variance) in parts {
            let part = weight * (-(x - mean).powi(2) / (2.0 * variance)).exp() / variance.sqrt();
            density += part;
            slope -= part * (x - mean) / variance;
        }
        slope / density
    };
    let eps = |x: f64| -(1.0 - timestep.alpha_cumprod()).sqrt() * score(x);
    let all = x_t.flatten_all()?.to_vec1()?.into_iter().map(eps);
    Tensor::from_iter(all, x_t.device())?.reshape(x_t.shape())
}

/// Compares deterministic samplers with the exact probability flow. In one dimension the flow keeps the order of points,
/// so it maps each quantile to the same quantile.
fn deterministic(schedule: &NoiseSchedule) -> Result<()> {
    let starts: Vec<f64> = (1..200).map(|i| -2.5 + 0.025 * f64::from(i)).collect();
    let [first, last] = [999, 0].map(|t| schedule.alphas_cumprod()[t]);
    let exact: Vec<f64> = starts.iter().map(|&x| quantile(cdf(x, first), last)).collect();
    println!("Deterministic samplers: root mean square error against the exact flow from t = 999 to 0\n");
    println!("{:38}{}   order", "steps", STEPS.map(|n| format!("{n:>9}")).concat());
    let dpm = DpmSolver { lower_order_final: false, ..DpmSolver::plus_plus_2m() };
    let uni_pc = UniPc { lower_order_final: false, ..UniPc::order_2() };
    for (name, sampler) in [
        ("DDIM with eta 0 (Euler's method)", Sampler::Ddim(0.0)),
        ("DPM-Solver++ 2M", Sampler::DpmSolverMultistep(dpm)),
        ("Heun (2 network evaluations a step)", Sampler::Heun(Churn::NONE)),
        ("UniPC-2", Sampler::UniPc(uni_pc)),
    ] {
        let mut errors = Vec::new();
        for steps in STEPS {
            let x_t = Tensor::new(starts.as_slice(), &Device::Cpu)?.unsqueeze(0)?;
            let sampled = run(&sampler, schedule, &even(schedule, steps)?, x_t)?;
            let squares: f64 = std::iter::zip(&sampled, &exact).map(|(a, b)| (a - b).powi(2)).sum();
            errors.push((squares / exact.len() as f64).sqrt());
        }
        let order = (errors[3] / errors[4]).log2();
        println!("{name:38}{}   {order:5.1}", errors.iter().map(|e| format!("{e:9.5}")).collect::<String>());
    }
    println!(
        "\nTwice the steps divide the error by 2 at order 1, and by 4 at order 2. UniPC's corrector adds one order."
    );
    Ok(())
}

fn even(schedule: &NoiseSchedule, steps: usize) -> Result<Timesteps> {
    let (max, min) = (schedule.timestep(999)?.sigma().ln(), schedule.timestep(0)?.sigma().ln());
    let sigmas: Vec<f64> = (0..steps).map(|i| (max + (min - max) * i as f64 / steps as f64).exp()).collect();
    Ok(Timesteps::from_sigmas(schedule, &sigmas)?.ending_at_sigma_min(schedule))
}

/// Runs a sampler. All n paths are pixels of one image of shape [1, n].
fn run(sampler: &Sampler, schedule: &NoiseSchedule, timesteps: &Timesteps, x_t: Tensor) -> Result<Vec<f64>> {
    let sampled =
        sampler.plan(schedule, timesteps)?.sample(x_t, network, CounterRng::new(1).images([0]).noise())?;
    Ok(sampled.flatten_all()?.to_vec1()?)
}

/// Compares the samples of stochastic samplers with the exact distribution of the data.
fn stochastic(schedule: &NoiseSchedule) -> Result<()> {
    println!("\nStochastic samplers: Wasserstein distance between {SAMPLES} samples and the data, and the");
    println!("interquartile range (IQR) of the samples\n");
    println!("{:38}{}   IQR", "steps", STEPS.map(|n| format!("{n:>9}")).concat());
    let exact: Vec<f64> = (0..SAMPLES).map(|i| quantile((i as f64 + 0.5) / SAMPLES as f64, 1.0)).collect();
    let rng = CounterRng::new(2);
    let x_t = rng.normal(Purpose::SAMPLE_START, &[0], 0, &[SAMPLES], DType::F64, &Device::Cpu)?;
    for (name, sampler) in [
        ("DDPM, posterior variance", Sampler::Ddpm(ReverseVariance::FixedSmall)),
        ("DDPM, variance beta", Sampler::Ddpm(ReverseVariance::FixedLarge)),
        ("DDPM, no noise", Sampler::Ddpm(ReverseVariance::Zero)),
        ("DDIM, eta 1", Sampler::Ddim(1.0)),
        ("Heun with churn", Sampler::Heun(Churn { s_churn: 5.0, ..Churn::NONE })),
        ("SDE-DPM-Solver++ 2M", Sampler::DpmSolverMultistep(DpmSolver::sde_2m())),
    ] {
        let (mut line, mut half) = (String::new(), 0.0);
        for steps in STEPS {
            let timesteps = Timesteps::spaced(schedule, steps)?;
            let mut sampled = run(&sampler, schedule, &timesteps, x_t.clone())?;
            sampled.sort_by(f64::total_cmp);
            let distances: f64 = std::iter::zip(&sampled, &exact).map(|(a, b)| (a - b).abs()).sum();
            line += &format!("{:9.4}", distances / SAMPLES as f64);
            half = sampled[7_500] - sampled[2_500];
        }
        println!("{name:38}{line}   {half:6.2}");
    }
    println!("{:83}   {:6.2}", "the data itself", exact[7_500] - exact[2_500]);
    println!(
        "\nA distance of about 0.01 is within sampling error. DDIM with eta 1 equals DDPM with the posterior"
    );
    println!("variance. Without added noise DDPM collapses at any number of steps: all samples end at about");
    println!("the same value.");
    Ok(())
}

/// The cumulative distribution function of the data noised to ᾱ.
fn cdf(x: f64, alpha_cumprod: f64) -> f64 {
    let below = |(weight, mean, variance): (f64, f64, f64)| {
        weight * 0.5 * (1.0 + libm::erf((x - mean) / (2.0 * variance).sqrt()))
    };
    mixture_at(alpha_cumprod).into_iter().map(below).sum()
}

/// The `p`-quantile of the data noised to ᾱ, by bisection.
fn quantile(p: f64, alpha_cumprod: f64) -> f64 {
    let (mut low, mut high) = (-10.0, 10.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if cdf(middle, alpha_cumprod) < p { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}
