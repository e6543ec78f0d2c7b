//! The training step on MNIST on a CPU, at several batch sizes.

use std::{error::Error, time::Duration};

use candle_core::Device;
use criterion::{Criterion, Throughput};
use ddpm_data::Dataset;
use ddpm_train::{Preset, TrainConfig, Trainer};

fn main() -> Result<(), Box<dyn Error>> {
    let data = Dataset::mnist_train()?;
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("training step");
    group.sample_size(20).measurement_time(Duration::from_secs(4));
    for batch_size in [128, 512] {
        let config = TrainConfig { batch_size, epochs: 1000, ..TrainConfig::preset(Preset::Standard, &data) };
        let mut trainer = Trainer::new(&config, &data, &Device::Cpu)?;
        // Fail here: a step that returns an error at once would look fast.
        trainer.train_step()?;
        group.throughput(Throughput::Elements(batch_size as u64));
        group.bench_function(format!("batch {batch_size}"), |bencher| bencher.iter(|| trainer.train_step()));
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}
