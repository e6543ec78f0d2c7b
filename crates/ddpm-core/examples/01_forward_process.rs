//! The forward process: how a schedule turns an image into noise, and how schedules differ.
//!
//! ```sh
//! cargo run -p ddpm-core --example 01_forward_process
//! ```
//!
//! It prints the table of the 20-step schedule, an image at increasing noise levels, a comparison of three schedules,
//! and the effect of using the betas of a 1000-step schedule with 20 steps.

#![allow(clippy::print_stdout, reason = "an example prints its results")]

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use ddpm_core::{CounterRng, NoiseSchedule, NoiseScheduleConfig, Purpose};

const PICTURE: [&str; 9] = [
    ".........",
    "..#####..",
    ".##...##.",
    "......##.",
    "....###..",
    "......##.",
    ".##...##.",
    "..#####..",
    ".........",
];

fn main() -> Result<()> {
    let schedule = NoiseSchedule::new(&NoiseScheduleConfig::mnist20())?;
    table(&schedule)?;
    picture(&schedule)?;
    compare()?;
    unscaled()
}

/// Prints the schedule. It is defined by the two factors of xₜ = √ᾱₜ x₀ + √(1−ᾱₜ) ε.
fn table(schedule: &NoiseSchedule) -> Result<()> {
    println!("The schedule mnist20: T = 20, beta linear from 0.001 to 0.7\n");
    println!("  t    beta   alpha_cumprod   signal    noise        snr   signal left in the image");
    for t in [0, 1, 2, 4, 6, 8, 10, 13, 16, 19] {
        let (timestep, beta) = (schedule.timestep(t)?, schedule.betas()[t]);
        let alpha_cumprod = timestep.alpha_cumprod();
        let (signal, noise) = (alpha_cumprod.sqrt(), (1.0 - alpha_cumprod).sqrt());
        let (snr, bar) = (schedule.snr(t)?, bar(signal, 28));
        println!("{t:3}  {beta:6.4}   {alpha_cumprod:13.6}   {signal:6.4}   {noise:6.4}   {snr:8.3}   {bar}");
    }
    println!(
        "\nsignal² + noise² = 1, so data of variance 1 has variance 1 at every timestep. At snr = 1 there"
    );
    println!("is as much noise as image. Near this level a sampler decides the content of the image.\n");
    Ok(())
}

/// Prints an image at five timesteps with the same noise, so only the factors differ.
fn picture(schedule: &NoiseSchedule) -> Result<()> {
    let pixels = PICTURE.iter().flat_map(|row| row.chars()).map(|c| if c == '#' { 1.0_f32 } else { -1.0 });
    let x_start = Tensor::from_iter(pixels, &Device::Cpu)?.reshape((1, 9, 9))?;
    let rng = CounterRng::new(1);
    let eps = rng.normal(Purpose::TRAIN_NOISE, &[0], 0, &[9, 9], DType::F32, &Device::Cpu)?;
    let steps = [0, 2, 5, 9, 19];
    let noised = steps
        .iter()
        .map(|&t| Ok(schedule.q_sample(&x_start, &[t], &eps)?.squeeze(0)?.to_vec2()?))
        .collect::<Result<Vec<Vec<Vec<f32>>>>>()?;
    println!("An image at five timesteps, noised by q_sample with the same noise\n");
    println!("{}", steps.map(|t| format!("{:21}", format!("t = {t}"))).concat().trim_end());
    for row in 0..9 {
        let line = noised.iter().map(|picture| picture[row].iter().map(shade).collect::<String>());
        println!("{}", line.collect::<Vec<_>>().join(" │ ").trim_end());
    }
    println!(
        "\nAt t = 19 the image has vanished and only noise is left. Sampling starts there. A network learns"
    );
    println!("to take one step back from each of these noise levels.\n");
    Ok(())
}

/// Draws a pixel from −1 (empty) to 1 (full) as two characters, which are about square.
fn shade(pixel: &f32) -> &'static str {
    match pixel {
        ..-0.6 => "  ",
        ..-0.2 => "░░",
        ..0.2 => "▒▒",
        ..0.6 => "▓▓",
        _ => "██",
    }
}

/// Compares three schedules. They end at about the same signal, but reach it along different curves.
fn compare() -> Result<()> {
    println!("The signal left in three schedules, by the fraction of the timesteps up to t = T - 1\n");
    println!("{:32}{:32}cosine, T = 1000", "ho2020, T = 1000", "mnist20, T = 20");
    let configs =
        [NoiseScheduleConfig::ho2020(), NoiseScheduleConfig::mnist20(), NoiseScheduleConfig::cosine()];
    let schedules =
        configs.iter().map(|config| Ok(NoiseSchedule::new(config)?)).collect::<Result<Vec<_>>>()?;
    for percent in [0, 10, 25, 50, 75, 90, 100] {
        let mut line = String::new();
        for schedule in &schedules {
            let last = schedule.num_train_timesteps() - 1;
            let signal = schedule.timestep((last * percent).div_ceil(100))?.alpha_cumprod().sqrt();
            line += &format!("{percent:3} % {signal:6.4} {:19}", bar(signal, 18));
        }
        println!("{}", line.trim_end());
    }
    println!(
        "\nIn the second half of the linear schedules little signal is left. The cosine schedule decreases"
    );
    println!("evenly, which is why Nichol & Dhariwal 2021 proposed it. mnist20 has about the same curve as");
    println!("ho2020, in 20 steps.\n");
    Ok(())
}

/// Shows why a schedule with fewer timesteps needs larger betas.
fn unscaled() -> Result<()> {
    println!("The betas of ho2020 with 20 steps instead of 1000\n");
    let config = NoiseScheduleConfig { num_train_timesteps: 20, ..NoiseScheduleConfig::ho2020() };
    let schedule = NoiseSchedule::new(&config)?;
    match schedule.warning() {
        Some(warning) => println!("  warning: {warning}"),
        None => println!("  no warning"),
    }
    println!("  The network would never see pure noise in training, but sampling starts from pure noise.");
    println!("\nThe same schedule with each beta multiplied by 1000/20\n");
    match NoiseSchedule::new(&NoiseScheduleConfig { beta_start: 0.005, beta_end: 1.0, ..config }) {
        Ok(_) => println!("  accepted"),
        Err(error) => println!("  error: {error}"),
    }
    println!("  beta = 1 removes all signal in one step. mnist20 ends at 0.7, with alpha_cumprod 5e-5.");
    Ok(())
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a width in characters")]
fn bar(part: f64, width: usize) -> String {
    "▇".repeat((part * width as f64).round() as usize)
}
