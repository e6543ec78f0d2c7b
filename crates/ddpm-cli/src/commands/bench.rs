//! `ddpm-cli bench`: the speed of training and sampling on this machine.
//!
//! A first round is not counted: it starts the threads and allocates the memory. In every later round, each kind of
//! work is timed once, so that a disturbance of the machine affects all kinds alike.

use std::time::{Duration, Instant};

use anyhow::Result;
use candle_core::Device;
use ddpm_core::{Guidance, Sampler, Steps};
use ddpm_data::{Dataset, Images, Labels};
use ddpm_model::{Denoiser, DenoiserConfig, NoisePath, SampleConfig};
use ddpm_train::{Preset, TrainConfig, Trainer};
use serde::Serialize;

use crate::{
    args::{Bench, Common, Work},
    model, output,
};

/// A measurement ends with the first training step, or the first sampling run, after this time.
const PIECE: Duration = Duration::from_millis(500);
/// Number of images to train on, unless a batch is larger. Their pixels are noise; the speed does not depend on them.
const IMAGES: usize = 10_000;

#[derive(Serialize)]
struct Report<'a> {
    version: &'a str,
    model: &'a str,
    device: String,
    threads: usize,
    parameters: usize,
    /// Number of sampling steps.
    steps: usize,
    rounds: usize,
    /// Speed of fused multiply-adds in registers, the fastest of all rounds; `None` without `--peak`.
    peak_gflop_per_second: Option<f64>,
    results: Vec<Measured>,
}

#[derive(Serialize)]
struct Measured {
    work: String,
    /// The median of the rounds.
    images_per_second: f64,
    /// Floating-point operations for one image, matrix products only.
    flop_per_image: usize,
    gflop_per_second: f64,
}

pub(crate) fn run(options: &Bench, common: &Common) -> Result<()> {
    let device = common.device.open()?;
    let denoiser = model::load(&options.model, &device)?;
    let batches = options.only.iter().map(|work| if let Work::Train(batch) = *work { batch } else { 0 });
    let data = noise(denoiser.config(), batches.max().unwrap_or(0).max(IMAGES))?;
    let jobs = options.only.iter().map(|&work| Job::new(work, &denoiser, &data, common.seed));
    let mut jobs = jobs.collect::<Result<Vec<_>>>()?;
    let mut peaks = Vec::new();
    for round in 0..=options.rounds {
        for job in &mut jobs {
            let speed = per_second(&device, || job.work())?;
            if round > 0 {
                job.speeds.push(speed);
            }
        }
        if options.peak {
            peaks.push(ddpm_model::peak_flops());
        }
    }
    let results = jobs.into_iter().map(|job| job.measured(&denoiser)).collect();
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        model: &options.model,
        device: common.device.to_string(),
        threads: rayon::current_num_threads(),
        parameters: denoiser.config().parameter_count(),
        steps: denoiser.schedule().num_train_timesteps(),
        rounds: options.rounds,
        peak_gflop_per_second: peaks.into_iter().reduce(f64::max).map(|speed| speed / 1e9),
        results,
    };
    output::result(common, &report, &text(&report))
}

/// Repeats `work` for the time [`PIECE`] and returns items per second; `work` returns its number of items.
fn per_second(device: &Device, mut work: impl FnMut() -> Result<usize>) -> Result<f64> {
    let (started, mut items) = (Instant::now(), 0);
    while started.elapsed() < PIECE {
        items += work()?;
    }
    device.synchronize()?;
    Ok(items as f64 / started.elapsed().as_secs_f64())
}

/// A kind of work, ready to run, and its images per second in each round so far.
struct Job<'a> {
    name: Work,
    kind: Kind<'a>,
    speeds: Vec<f64>,
}

enum Kind<'a> {
    Train(Box<Trainer<'a>>),
    Sample { denoiser: &'a Denoiser, config: Box<SampleConfig>, images: Vec<u64>, labels: Vec<u32> },
}

impl<'a> Job<'a> {
    fn new(name: Work, denoiser: &'a Denoiser, data: &'a Dataset, seed: u64) -> Result<Self> {
        let kind = match name {
            Work::Train(batch_size) => {
                let config = TrainConfig {
                    seed,
                    batch_size,
                    // Longer than any measurement.
                    epochs: 1_000_000,
                    denoiser: denoiser.config().clone(),
                    schedule: denoiser.schedule_config(),
                    ..TrainConfig::preset(Preset::Best, data)
                };
                Kind::Train(Box::new(Trainer::new(&config, data, denoiser.device())?))
            }
            Work::Sample(count) => {
                // Guidance would call the network twice at some timesteps.
                let plan = Sampler::ddpm().plan(denoiser.schedule(), Steps::All)?;
                let config = SampleConfig {
                    seed,
                    plan,
                    guidance: Guidance::new(1.0).into(),
                    noise_path: NoisePath::default(),
                    given: None,
                };
                let classes = u32::try_from(denoiser.config().num_classes)?.max(1);
                let labels = (0..classes).cycle().take(count).collect();
                Kind::Sample { denoiser, config: config.into(), images: (0..).take(count).collect(), labels }
            }
        };
        Ok(Self { name, kind, speeds: Vec::new() })
    }

    /// Takes a training step or samples all images, and returns the number of images.
    fn work(&mut self) -> Result<usize> {
        match &mut self.kind {
            Kind::Train(trainer) => {
                trainer.train_step()?;
                Ok(trainer.config().batch_size)
            }
            Kind::Sample { denoiser, config, images, labels } => {
                denoiser.sample(config, images, labels, |_| Ok(()))?;
                Ok(images.len())
            }
        }
    }

    fn measured(mut self, denoiser: &Denoiser) -> Measured {
        self.speeds.sort_by(f64::total_cmp);
        let middle = self.speeds.len().div_euclid(2);
        let images_per_second =
            f64::midpoint(self.speeds[middle], self.speeds[self.speeds.len() - 1 - middle]);
        let flop = denoiser.config().flop_count();
        let flop_per_image = match self.name {
            Work::Train(_) => flop.train,
            Work::Sample(_) => flop.predict * denoiser.schedule().num_train_timesteps(),
        };
        let gflop_per_second = images_per_second * flop_per_image as f64 / 1e9;
        Measured { work: self.name.to_string(), images_per_second, flop_per_image, gflop_per_second }
    }
}

/// A data set of noise images with the size and the classes of a model.
fn noise(config: &DenoiserConfig, count: usize) -> Result<Dataset> {
    let byte = |i: usize| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0];
    let pixels = (0..count * config.pixels()).map(byte).collect();
    let images = Images::new("noise", config.rows, config.cols, pixels)?;
    let classes = u8::try_from(config.num_classes)?;
    let values = (0..classes).cycle().take(count).collect();
    let labels = (classes > 0).then(|| Labels { file: "noise".into(), values });
    Ok(Dataset::new("noise", images, labels)?)
}

fn text(report: &Report<'_>) -> String {
    let Report { model, device, threads, parameters, steps, rounds, .. } = report;
    let mut text = format!(
        "{model}: {parameters} parameters, {steps} sampling steps; {device}, {threads} threads, medians of {rounds} rounds\n\
         {:14} {:>10} {:>12} {:>9}",
        "", "images/s", "MFLOP/image", "GFLOP/s"
    );
    for Measured { work, images_per_second, flop_per_image, gflop_per_second } in &report.results {
        let mflop = *flop_per_image as f64 / 1e6;
        text += &format!("\n{work:14} {images_per_second:>10.0} {mflop:>12.1} {gflop_per_second:>9.1}");
        if let Some(peak) = report.peak_gflop_per_second {
            text += &format!("  {:.0} % of the peak", 100.0 * gflop_per_second / peak);
        }
    }
    if let Some(peak) = report.peak_gflop_per_second {
        text += &format!("\npeak           {peak:>33.1}  fused multiply-adds in registers");
    }
    text
}
