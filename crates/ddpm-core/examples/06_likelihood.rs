//! How many bits an image costs: the variational bound term by term, on data whose entropy is known, and the
//! best timesteps for a small number of steps.
//!
//! ```sh
//! cargo run -p ddpm-core --example 06_likelihood
//! ```
//!
//! One sees where the bits go, how near the bound comes to the entropy with the three variances of DDPM, with
//! more steps, and with timesteps that are chosen by what they cost instead of evenly. The network is the best
//! possible one, in closed form, so all that is above the entropy is the price of the chain itself.

#![allow(clippy::print_stdout, reason = "an example speaks to its user")]

use std::f64::consts::PI;

use anyhow::Result;
use candle_core::{Device, Tensor};
use ddpm_core::{
    AddressedRng, NoiseMode, NoiseSchedule, PredictionType, Purpose, ScheduleConfig, StepCostEstimator,
    Timestep, Timesteps,
    likelihood::{Bound, BoundEstimator, optimal_variances},
};

const IMAGES: u64 = 64;
const PIXELS: usize = 32;

fn main() -> Result<()> {
    let images = images()?;
    let entropy: f64 = (0..256).map(probability).map(|p| -p * p.log2()).sum();
    println!("Pixels that are black (60 %), white (20 %) or any grey between: {entropy:.3} bits each\n");
    term_by_term(&images)?;
    step_search(&images)
}

/// How often a pixel has a level: it is dark, near 50, or bright, near 200.
fn probability(level: usize) -> f64 {
    let part = |weight: f64, mean: f64, deviation: f64| {
        weight / deviation * (-((level as f64 - mean) / deviation).powi(2) / 2.0).exp()
    };
    (part(0.7, 50.0, 10.0) + part(0.3, 200.0, 15.0)) / (2.0 * PI).sqrt()
}

/// x₀ = 2g/255 − 1
fn value(level: usize) -> f64 {
    2.0 * level as f64 / 255.0 - 1.0
}

fn images() -> Result<Tensor> {
    let pixel = |image: u64, pixel: usize| {
        let mut left = AddressedRng::new(1).uniform(Purpose::Evaluation, image, pixel);
        let level = (0..256).find(|&level| {
            left -= probability(level);
            left < 0.0
        });
        value(level.unwrap_or(255))
    };
    let pixels = (0..IMAGES).flat_map(|image| (0..PIXELS).map(move |i| pixel(image, i)));
    Ok(Tensor::from_iter(pixels, &Device::Cpu)?.reshape((IMAGES as usize, PIXELS))?)
}

/// E[x₀ given xₜ], the mean of all levels, weighted by how well each explains xₜ.
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

fn noise(like: &Tensor, draw: usize) -> ddpm_core::Result<Tensor> {
    AddressedRng::new(2).normal_like(Purpose::Evaluation, &(0..IMAGES).collect::<Vec<_>>(), draw, like)
}

fn schedule(config: ScheduleConfig) -> Result<NoiseSchedule> {
    Ok(NoiseSchedule::new(&ScheduleConfig { prediction_type: PredictionType::Sample, ..config })?)
}

fn bound(
    schedule: &NoiseSchedule,
    timesteps: &Timesteps,
    mode: &NoiseMode,
    images: &Tensor,
) -> Result<Bound> {
    let mut estimator = BoundEstimator::new(schedule, timesteps, mode)?;
    estimator.add(images, network, noise)?;
    Ok(estimator.finish()?)
}

fn term_by_term(images: &Tensor) -> Result<()> {
    let schedule = schedule(ScheduleConfig::mnist20())?;
    let timesteps = Timesteps::all(&schedule);
    let posterior = bound(&schedule, &timesteps, &NoiseMode::Posterior, images)?;
    let beta = bound(&schedule, &timesteps, &NoiseMode::Beta, images)?;
    let optimal = NoiseMode::Variances(optimal_variances(&timesteps, &posterior.mse())?);
    let optimal = bound(&schedule, &timesteps, &optimal, images)?;
    let bounds = [&posterior, &beta, &optimal];
    let line = |name: &str, bits: [f64; 3], rest: &str| {
        println!("{name:12}{:12.4}{:9.4}{:11.4}   {rest}", bits[0], bits[1], bits[2]);
    };
    println!("mnist20, bits per pixel of each term, by the variance of the steps");
    println!("{:12}   posterior     beta    optimal   error of the prediction, in grey levels", "term");
    line("prior", bounds.map(|bound| bound.prior_bits_per_dim.mean), "");
    for (i, point) in optimal.rate_distortion().iter().enumerate() {
        let name =
            if i + 1 == timesteps.len() { "t = 0 to x₀".to_owned() } else { format!("t = {}", point.t) };
        let bits = bounds.map(|bound| bound.steps[i].bits_per_dim.mean);
        line(&name, bits, &format!("{:8.1}", point.distortion_rmse));
    }
    line("bound", bounds.map(|bound| bound.total_bits_per_dim.mean), "");
    line("+-", bounds.map(|bound| bound.total_bits_per_dim.standard_error), "");
    println!(
        "\nMost is paid in the last steps, for the exact level: the noise of t = 0 is wider than a level."
    );
    println!("The optimal variance is the mean squared error that the network in fact has.\n");
    Ok(())
}

fn step_search(images: &Tensor) -> Result<()> {
    let schedule = schedule(ScheduleConfig { num_train_timesteps: 100, ..ScheduleConfig::cosine() })?;
    let all = bound(&schedule, &Timesteps::all(&schedule), &NoiseMode::Posterior, images)?;
    let mut estimator = StepCostEstimator::new(&schedule, &all)?;
    estimator.add(images, network, noise)?;
    let costs = estimator.finish()?;
    println!("The cosine schedule with T = 100, optimal variances, n of the timesteps");
    println!("   n   evenly   searched   measured   the list found");
    for n in [3, 5, 10, 20, 50, 100] {
        let with = |timesteps: &Timesteps| -> Result<f64> {
            let mode = NoiseMode::Variances(costs.optimal_variances(timesteps)?);
            Ok(bound(&schedule, timesteps, &mode, images)?.total_bits_per_dim.mean)
        };
        let evenly = with(&Timesteps::spaced(&schedule, n)?)?;
        let (searched, bits) = costs.best(&schedule, n)?;
        let list = if n > 10 { "…".to_owned() } else { format!("{:?}", searched.indices()) };
        println!("{n:4}{evenly:9.4}{bits:11.4}{:11.4}   {list}", with(&searched)?);
    }
    println!(
        "\nThe search needs no further run of the network. It puts its steps where the image is decided and"
    );
    println!("where its levels are, and few into pure noise. More steps never cost more.");
    Ok(())
}
