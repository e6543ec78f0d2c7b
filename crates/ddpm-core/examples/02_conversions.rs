//! ε, x₀ and v are one prediction under three names, and the posterior is what a sampler does with it.
//!
//! ```sh
//! cargo run -p ddpm-core --example 02_conversions
//! ```
//!
//! One sees that converting there and back loses nothing, how much an error of a network grows or shrinks when
//! it is read under another name, and that the posterior's formula is Bayes' rule, checked by summing over a
//! grid.

#![allow(clippy::print_stdout, reason = "an example speaks to its user")]

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use ddpm_core::{CounterRng, NoiseSchedule, NoiseScheduleConfig, PredictionType, Purpose};

use PredictionType::{Epsilon, Sample, VPrediction};

const STEPS: [usize; 6] = [0, 2, 5, 9, 14, 19];

fn main() -> Result<()> {
    let schedule = NoiseSchedule::new(&NoiseScheduleConfig::mnist20())?;
    one_thing(&schedule)?;
    errors(&schedule);
    posterior(&schedule)
}

/// Noises known images, and gets each of the three quantities back from each other one.
fn one_thing(schedule: &NoiseSchedule) -> Result<()> {
    println!("From xₜ and one of the three, the two others: largest difference to the true ones\n");
    println!("  t   x₀ from ε   ε from x₀   x₀ from v   v from x₀    ε from v    v from ε");
    let (rng, images) = (CounterRng::new(1), [0, 1, 2, 3]);
    let x_start = rng.normal(Purpose::EVALUATION, &images, 0, &[100], DType::F64, &Device::Cpu)?;
    let eps = rng.normal_like(Purpose::TRAIN_NOISE, &images, 0, &x_start)?;
    for t in STEPS {
        let x_t = schedule.q_sample(&x_start, &[t], &eps)?;
        let v = schedule.velocity(&x_start, &[t], &eps)?;
        let truth = |kind| match kind {
            Epsilon => &eps,
            Sample => &x_start,
            VPrediction => &v,
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
    println!("\nAll is rounding in f64. So a sampler may ask for any of them: prediction_type says");
    println!("which it gets.\n");
    Ok(())
}

/// Exact quantities convert exactly; a network's errors are multiplied by the second factor of `conversion`.
fn errors(schedule: &NoiseSchedule) {
    println!("What becomes of an error of 0.01 in the network's output when it is read as x₀\n");
    println!("  t        snr   if it predicts ε   if x₀        if v");
    for t in STEPS {
        let alpha_cumprod = schedule.alphas_cumprod()[t];
        let [of_eps, of_x_start, of_v] =
            [Epsilon, Sample, VPrediction].map(|kind| 0.01 * kind.conversion(Sample, alpha_cumprod).1.abs());
        let snr = alpha_cumprod / (1.0 - alpha_cumprod);
        println!("{t:3}   {snr:8.3}   {of_eps:16.4}   {of_x_start:5.4}   {of_v:9.4}");
    }
    println!("\nThis is where they differ. ε says almost nothing about x₀ where there is only noise (at");
    println!("t = 19 the error is 136 times as large), and in return x₀ says little about ε at t = 0. An");
    println!("error in v never grows, whichever of the two it is read as. Which one a network learns best");
    println!("is another question: it depends on what its layers can put out.\n");
}

/// q(xₜ₋₁ given xₜ, x₀) ∝ q(xₜ given xₜ₋₁) q(xₜ₋₁ given x₀), normalised on a grid, for one pixel.
fn posterior(schedule: &NoiseSchedule) -> Result<()> {
    let (x_start, x_t) = (0.5, -0.8);
    println!("The posterior of xₜ₋₁ given x₀ = {x_start} and xₜ = {x_t}, and Bayes' rule on a grid\n");
    println!("  t   mean         by the grid   deviation    by the grid   weight of x₀   weight of xₜ");
    let scalar = |value: f64| Tensor::new(&[value], &Device::Cpu);
    for t in STEPS.into_iter().skip(1) {
        let posterior = schedule.q_posterior(&scalar(x_start)?, &scalar(x_t)?, &[t])?;
        let (mean, deviation) = (posterior.mean.to_vec1::<f64>()?[0], posterior.variance[0].sqrt());
        let (by_mean, by_deviation) = by_bayes(schedule, t, x_start, x_t);
        let step = schedule.posterior_coefs(t, Some(t - 1))?;
        println!(
            "{t:3}   {mean:10.7}   {by_mean:11.7}   {deviation:10.7}   {by_deviation:11.7}   {:12.4}   {:12.4}",
            step.x_start_coef, step.x_t_coef
        );
    }
    println!("\nA sampler does not know x₀; it puts the network's prediction there, and draws from this");
    println!("normal distribution. At high noise x₀ hardly counts and most is drawn; towards t = 0 the");
    println!("predicted x₀ decides.");
    Ok(())
}

/// Mean and deviation of the product of the two densities.
fn by_bayes(schedule: &NoiseSchedule, t: usize, x_start: f64, x_t: f64) -> (f64, f64) {
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
