//! The forward process: how a schedule turns a picture into noise, and what makes a schedule a good one.
//!
//! ```sh
//! cargo run -p ddpm-core --example 01_forward_process
//! ```
//!
//! One sees the table of the 20-step schedule, a picture sinking into noise, three published schedules side
//! by side, and what happens to a schedule for 1000 steps that is used with 20.

#![allow(clippy::print_stdout, reason = "an example speaks to its user")]

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

/// xₜ = √ᾱₜ x₀ + √(1−ᾱₜ) ε: the two factors are all that a schedule is.
fn table(schedule: &NoiseSchedule) -> Result<()> {
    println!("The schedule mnist20: T = 20, beta linear from 0.001 to 0.7\n");
    println!("  t    beta   alpha_cumprod   signal    noise        snr   what is left of the picture");
    for t in [0, 1, 2, 4, 6, 8, 10, 13, 16, 19] {
        let (timestep, beta) = (schedule.timestep(t)?, schedule.betas()[t]);
        let alpha_cumprod = timestep.alpha_cumprod();
        let (signal, noise) = (alpha_cumprod.sqrt(), (1.0 - alpha_cumprod).sqrt());
        let (snr, bar) = (schedule.snr(t)?, bar(signal, 28));
        println!("{t:3}  {beta:6.4}   {alpha_cumprod:13.6}   {signal:6.4}   {noise:6.4}   {snr:8.3}   {bar}");
    }
    println!("\nsignal² + noise² = 1: data of variance 1 keeps it at every step, only its content changes.");
    println!("Where the snr passes 1 there is as much noise as picture; there a sampler decides");
    println!("what it draws.\n");
    Ok(())
}

/// The same noise at each t: only the factors change.
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
    println!("A picture at five steps, by q_sample with one and the same noise\n");
    println!("{}", steps.map(|t| format!("{:21}", format!("t = {t}"))).concat().trim_end());
    for row in 0..9 {
        let line = noised.iter().map(|picture| picture[row].iter().map(shade).collect::<String>());
        println!("{}", line.collect::<Vec<_>>().join(" │ ").trim_end());
    }
    println!("\nAt t = 19 nothing of the picture is seen: it is the noise alone, and that is where sampling");
    println!("starts. A network learns to go one step back from any of these.\n");
    Ok(())
}

/// Two characters for a pixel from −1 (empty) to 1 (full), so that it is about a square.
fn shade(pixel: &f32) -> &'static str {
    match pixel {
        ..-0.6 => "  ",
        ..-0.2 => "░░",
        ..0.2 => "▒▒",
        ..0.6 => "▓▓",
        _ => "██",
    }
}

/// The schedules differ in how the signal is spread over the way, not in where it ends.
fn compare() -> Result<()> {
    println!("Three schedules, by the part of the way to t = T - 1: the signal that is left\n");
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
    println!("\nThe linear ones spend their second half where little is left to see; the cosine falls");
    println!("evenly, which is why Nichol & Dhariwal 2021 proposed it. mnist20 is the curve of ho2020 in");
    println!("20 steps.\n");
    Ok(())
}

/// Why the betas must grow when the steps get fewer.
fn unscaled() -> Result<()> {
    println!("The betas of ho2020 with 20 steps instead of 1000\n");
    let config = NoiseScheduleConfig { num_train_timesteps: 20, ..NoiseScheduleConfig::ho2020() };
    let schedule = NoiseSchedule::new(&config)?;
    match schedule.warning() {
        Some(warning) => println!("  warning: {warning}"),
        None => println!("  no warning"),
    }
    println!("  Training would never show pure noise to the network, and sampling starts with nothing else.");
    println!("\nThe same, each beta 1000/20 times as large\n");
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
