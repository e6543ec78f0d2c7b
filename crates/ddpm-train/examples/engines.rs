//! Whether the CPU kernels train as well as candle's tensors and autograd: a pass over MNIST from several seeds
//! by each, and the loss on held-out images. The two see the same noise, but rounding drives them apart, so
//! their difference is to be small beside that between seeds.
//!
//! ```sh
//! cargo run --release -p ddpm-train --example engines    # about three minutes on two cores
//! ```

use std::{
    error::Error,
    io::{self, Write},
};

use candle_core::Device;
use ddpm_data::DataSet;
use ddpm_train::{Preset, TrainConfig, Trainer, held_out_loss};

const SEEDS: u64 = 4;
const HELD_OUT: usize = 10_000;

fn main() -> Result<(), Box<dyn Error>> {
    let (data, test) = (DataSet::mnist_train()?, DataSet::mnist_test()?);
    let mut out = io::stdout();
    let (mut by_kernels, mut by_tensors) = (Vec::new(), Vec::new());
    for seed in 1..=SEEDS {
        let config = TrainConfig { seed, epochs: 1, ..TrainConfig::preset(Preset::Quick, &data) };
        // The same held-out images, timesteps and noise for all.
        let ruler = TrainConfig { seed: 0, ..config.clone() };
        let loss = |mut trainer: Trainer<'_>| -> Result<f64, Box<dyn Error>> {
            for _ in 0..trainer.total_steps() {
                trainer.train_step()?;
            }
            Ok(held_out_loss(&trainer.ema_denoiser()?, &ruler, &test, HELD_OUT)?)
        };
        let kernels = loss(Trainer::new(&config, &data, &Device::Cpu)?)?;
        let tensors = loss(Trainer::with_tensors(&config, &data, &Device::Cpu)?)?;
        writeln!(out, "seed {seed}: held-out loss {kernels:.5} by kernels, {tensors:.5} by tensors")?;
        by_kernels.push(kernels);
        by_tensors.push(tensors);
    }
    let differences: Vec<f64> = std::iter::zip(&by_kernels, &by_tensors).map(|(a, b)| a - b).collect();
    let ((mean, deviation), (_, of_seeds)) = (moments(&differences), moments(&by_tensors));
    writeln!(
        out,
        "difference {mean:+.1e} ± {:.1e}; standard deviation between seeds {of_seeds:.1e}",
        deviation / (SEEDS as f64).sqrt()
    )?;
    Ok(())
}

/// Mean and standard deviation.
fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0)).sqrt())
}
