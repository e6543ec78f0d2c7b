//! How much faster the CPU kernels train than candle's tensors and autograd, on the same network, the same
//! images and the same noise: the two in turn, and the median of their ratios.
//!
//! ```sh
//! cargo run --release -p ddpm-train --example engines
//! ```

use std::{
    error::Error,
    io::{self, Write},
    time::Instant,
};

use candle_core::Device;
use ddpm_data::DataSet;
use ddpm_train::{Preset, TrainConfig, Trainer};

const ROUNDS: usize = 7;
const STEPS: usize = 40;

fn main() -> Result<(), Box<dyn Error>> {
    let data = DataSet::mnist_train()?;
    for batch_size in [128, 512] {
        let config = TrainConfig { batch_size, ..TrainConfig::preset(Preset::Reproduce, &data) };
        let mut kernels = Trainer::new(&config, &data, &Device::Cpu)?;
        let mut tensors = Trainer::with_tensors(&config, &data, &Device::Cpu)?;
        let images_per_second = |trainer: &mut Trainer<'_>| -> Result<f64, Box<dyn Error>> {
            let start = Instant::now();
            for _ in 0..STEPS {
                trainer.train_step()?;
            }
            Ok((STEPS * batch_size) as f64 / start.elapsed().as_secs_f64())
        };
        // Not counted: threads start and memory is touched for the first time.
        images_per_second(&mut kernels)?;
        images_per_second(&mut tensors)?;
        let rounds = (0..ROUNDS)
            .map(|_| Ok((images_per_second(&mut kernels)?, images_per_second(&mut tensors)?)))
            .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
        let kernels = median(rounds.iter().map(|round| round.0).collect());
        let tensors = median(rounds.iter().map(|round| round.1).collect());
        let ratio = median(rounds.iter().map(|round| round.0 / round.1).collect());
        writeln!(
            io::stdout(),
            "batch {batch_size}: kernels {kernels:.0}, tensors {tensors:.0} images/s, ratio {ratio:.2}"
        )?;
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().div_euclid(2)).copied().unwrap_or(f64::NAN)
}
