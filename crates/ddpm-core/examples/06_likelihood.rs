//! The cost of images in bits: the variational bound term by term, on data of known entropy, and a search for the best
//! timesteps.
//!
//! ```sh
//! cargo run -p ddpm-core --example 06_likelihood
//! ```
//!
//! It prints the cost of each step, and how close the bound comes to the entropy: with three variances, with more steps,
//! and with searched instead of evenly spaced timesteps. The network is the optimal one in closed form, so every bit
//! above the entropy is a cost of the chain itself.

#![allow(clippy::print_stdout, reason = "an example prints its results")]

use std::f64::consts::PI;

use anyhow::Result;
use candle_core::{Device, Tensor};
use ddpm_core::{
    CounterRng, NoiseSchedule, NoiseScheduleConfig, PredictionType, Purpose, ReverseVariance, Timestep,
    TimestepCostEstimator, Timesteps,
    likelihood::{Bound, BoundEstimator, optimal_variances},
};

const IMAGES: u64 = 64;
const PIXELS: u16 = 32;

fn main() -> Result<()> {
    let levels = levels();
    let entropy: f64 = (0..256).map(probability).map(|p| -p * p.log2()).sum();
    let cost = levels.iter().map(|&level| -probability(level).log2()).sum::<f64>() / levels.len() as f64;
    println!(
        "The entropy of a pixel is {entropy:.3} bits. The sampled pixels need {cost:.3} bits on average.\n"
    );
    let values = levels.into_iter().map(value);
    let images = Tensor::from_iter(values, &Device::Cpu)?.reshape(((), usize::from(PIXELS)))?;
    term_by_term(&images)?;
    timestep_search(&images)
}

/// The probability of a level: a pixel is dark, near 50, or bright, near 200.
fn probability(level: usize) -> f64 {
    let part = |weight: f64, mean: f64, deviation: f64| {
        weight / deviation * (-((level as f64 - mean) / deviation).powi(2) / 2.0).exp()
    };
    (part(0.7, 50.0, 10.0) + part(0.3, 200.0, 15.0)) / (2.0 * PI).sqrt()
}

/// Converts level g to x₀ = 2g/255 − 1.
fn value(level: usize) -> f64 {
    2.0 * level as f64 / 255.0 - 1.0
}

/// Samples a level for each pixel of each image.
fn levels() -> Vec<usize> {
    let sample = |image, pixel| {
        let mut left = CounterRng::new(1).uniform(Purpose::EVALUATION, image, pixel);
        let reached = |&level: &usize| {
            left -= probability(level);
            left < 0.0
        };
        (0..255).find(reached).unwrap_or(255)
    };
    (0..IMAGES).flat_map(|image| (0..PIXELS).map(move |pixel| sample(image, pixel))).collect()
}

/// The optimal network E[x₀ given xₜ]: the mean of all levels, weighted by their probability given xₜ.
fn network(x_t: &Tensor, timestep: Timestep) -> candle_core::Result<Tensor> {
    let alpha_cumprod = timestep.alpha_cumprod();
    let expected = |x: f64| {
        let (mut total, mut sum) = (0.0, 0.0);
        for level in 0..256 {
            let distance = x - alpha_cumprod.sqrt() * value(level);
            let weight = probability(level) * (-distance.powi(2) / (2.0 * (1.0 - alpha_cumprod))).exp();
            total += weight;
            sum += weight * value(level);
        }
        sum / total
    };
    let all = x_t.flatten_all()?.to_vec1()?.into_iter().map(expected);
    Tensor::from_iter(all, x_t.device())?.reshape(x_t.shape())
}

fn noise(like: &Tensor, noise_index: usize) -> ddpm_core::Result<Tensor> {
    CounterRng::new(2).normal_like(Purpose::EVALUATION, &Vec::from_iter(0..IMAGES), noise_index, like)
}

fn schedule(config: NoiseScheduleConfig) -> Result<NoiseSchedule> {
    Ok(NoiseSchedule::new(&NoiseScheduleConfig { prediction_type: PredictionType::Sample, ..config })?)
}

fn bound(
    schedule: &NoiseSchedule,
    timesteps: &Timesteps,
    variance: &ReverseVariance,
    images: &Tensor,
) -> Result<Bound> {
    let mut estimator = BoundEstimator::new(schedule, timesteps, variance)?;
    estimator.add(images, network, noise)?;
    Ok(estimator.finish()?)
}

fn term_by_term(images: &Tensor) -> Result<()> {
    let schedule = schedule(NoiseScheduleConfig::mnist20())?;
    let timesteps = Timesteps::all(&schedule);
    let posterior = bound(&schedule, &timesteps, &ReverseVariance::FixedSmall, images)?;
    let beta = bound(&schedule, &timesteps, &ReverseVariance::FixedLarge, images)?;
    let optimal = ReverseVariance::PerStep(optimal_variances(&timesteps, &posterior.mse())?);
    let optimal = bound(&schedule, &timesteps, &optimal, images)?;
    let bounds = [&posterior, &beta, &optimal];
    let line = |name: &str, bits: [f64; 3], rest: &str| {
        println!("{name:12}{:12.4}{:9.4}{:11.4}   {rest}", bits[0], bits[1], bits[2]);
    };
    println!("mnist20: bits per pixel of each term, by the variance of the reverse steps");
    println!("{:12}   posterior     beta    optimal   RMSE of the prediction, in grey levels", "term");
    line("prior", bounds.map(|bound| bound.prior_bits_per_dim.mean), "");
    for (i, point) in optimal.rate_distortion().iter().enumerate() {
        let name =
            if i + 1 == timesteps.len() { "t = 0 to x₀".to_owned() } else { format!("t = {}", point.t) };
        let bits = bounds.map(|bound| bound.steps[i].bits_per_dim.mean);
        line(&name, bits, &format!("{:8.1}", point.distortion_rmse));
    }
    line("bound", bounds.map(|bound| bound.total_bits_per_dim.mean), "");
    line("+-", bounds.map(|bound| bound.total_bits_per_dim.standard_error), "");
    println!("\nThe last steps, which decide the exact level of a pixel, cost most of the bits. There the");
    println!(
        "posterior's variance is far too small, because it is optimal only for a network without error.\n"
    );
    Ok(())
}

fn timestep_search(images: &Tensor) -> Result<()> {
    let schedule =
        schedule(NoiseScheduleConfig { num_train_timesteps: 100, ..NoiseScheduleConfig::cosine() })?;
    let all = bound(&schedule, &Timesteps::all(&schedule), &ReverseVariance::FixedSmall, images)?;
    let mut estimator = TimestepCostEstimator::new(&schedule, &all)?;
    estimator.add(images, network, noise)?;
    let costs = estimator.finish()?;
    println!("The cosine schedule with T = 100: the bound for n timesteps, with optimal variances");
    println!("   n   evenly   searched   best list");
    for n in [3, 5, 10, 20, 50, 100] {
        let evenly = Timesteps::spaced(&schedule, n)?;
        let variance = ReverseVariance::PerStep(costs.optimal_variances(&evenly)?);
        let evenly = bound(&schedule, &evenly, &variance, images)?.total_bits_per_dim.mean;
        let (searched, bits) = costs.best(&schedule, n)?;
        let list = if n > 10 { "…".to_owned() } else { format!("{:?}", searched.indices()) };
        println!("{n:4}{evenly:9.4}{bits:11.4}   {list}");
    }
    println!(
        "\nOne pass over the images gives the costs of all lists. The best list has few steps at high noise"
    );
    println!(
        "and many at the noise levels that decide the level of a pixel. It omits the last timesteps, whose"
    );
    println!(
        "noise is smaller than the width of a level. It was searched on the same images, so differences of"
    );
    println!("a few thousandths are not significant.");
    Ok(())
}
