//! Conversions between predictions of ε, x₀ and v, and the posterior that a sampler computes from a prediction.
//!
//! ```sh
//! cargo run -p ddpm-core --example 02_conversions
//! ```
//!
//! It shows that conversions are exact up to rounding, how a conversion multiplies the error of a network, and that the
//! formula of the posterior agrees with Bayes' rule on a grid.

#![allow(clippy::print_stdout, reason = "an example prints its results")]

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use ddpm_core::{CounterRng, NoiseSchedule, NoiseScheduleConfig, PredictionType, Purpose};

use PredictionType::{Epsilon, Sample, VPrediction};

const STEPS: [usize; 6] = [0, 2, 5, 9, 14, 19];

fn main() -> Result<()> {
    let schedule = NoiseSchedule::new(&NoiseScheduleConfig::mnist20())?;
    conversions(&schedule)?;
    errors(&schedule);
    posterior(&schedule)
}

/// Noises known images and converts each of the three quantities to each other one.
fn conversions(schedule: &NoiseSchedule) -> Result<()> {
    println!("Each quantity computed from xₜ and another quantity: the largest error\n");
    println!("  t   x₀ from ε   ε from x₀   x₀ from v   v from x₀    ε from v    v from ε");
    let (rng, images) = (CounterRng::new(1), [0, 1, 2, 3]);
    let x_start = rng.normal(Purpose::EVALUATION, &images, 0, &[100], DType::F64, &Device::Cpu)?;
    let eps = rng.normal_like(Purpose::TRAIN_NOISE, &images, 0, &x_start)?;
    for t in STEPS {
        let x_t = schedule.q_sample(&x_start, &[t], &eps)?;
        let v = schedule.target(VPrediction, &x_start, &eps, &[t])?;
        let truth = |kind| match kind {
            Epsilon => &eps,
            Sample => &x_start,
            _ => &v,
        };
        let mut line = format!("{t:3}");
        for (from, to) in [
            (Epsilon, Sample),
            (Sample, Epsilon),
            (VPrediction, Sample),
            (Sample, VPrediction),
            (VPrediction, Epsilon),
            (Epsilon, VPrediction),
        ] {
            let converted = schedule.convert(from, to, truth(from), &x_t, &[t])?;
            let difference = (converted - truth(to))?.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()?;
            line += &format!("   {difference:9.1e}");
        }
        println!("{line}");
    }
    println!("\nThese errors are f64 rounding. So a sampler works with a prediction of any of the three;");
    println!("prediction_type names the quantity.\n");
    Ok(())
}

/// Shows how a conversion changes a network's error: it is multiplied by the second factor of `conversion`.
fn errors(schedule: &NoiseSchedule) {
    println!("The error in x₀ that results from an error of 0.01 in the network's output\n");
    println!("  t        snr   predicting ε         x₀           v");
    for t in STEPS {
        let alpha_cumprod = schedule.alphas_cumprod()[t];
        let [from_eps, from_x_start, from_v] =
            [Epsilon, Sample, VPrediction].map(|kind| 0.01 * kind.conversion(Sample, alpha_cumprod).1.abs());
        let snr = alpha_cumprod / (1.0 - alpha_cumprod);
        println!("{t:3}   {snr:8.3}   {from_eps:12.4}   {from_x_start:8.4}   {from_v:9.4}");
    }
    println!(
        "\nIn nearly pure noise ε does not determine x₀ well: at t = 19 the error is 136 times as large."
    );
    println!(
        "Conversely, x₀ does not determine ε well at t = 0. An error in v never grows in a conversion to"
    );
    println!("ε or x₀. Which quantity a network learns best is a different question: it depends on the");
    println!("outputs that its layers can represent.\n");
}

/// Compares the posterior of one pixel with q(xₜ given xₜ₋₁) q(xₜ₋₁ given x₀), normalised on a grid.
fn posterior(schedule: &NoiseSchedule) -> Result<()> {
    let (x_start, x_t) = (0.5, -0.8);
    println!("The posterior of xₜ₋₁ given x₀ = {x_start} and xₜ = {x_t}, and Bayes' rule on a grid\n");
    println!("  t   mean         on the grid   deviation    on the grid   weight of x₀   weight of xₜ");
    let scalar = |value: f64| Tensor::new(&[value], &Device::Cpu);
    for t in STEPS.into_iter().skip(1) {
        let posterior = schedule.q_posterior(&scalar(x_start)?, &scalar(x_t)?, &[t])?;
        let (mean, deviation) = (posterior.mean.to_vec1::<f64>()?[0], posterior.variance[0].sqrt());
        let (grid_mean, grid_deviation) = bayes_on_grid(schedule, t, x_start, x_t);
        let step = schedule.posterior_coefs(t, Some(t - 1))?;
        println!(
            "{t:3}   {mean:10.7}   {grid_mean:11.7}   {deviation:10.7}   {grid_deviation:11.7}   {:12.4}   {:12.4}",
            step.x_start_coef, step.x_t_coef
        );
    }
    println!("\nA sampler does not know x₀. It uses the network's prediction instead, and samples from this");
    println!("normal distribution. At high noise x₀ has little weight and the added noise dominates; near");
    println!("t = 0 the predicted x₀ dominates.");
    Ok(())
}

/// Mean and standard deviation of the normalised product of the two densities.
fn bayes_on_grid(schedule: &NoiseSchedule, t: usize, x_start: f64, x_t: f64) -> (f64, f64) {
    let (beta, before) = (schedule.betas()[t], schedule.alphas_cumprod_prev()[t]);
    let log_density = |x: f64, mean: f64, variance: f64| -(x - mean).powi(2) / (2.0 * variance);
    let (mut total, mut first, mut second) = (0.0, 0.0, 0.0);
    for i in -60_000..=60_000 {
        let x = f64::from(i) * 1e-4;
        let weight = (log_density(x_t, (1.0 - beta).sqrt() * x, beta)
            + log_density(x, before.sqrt() * x_start, 1.0 - before))
        .exp();
        total += weight;
        first += weight * x;
        second += weight * x * x;
    }
    let mean = first / total;
    (mean, (second / total - mean * mean).sqrt())
}
