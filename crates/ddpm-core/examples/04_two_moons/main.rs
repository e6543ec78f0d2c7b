//! Training and sampling on a toy data set: two moons in the plane, a small network, and four samplers.
//!
//! ```sh
//! cargo run --release -p ddpm-core --example 04_two_moons [two-moons.svg]
//! ```
//!
//! It trains the network, prints a table that compares samples with test data, and draws the samples. All random numbers
//! come from fixed seeds, including the initial weights, so every run gives the same result.

#![allow(clippy::print_stdout, reason = "an example prints its results")]

mod report;

use std::{env, f64::consts::PI, ops::Range};

use anyhow::Result;
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::{AdamW, Linear, Module, Optimizer};
use ddpm_core::{
    CounterRng, NoiseSchedule, NoiseScheduleConfig, PredictionType, Purpose, ReverseVariance, Sampler, Steps,
    sampler::DpmSolver,
};

const TRAINING_STEPS: u64 = 3000;
const BATCH: u64 = 384;
const SAMPLES: u64 = 1500;
const TEST: Range<u64> = SAMPLES..2 * SAMPLES;
const WIDTH: usize = 64;
const FREQUENCIES: [f32; 4] = [1.0, 2.0, 4.0, 8.0];

fn main() -> Result<()> {
    let prediction_type = PredictionType::VPrediction;
    let config = NoiseScheduleConfig { prediction_type, clip_sample: false, ..NoiseScheduleConfig::cosine() };
    let schedule = NoiseSchedule::new(&config)?;
    let network = train(&schedule)?;
    let mut panels = vec![("the data".to_owned(), moons(0..SAMPLES)?)];
    for (name, sampler, steps) in [
        ("DDPM", Sampler::Ddpm(ReverseVariance::FixedSmall), 100),
        ("DDPM without noise", Sampler::Ddpm(ReverseVariance::Zero), 100),
        ("DDIM", Sampler::Ddim(0.0), 50),
        ("DPM-Solver++ 2M", Sampler::DpmSolverMultistep(DpmSolver::plus_plus_2m()), 20),
    ] {
        let sampled = sample(&network, &schedule, &sampler, steps, |_x_t| Ok(()))?;
        panels.push((format!("{name}, {steps} steps"), sampled));
    }
    report::compare(&panels, &moons(TEST)?)?;
    let mut paths = Vec::new();
    let keep = |x_t: &Tensor| report::points(x_t).map(|points| paths.push(points)).map_err(Into::into);
    sample(&network, &schedule, &Sampler::Ddim(0.0), 100, keep)?;
    let path = env::args().nth(1).unwrap_or_else(|| "two-moons.svg".to_owned());
    report::draw(&path, &panels, &paths)?;
    println!("\n{path} shows the samples and the paths of the points from noise to data.");
    Ok(())
}

/// Points on two half circles, with a little noise. Each point depends only on its number.
fn moons(numbers: Range<u64>) -> Result<Tensor> {
    let (rng, numbers): (_, Vec<u64>) = (CounterRng::new(1), numbers.collect());
    let on_curve = |&number: &u64| {
        let angle = PI * rng.uniform(Purpose::EVALUATION, number, 0);
        match rng.below(Purpose::EVALUATION, number, 1, 2) {
            0 => vec![angle.cos() - 0.5, angle.sin() - 0.25],
            _ => vec![0.5 - angle.cos(), 0.25 - angle.sin()],
        }
    };
    let curve = Tensor::new(numbers.iter().map(on_curve).collect::<Vec<_>>(), &Device::Cpu)?;
    let noise = rng.normal(Purpose::EVALUATION, &numbers, 2, &[2], DType::F32, &Device::Cpu)?;
    Ok((curve.to_dtype(DType::F32)? + noise * 0.06)?)
}

/// Linear layers with SiLU between them. The input is a point and its time, with sines and cosines of both.
struct Network {
    layers: Vec<Linear>,
}

impl Network {
    /// Initializes the weights with a fixed seed, because candle's initialization cannot be seeded.
    fn new(vars: &mut Vec<Var>) -> Result<Self> {
        let rng = CounterRng::new(2);
        let widths = [3 + 6 * FREQUENCIES.len(), WIDTH, WIDTH, WIDTH, 2];
        let layer = |(number, width): (u64, &[usize])| {
            let (inputs, shape) = (width[0], [width[1], width[0]]);
            let weight = rng.normal(Purpose::WEIGHTS, &[number], 0, &shape, DType::F32, &Device::Cpu)?;
            let weight = Var::from_tensor(&(weight.squeeze(0)? * (1.5 / inputs as f64).sqrt())?)?;
            let bias = Var::zeros(width[1], DType::F32, &Device::Cpu)?;
            vars.extend([weight.clone(), bias.clone()]);
            Ok(Linear::new(weight.as_tensor().clone(), Some(bias.as_tensor().clone())))
        };
        Ok(Self { layers: (0..).zip(widths.windows(2)).map(layer).collect::<Result<_>>()? })
    }

    /// Evaluates the network. `x_t` is [B, 2], and `time` is t/T for each point.
    fn forward(&self, x_t: &Tensor, time: Vec<f64>) -> candle_core::Result<Tensor> {
        let time = Tensor::new(time, &Device::Cpu)?.to_dtype(DType::F32)?.unsqueeze(1)?;
        let input = Tensor::cat(&[x_t, &time], D::Minus1)?;
        let frequencies = Tensor::new(&FREQUENCIES, &Device::Cpu)?;
        let angles = input.unsqueeze(2)?.broadcast_mul(&frequencies)?.flatten_from(1)?;
        let input = Tensor::cat(&[&input, &angles.sin()?, &angles.cos()?], D::Minus1)?;
        let (last, hidden) = self.layers.split_last().ok_or_else(|| candle_core::Error::msg("no layer"))?;
        last.forward(&hidden.iter().try_fold(input, |x, layer| layer.forward(&x)?.silu())?)
    }
}

fn train(schedule: &NoiseSchedule) -> Result<Network> {
    let mut vars = Vec::new();
    let network = Network::new(&mut vars)?;
    let mut optimizer = AdamW::new_lr(vars, 0.0)?;
    let (rng, mut mean) = (CounterRng::new(3), 0.0);
    for step in 0..TRAINING_STEPS {
        let numbers: Vec<u64> = (step * BATCH..(step + 1) * BATCH).collect();
        let x_start = moons(TEST.end + step * BATCH..TEST.end + (step + 1) * BATCH)?;
        let timestep = |&number: &u64| rng.below(Purpose::TRAIN_TIMESTEP, number, 0, 1000) as usize;
        let t: Vec<usize> = numbers.iter().map(timestep).collect();
        let eps = rng.normal_like(Purpose::TRAIN_NOISE, &numbers, 0, &x_start)?;
        let x_t = schedule.q_sample(&x_start, &t, &eps)?;
        let v = network.forward(&x_t, t.iter().map(|&t| t as f64 / 1000.0).collect())?;
        let target = schedule.target(PredictionType::VPrediction, &x_start, &eps, &t)?;
        let loss = (v - target)?.sqr()?.mean_all()?;
        // The learning rate decreases as a cosine, so that the last updates average out the noise of the batches.
        optimizer.set_learning_rate(2e-3 * (1.0 + (PI * step as f64 / TRAINING_STEPS as f64).cos()));
        optimizer.backward_step(&loss)?;
        mean += f64::from(loss.to_scalar::<f32>()?) / 500.0;
        if (step + 1).is_multiple_of(500) {
            println!("step {:4}   loss {mean:.4}", step + 1);
            mean = 0.0;
        }
    }
    Ok(network)
}

fn sample(
    network: &Network,
    schedule: &NoiseSchedule,
    sampler: &Sampler,
    steps: usize,
    mut observe: impl FnMut(&Tensor) -> ddpm_core::Result<()>,
) -> Result<Tensor> {
    let images = CounterRng::new(4).images(0..SAMPLES);
    let x_t = images.start(&[2], &Device::Cpu)?;
    observe(&x_t)?;
    Ok(sampler.plan(schedule, Steps::Spaced(steps))?.sample_with(
        x_t,
        |x_t, timestep| network.forward(x_t, vec![timestep.t() / 1000.0; x_t.dim(0)?]),
        images.noise(),
        |run| Ok(observe(run.x_t())?),
    )?)
}
