//! Trains a network that is not of this project: layer normalisation and GELU, on digits of 14×14 pixels.
//!
//! ```sh
//! cargo run --release -p ddpm-train --example foreign_network
//! ```
//!
//! It takes the initial weights and all noise from a seed, stops in the middle, saves the optimizer, goes on from the file
//! with a new network, and checks that the weights are those of a training that was not stopped, bit for bit. Then it draws
//! ten digits with the averaged weights and prints them.

#![allow(clippy::print_stdout, reason = "an example prints its results")]

use std::error::Error;

use candle_core::{DType, Device, Module, Tensor};
use candle_nn::{LayerNorm, Linear, VarBuilder, VarMap, layer_norm, linear};
use ddpm_core::{CounterRng, NoiseSchedule, NoiseScheduleConfig, PredictionType, Purpose, Sampler, Steps};
use ddpm_data::Splits;
use ddpm_train::{AdamW, AdamWConfig, seeded_var_builder};

const SIDE: usize = 14;
const PIXELS: usize = SIDE * SIDE;
const WIDTH: usize = 256;
const BATCH: usize = 64;
const STEPS: u64 = 1200;
/// The step at which the training stops once.
const HALF: u64 = 500;
const LEARNING_RATE: f64 = 2e-3;
const SEED: u64 = 1;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let schedule = NoiseSchedule::new(&NoiseScheduleConfig {
        prediction_type: PredictionType::Sample,
        ..NoiseScheduleConfig::mnist20()
    })?;
    let digits = digits()?;

    let mut whole = Training::new(SEED)?;
    whole.steps(&digits, &schedule, 0..STEPS)?;

    let mut first = Training::new(SEED)?;
    first.steps(&digits, &schedule, 0..HALF)?;
    let file = tempfile::Builder::new().suffix(".safetensors").tempfile()?;
    candle_core::safetensors::save(&first.optimizer.state()?, file.path())?;
    // The seed of these weights is another one, but the file has all of them.
    let mut second = Training::new(SEED + 1)?;
    second.optimizer.restore(&candle_core::safetensors::load(file.path(), &Device::Cpu)?)?;
    second.steps(&digits, &schedule, u64::from(second.optimizer.steps())..STEPS)?;
    for (name, average) in whole.optimizer.ema()? {
        let resumed = &second.optimizer.ema()?[&name];
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        if values(&average)? != values(resumed)? {
            return Err(format!("{name} differs").into());
        }
    }
    println!("the resumed training has the same weights");

    let averaged = VarBuilder::from_tensors(second.optimizer.ema()?, DType::F32, &Device::Cpu);
    let network = Network::new(&averaged)?;
    let plan = Sampler::ddpm().plan(&schedule, Steps::All)?;
    let images = CounterRng::new(SEED).images(0..10);
    let start = images.start(&[PIXELS], &Device::Cpu)?;
    let x_start = plan.sample(
        start,
        |x_t: &Tensor, timestep| network.forward(x_t, &[timestep.t(); 10]),
        images.noise(),
    )?;
    print(&x_start)
}

/// A network in training.
struct Training {
    network: Network,
    optimizer: AdamW,
}

impl Training {
    fn new(seed: u64) -> Result<Self> {
        let variables = VarMap::new();
        let builder = seeded_var_builder(&variables, CounterRng::new(seed), DType::F32, &Device::Cpu);
        let network = Network::new(&builder)?;
        let named = variables.data().lock().map_err(|error| error.to_string())?.clone();
        Ok(Self { network, optimizer: AdamW::new(named, AdamWConfig::default(), 0.99)? })
    }

    /// Takes steps. The position of an image in the stream of training images addresses its random numbers, so a step depends
    /// on its number alone.
    fn steps(
        &mut self,
        digits: &Tensor,
        schedule: &NoiseSchedule,
        steps: std::ops::Range<u64>,
    ) -> Result<()> {
        let rng = CounterRng::new(SEED);
        for step in steps {
            let positions: Vec<u64> = (step * BATCH as u64..).take(BATCH).collect();
            let number = |purpose, below| positions.iter().map(move |&at| rng.below(purpose, at, 0, below));
            let count = u32::try_from(digits.dim(0)?)?;
            let indices: Vec<u32> = number(Purpose::SHUFFLE, count).collect();
            let t: Vec<usize> = number(Purpose::TRAIN_TIMESTEP, 20).map(|t| t as usize).collect();
            let x_start = digits.index_select(&Tensor::new(indices, &Device::Cpu)?, 0)?;
            let eps = rng.normal_like(Purpose::TRAIN_NOISE, &positions, 0, &x_start)?;
            let x_t = schedule.q_sample(&x_start, &t, &eps)?;
            let times: Vec<f64> = t.iter().map(|&t| t as f64).collect();
            let loss = (self.network.forward(&x_t, &times)? - &x_start)?.sqr()?.mean_all()?;
            self.optimizer.step(&loss.backward()?, LEARNING_RATE)?;
            if step % 200 == 0 {
                println!("step {step}: loss {:.4}", loss.to_scalar::<f32>()?);
            }
        }
        Ok(())
    }
}

/// Emits x₀ for x_t [B, 196] and a timestep for each image.
struct Network {
    input: Linear,
    time: Linear,
    norm: LayerNorm,
    inner: Linear,
    output: Linear,
}

impl Network {
    fn new(builder: &VarBuilder<'_>) -> candle_core::Result<Self> {
        Ok(Self {
            input: linear(PIXELS, WIDTH, builder.pp("input"))?,
            time: linear(1, WIDTH, builder.pp("time"))?,
            norm: layer_norm(WIDTH, 1e-5, builder.pp("norm"))?,
            inner: linear(WIDTH, WIDTH, builder.pp("inner"))?,
            output: linear(WIDTH, PIXELS, builder.pp("output"))?,
        })
    }

    fn forward(&self, x_t: &Tensor, t: &[f64]) -> candle_core::Result<Tensor> {
        let t = Tensor::new(t, &Device::Cpu)?.affine(0.1, -1.0)?.to_dtype(DType::F32)?;
        let h = (self.input.forward(x_t)? + self.time.forward(&t.unsqueeze(1)?)?)?.gelu()?;
        let h = (self.inner.forward(&self.norm.forward(&h)?)?.gelu()? + h)?;
        self.output.forward(&h)
    }
}

/// The training images of MNIST, each pixel the mean of four: [N, 196] on the scale [−1, 1].
fn digits() -> Result<Tensor> {
    let splits = Splits::mnist()?;
    let data = splits.train();
    let shape = (10_000, 1, 2 * SIDE, 2 * SIDE);
    let levels = &data.images()[..shape.0 * data.image_size()];
    let images = Tensor::from_slice(levels, shape, &Device::Cpu)?.to_dtype(DType::F32)?;
    Ok(images.avg_pool2d(2)?.flatten_from(1)?.affine(1.0 / 127.5, -1.0)?)
}

/// Prints images side by side.
fn print(images: &Tensor) -> Result<()> {
    for half in images.chunk(2, 0)? {
        let rows = half.reshape(((), SIDE, SIDE))?.to_vec3::<f32>()?;
        for y in 0..SIDE {
            let shade = |x: &f32| match *x {
                x if x > 0.3 => '#',
                x if x > -0.4 => '+',
                _ => ' ',
            };
            let line: Vec<String> = rows.iter().map(|image| image[y].iter().map(shade).collect()).collect();
            println!("{}", line.join(" "));
        }
    }
    Ok(())
}
