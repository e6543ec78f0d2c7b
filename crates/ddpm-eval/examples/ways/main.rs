//! Four ways to train a small network for the same time, and how good the images are that it then draws.
//!
//! ```sh
//! cargo run --release -p ddpm-eval --example ways -- --minutes 3 [--seed 1] [--samples 10000] [--only energy]
//! ```
//!
//! Many clean images x₀ could lie behind a noised one xₜ. The ways differ in what the network says of them:
//!
//! | way | it says | it is told | loss |
//! | --- | --- | --- | --- |
//! | `mean` | their mean | xₜ, t, class | E ‖x̂ − x₀‖² |
//! | `energy` | any one of them | a random vector ξ as well | E ‖x̂(ξ) − x₀‖^β − ½ λ E ‖x̂(ξ) − x̂(ξ′)‖^β |
//! | `self-conditioning` | their mean | what it said before as well | E ‖x̂ − x₀‖² |
//! | `token-mixing` | their mean, by another network, of patches | xₜ, t, class | E ‖x̂ − x₀‖² |
//!
//! A step of DDPM goes to the posterior q(xₜ₋₁ given xₜ, x₀) with x̂ in place of x₀. The mean is right for many short
//! steps. With 20 long ones it leaves out how much the images behind xₜ differ, and an x̂ drawn from among them would
//! be right for steps of any length (De Bortoli et al. 2025, "Distributional diffusion models with scoring rules",
//! arXiv 2502.02483). The energy score, with 0 < β < 2 and λ = 1, is smallest in expectation if x̂ has exactly the
//! distribution of x₀ given xₜ: the first term draws the x̂ to the data, the second keeps them apart. Self-conditioning
//! (Chen et al. 2022, "Analog bits", arXiv 2208.04202) lets a step go on from the estimate of the step before. These
//! three have the same residual network; that of the fourth mixes the patches of an image by linear layers.
//!
//! One sees a table: the steps that each way took in its time, and its figures beside those of real test images. All
//! random numbers come from the seed. Time only decides when a way stops, so a run that takes as many steps ends with
//! the same weights; another machine, or a busy one, takes another number of steps.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example speaks to its user")]

mod network;
mod trainer;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use candle_core::Device;
use clap::{Parser, ValueEnum};
use ddpm_core::{
    AddressedRng, NoiseMode, NoiseSchedule, PredictionType, Purpose, ScheduleConfig, Timesteps, sampler,
};
use ddpm_data::{Corpus, to_pixel};
use ddpm_eval::{ClassAccuracy, Evaluation, FeatureNet, GeneratedImages, ManifoldFigures, Metric, Report};

use network::{Network, XI, known};
use trainer::{Trainer, normal};

const PIXELS: usize = 784;
const CLASSES: usize = 10;
/// Images that are drawn at once.
const CHUNK: usize = 500;

/// Compares ways of training a small network for the same time.
#[derive(Parser)]
struct Args {
    /// How long each way trains.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// The seed of all randomness.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Images to draw and measure, as many of each class.
    #[arg(long, default_value_t = 10_000)]
    samples: usize,
    /// This way alone.
    #[arg(long)]
    only: Option<Way>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    Mean,
    Energy,
    SelfConditioning,
    TokenMixing,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.samples.is_multiple_of(CLASSES), "--samples {}: not a multiple of {CLASSES}", args.samples);
    let limit = Duration::try_from_secs_f64(args.minutes * 60.0).context("--minutes")?;
    // What the network puts out is x₀.
    let config = ScheduleConfig { prediction_type: PredictionType::Sample, ..ScheduleConfig::mnist20() };
    let (schedule, corpus) = (NoiseSchedule::new(&config)?, Corpus::mnist()?);
    let ways = args.only.map_or_else(|| Way::value_variants().to_vec(), |way| vec![way]);
    let start = |&way| Trainer::new(way, &schedule, corpus.train(), args.seed);
    let mut trainers = ways.iter().map(start).collect::<Result<Vec<_>>>()?;
    // The one that is furthest behind takes a step, so whatever else the machine does slows all of them alike.
    while let Some(trainer) = trainers.iter_mut().filter(|it| it.spent < limit).min_by_key(|it| it.spent) {
        trainer.step()?;
    }
    let net = FeatureNet::builtin(&Device::Cpu)?;
    let labels: Vec<u8> = (0..10).cycle().take(args.samples).collect();
    let mut reports = Vec::new();
    for trainer in &trainers {
        eprintln!("{:?}: {} images are drawn and measured", trainer.way, args.samples);
        let pixels = sample(trainer.way, &trainer.averaged(), &schedule, &labels, args.seed)?;
        let evaluation = Evaluation {
            net: &net,
            train: corpus.train(),
            test: corpus.test(),
            classes: None,
            metrics: &[Metric::Frechet, Metric::Manifold, Metric::Accuracy],
            seed: args.seed,
            device: &Device::Cpu,
        };
        let generated = GeneratedImages { pixels: &pixels, labels: Some(&labels) };
        reports.push(evaluation.measure(&generated, |_part| ())?);
    }
    print_table(&trainers, &reports, net.digest())
}

/// Grey levels of an image of each of `labels`, by DDPM in all steps with the posterior's noise and no guidance.
fn sample(
    way: Way,
    network: &Network,
    schedule: &NoiseSchedule,
    labels: &[u8],
    seed: u64,
) -> Result<Vec<u8>> {
    let (rng, timesteps) = (AddressedRng::new(seed), schedule.num_train_timesteps());
    let mut pixels = Vec::with_capacity(labels.len() * PIXELS);
    for (chunk, labels) in (0..).zip(labels.chunks(CHUNK)) {
        let images: Vec<u64> = (chunk * CHUNK as u64..).take(labels.len()).collect();
        let normal = |purpose, step, width| normal(rng, purpose, &images, step, width);
        let x_t = normal(Purpose::SAMPLE_START, 0, PIXELS)?;
        let mut before = x_t.zeros_like()?;
        let x_start = sampler::ddpm(
            schedule,
            &Timesteps::all(schedule),
            &NoiseMode::Posterior,
            x_t,
            |x_t, timestep| {
                let t = timestep.index();
                let extra = match way {
                    Way::Mean | Way::TokenMixing => None,
                    // A fresh one for each step. The sampler's noise has the addresses below T.
                    Way::Energy => Some(normal(Purpose::SAMPLE_STEP, timesteps + t, XI)),
                    Way::SelfConditioning => Some(before.clamp(-1_f32, 1_f32).map_err(Into::into)),
                };
                let extra = extra.transpose().map_err(candle_core::Error::wrap)?;
                let known = known(&vec![t; labels.len()], timesteps, labels)?;
                before = network.forward(x_t, &known, extra.as_ref())?;
                Ok(before.clone())
            },
            |_x_t, draw| normal(Purpose::SAMPLE_STEP, draw, PIXELS),
            |_step| Ok(()),
        )?;
        pixels.extend(x_start.flatten_all()?.to_vec1()?.into_iter().map(to_pixel));
    }
    Ok(pixels)
}

/// Precision, recall and class accuracy.
fn figures(manifold: &ManifoldFigures, accuracy: &ClassAccuracy) -> String {
    let (precision, recall) = (manifold.precision.mean, manifold.recall.mean);
    format!("{precision:.3} | {recall:.3} | {:.1} % |", 100.0 * accuracy.overall)
}

fn print_table(trainers: &[Trainer<'_>], reports: &[Report], digest: &str) -> Result<()> {
    println!("| way | steps | minutes | Fréchet / floor | precision | recall | class accuracy |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let mut real = None;
    for (trainer, report) in trainers.iter().zip(reports) {
        let (name, steps) = (trainer.way.to_possible_value().context("no name")?, trainer.steps);
        let minutes = trainer.spent.as_secs_f64() / 60.0;
        let ratio = report.frechet.as_ref().and_then(|it| it.ratio).context("no Fréchet distance")?;
        let manifold = report.manifold.as_ref().context("no precision")?;
        let accuracy = report.accuracy.as_ref().context("the feature net knows no classes")?;
        let figures = figures(&manifold.generated, &accuracy.generated);
        println!("| {} | {steps} | {minutes:.2} | {ratio:.1} | {figures}", name.get_name());
        // The same for every way.
        real = manifold.floor.as_ref().zip(accuracy.floor.as_ref());
    }
    let (manifold, accuracy) = real.context("no test images")?;
    println!(
        "| real test images | | | 1.0 | {}\n\nBy the feature net {digest}.",
        figures(manifold, accuracy)
    );
    Ok(())
}
