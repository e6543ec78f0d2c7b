//! A whole step of training on MNIST: by the kernels of a CPU, and by candle's tensors and autograd.

use std::{error::Error, time::Duration};

use candle_core::Device;
use criterion::{Criterion, Throughput};
use ddpm_data::DataSet;
use ddpm_train::{Preset, TrainConfig, Trainer};

fn main() -> Result<(), Box<dyn Error>> {
    let data = DataSet::mnist_train()?;
    let mut criterion = Criterion::default().configure_from_args();
    for batch_size in [128, 512] {
        let config =
            TrainConfig { batch_size, epochs: 1000, ..TrainConfig::preset(Preset::Reproduce, &data) };
        let mut group = criterion.benchmark_group(format!("training step of {batch_size}"));
        group.throughput(Throughput::Elements(batch_size as u64));
        group.sample_size(20).measurement_time(Duration::from_secs(4));
        let trainers = [
            ("kernels", Trainer::new(&config, &data, &Device::Cpu)?),
            ("tensors", Trainer::with_tensors(&config, &data, &Device::Cpu)?),
        ];
        for (name, mut trainer) in trainers {
            // What fails would be fast.
            trainer.train_step()?;
            group.bench_function(name, |bencher| bencher.iter(|| trainer.train_step()));
        }
        group.finish();
    }
    criterion.final_summary();
    Ok(())
}
