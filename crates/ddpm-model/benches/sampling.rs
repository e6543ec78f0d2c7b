//! The built-in model: one prediction by the kernels of a CPU and by candle's tensors, and whole samples.

use std::{error::Error, path::Path, time::Duration};

use candle_core::Device;
use criterion::{Criterion, Throughput};
use ddpm_core::sampler::Guidance;
use ddpm_model::{SampleConfig, read_model};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/models/mnist");
    let denoiser = read_model(&folder, &Device::Cpu)?;
    let config = SampleConfig { guidance: Guidance::new(1.0), ..SampleConfig::ancestral(1, &denoiser) };
    let mut criterion = Criterion::default().configure_from_args();
    for count in [1, 50, 1000] {
        let images: Vec<u64> = (0..count).collect();
        let labels: Vec<u32> = (0..10).cycle().take(images.len()).collect();
        let x_t = denoiser.start(&config, &images)?;
        let t = vec![10; images.len()];

        let mut group = criterion.benchmark_group(format!("prediction for {count}"));
        group.throughput(Throughput::Elements(count)).measurement_time(Duration::from_secs(3));
        group.bench_function("kernels", |bencher| bencher.iter(|| denoiser.predict(&x_t, 10, &labels, 1.0)));
        group.bench_function("tensors", |bencher| bencher.iter(|| denoiser.forward(&x_t, &t, &labels)));
        group.finish();

        let mut group = criterion.benchmark_group("sampling, 20 steps");
        group.throughput(Throughput::Elements(count)).sample_size(10);
        group.bench_function(format!("{count} images"), |bencher| {
            bencher.iter(|| denoiser.sample(&config, &images, &labels, |_| Ok(())));
        });
        group.finish();
    }
    criterion.final_summary();
    Ok(())
}
