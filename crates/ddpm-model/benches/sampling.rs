//! The built-in model: one network evaluation by the CPU kernels and by candle's tensors, and sampling with all steps.

use std::{error::Error, path::Path, time::Duration};

use candle_core::{Device, Tensor, Var};
use criterion::{Criterion, Throughput};
use ddpm_core::Guidance;
use ddpm_model::{Denoiser, SampleConfig, read_model};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ddpm-cli/assets/models/mnist");
    let denoiser = read_model(&folder, &Device::Cpu)?;
    // With variables as weights, the denoiser takes the tensor path.
    let variable = |(name, weight): (&String, &Tensor)| -> candle_core::Result<_> {
        Ok((name.clone(), Var::from_tensor(weight)?.into_inner()))
    };
    let variables = denoiser.weights().iter().map(variable).collect::<candle_core::Result<_>>()?;
    let tensors = Denoiser::new(denoiser.config(), &denoiser.schedule_config(), variables)?;
    let config =
        SampleConfig { guidance: Guidance::new(1.0).into(), ..SampleConfig::ancestral(1, &denoiser)? };
    let mut criterion = Criterion::default().configure_from_args();
    for count in [1, 50, 1000] {
        let images: Vec<u64> = (0..count).collect();
        let labels: Vec<u32> = (0..10).cycle().take(images.len()).collect();
        let x_t = denoiser.start(&config, &images)?.into_x_t()?;
        let t = vec![10; images.len()];

        let mut group = criterion.benchmark_group(format!("network for {count}"));
        group.throughput(Throughput::Elements(count)).measurement_time(Duration::from_secs(3));
        // Fail here: a call that returns an error at once would look fast.
        denoiser.forward(&x_t, &t, &labels)?;
        tensors.forward(&x_t, &t, &labels)?;
        denoiser.sample(&config, &images, &labels, |_| Ok(()))?;
        group.bench_function("kernels", |bencher| bencher.iter(|| denoiser.forward(&x_t, &t, &labels)));
        group.bench_function("tensors", |bencher| bencher.iter(|| tensors.forward(&x_t, &t, &labels)));
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
