//! Our side of `cargo xtask bench --peer`: carries out one measured piece of work for each name that it reads
//! on standard input, and writes what it took as a line of JSON. The other side does the same in PyTorch.
//!
//! ```sh
//! echo train-128 | cargo run --release -p ddpm-train --example bench_server
//! ```

use std::{
    error::Error,
    hint::black_box,
    io::{self, BufRead, Write},
    time::Instant,
};

use candle_core::{Device, Tensor};
use ddpm_core::{LossWeighting, NoiseMode, PredictionType, Sampler, sampler::Guidance};
use ddpm_data::DataSet;
use ddpm_model::{Denoiser, DenoiserConfig, Network, SampleConfig, Steps, initial_weights};
use ddpm_train::{Preset, TrainConfig, Trainer};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The side of the square matrices whose product is the machine's peak.
const GEMM: usize = 2048;
const STEPS: usize = 20;
const WIDTH: usize = 1024;

fn main() -> Result<()> {
    let data = DataSet::mnist_train()?;
    let mut server = Server::new(&data)?;
    for line in io::stdin().lock().lines() {
        let reply = server.reply(line?.trim())?;
        writeln!(io::stdout(), "{reply}")?;
    }
    Ok(())
}

struct Server<'a> {
    data: &'a DataSet,
    config: TrainConfig,
    /// One for each batch size that was asked for.
    trainers: Vec<Trainer<'a>>,
    denoiser: Denoiser,
}

impl<'a> Server<'a> {
    fn new(data: &'a DataSet) -> Result<Self> {
        let network = Network::Plain { width: WIDTH, layers: 3, embedding: 64 };
        let denoiser = DenoiserConfig {
            network,
            output_type: PredictionType::Sample,
            ..DenoiserConfig::plain(data.rows(), data.cols(), 10)
        };
        let preset = TrainConfig::preset(Preset::Quick, data);
        // A schedule of the learning rate that these steps never end.
        let config = TrainConfig { loss: LossWeighting::Sample, epochs: 1000, denoiser, ..preset };
        let weights = initial_weights(&config.denoiser, config.seed, &Device::Cpu)?;
        let denoiser = Denoiser::new(&config.denoiser, &config.schedule, weights)?;
        Ok(Self { data, config, trainers: Vec::new(), denoiser })
    }

    fn reply(&mut self, job: &str) -> Result<Value> {
        Ok(match job {
            "info" => json!({
                "name": "ddpm",
                "version": env!("CARGO_PKG_VERSION"),
                "threads": rayon::current_num_threads(),
                "parameters": self.config.denoiser.parameter_count(),
            }),
            "train-128" => self.train(128, 80)?,
            "train-512" => self.train(512, 25)?,
            "sample-1000" => self.sample(1000, 1)?,
            "sample-50" => self.sample(50, 10)?,
            "sample-1" => self.sample(1, 50)?,
            "gemm" => gemm()?,
            _ => return Err(format!("unknown job `{job}`").into()),
        })
    }
}

impl Server<'_> {
    fn train(&mut self, batch_size: usize, steps: usize) -> Result<Value> {
        let found = self.trainers.iter().position(|trainer| trainer.config().batch_size == batch_size);
        let index = match found {
            Some(index) => index,
            None => {
                let config = TrainConfig { batch_size, ..self.config.clone() };
                self.trainers.push(Trainer::new(&config, self.data, &Device::Cpu)?);
                self.trainers.len() - 1
            }
        };
        let trainer = &mut self.trainers[index];
        let mut loss = f32::NAN;
        let started = Instant::now();
        for _ in 0..steps {
            loss = trainer.train_step()?.to_scalar()?;
        }
        let seconds = started.elapsed().as_secs_f64();
        let images = batch_size * steps;
        let [first, rest] = self.flops();
        // Forward and the weights' gradients everywhere, the inputs' gradients but for the first layer.
        let flops = images as f64 * (2.0 * first + 3.0 * rest);
        Ok(json!({ "seconds": seconds, "images": images, "flops": flops, "loss": loss }))
    }

    fn sample(&self, count: usize, times: usize) -> Result<Value> {
        let config = SampleConfig {
            seed: 1,
            sampler: Sampler::Ddpm(NoiseMode::Posterior),
            steps: Steps::All,
            guidance: Guidance::new(1.0),
        };
        let images: Vec<u64> = (0..count as u64).collect();
        let labels: Vec<u32> = (0..10).cycle().take(count).collect();
        let started = Instant::now();
        for _ in 0..times {
            black_box(self.denoiser.sample(&config, &images, &labels, |_| Ok(()))?);
        }
        let seconds = started.elapsed().as_secs_f64();
        let images = count * times;
        // What the first layer makes of timestep and class is computed once for all images.
        let DenoiserConfig { rows, cols, .. } = self.config.denoiser;
        let [_, rest] = self.flops();
        let first = 2.0 * (rows * cols * WIDTH) as f64;
        let flops = (images * STEPS) as f64 * (first + rest);
        Ok(json!({ "seconds": seconds, "images": images, "flops": flops }))
    }

    /// The operations of the matrix products for one image in one pass: of the first layer, and of the others.
    fn flops(&self) -> [f64; 2] {
        let matrices = self.config.denoiser.parameters().into_iter().filter(|p| p.shape.len() == 2);
        let flops: Vec<f64> = matrices.map(|p| 2.0 * p.shape.iter().product::<usize>() as f64).collect();
        [flops[0], flops[1..].iter().sum()]
    }
}

/// candle's product of matrices, which is that of the `gemm` crate, on all threads.
fn gemm() -> Result<Value> {
    let matrix = || Tensor::rand(-1.0_f32, 1.0, (GEMM, GEMM), &Device::Cpu);
    let (lhs, rhs) = (matrix()?, matrix()?);
    let started = Instant::now();
    black_box(lhs.matmul(&rhs)?);
    let seconds = started.elapsed().as_secs_f64();
    Ok(json!({ "seconds": seconds, "flops": 2.0 * (GEMM as f64).powi(3) }))
}
