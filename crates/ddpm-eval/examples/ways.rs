//! Three ways to train the same small network for the same time, and how good the images are that it then draws.
//!
//! ```sh
//! cargo run --release -p ddpm-eval --example ways -- --minutes 1 [--seed 1] [--samples 10000] [--only energy]
//! ```
//!
//! Many clean images x₀ could lie behind a noised one xₜ. The ways differ in what the network says of them:
//!
//! | way | it says | it is told | loss |
//! | --- | --- | --- | --- |
//! | `mean` | their mean | xₜ, t, class | E ‖x̂ − x₀‖² |
//! | `energy` | any one of them | a random vector ξ as well | E ‖x̂(ξ) − x₀‖^β − ½ λ E ‖x̂(ξ) − x̂(ξ′)‖^β |
//! | `self-conditioning` | their mean | what it said before as well | E ‖x̂ − x₀‖² |
//!
//! A step of DDPM goes to the posterior q(xₜ₋₁ given xₜ, x₀) with x̂ in place of x₀. The mean is right for many short
//! steps. With 20 long ones it leaves out how much the images behind xₜ differ, and an x̂ drawn from among them would
//! be right for steps of any length (De Bortoli et al. 2025, "Distributional diffusion models with scoring rules",
//! arXiv 2502.02483). The energy score, with 0 < β < 2 and λ = 1, is smallest in expectation if x̂ has exactly the
//! distribution of x₀ given xₜ: the first term draws the x̂ to the data, the second keeps them apart. Self-conditioning
//! (Chen et al. 2022, "Analog bits", arXiv 2208.04202) lets a step go on from the estimate of the step before.
//!
//! One sees a table: the steps that each way took in its time, and its figures beside those of real test images. All
//! random numbers come from the seed. Time only decides when a way stops, so a run that takes as many steps ends with
//! the same weights; another machine, or a busy one, takes another number of steps.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example speaks to its user")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{AdamW, Linear, Module, Optimizer, ParamsAdamW, encoding::one_hot};
use clap::{Parser, ValueEnum};
use ddpm_core::{
    AddressedRng, NoiseMode, NoiseSchedule, PredictionType, Purpose, ScheduleConfig, Timesteps, sampler,
};
use ddpm_data::{Corpus, DataSet, Epochs, to_pixel};
use ddpm_eval::{ClassAccuracy, Evaluation, FeatureNet, GeneratedImages, ManifoldFigures, Metric, Report};

const PIXELS: usize = 784;
const CLASSES: usize = 10;
const WIDTH: usize = 512;
const HIDDEN: usize = 1024;
const BLOCKS: usize = 2;
const BATCH: usize = 128;
const EMA_DECAY: f64 = 0.999;
/// The numbers of ξ.
const XI: usize = 32;
/// β and λ of the energy score.
const BETA: f64 = 1.0;
const LAMBDA: f64 = 1.0;
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

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Way {
    Mean,
    Energy,
    SelfConditioning,
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
        let pixels = sample(trainer.way, &Network::new(&trainer.average), &schedule, &labels, args.seed)?;
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

/// A residual network of linear layers and SiLU.
struct Network {
    layers: Vec<Linear>,
}

impl Network {
    /// Inputs and outputs of each layer: the first, two for each block, the last.
    fn shapes(way: Way, timesteps: usize) -> Vec<[usize; 2]> {
        let known = timesteps + CLASSES;
        let extra = match way {
            Way::Mean => 0,
            Way::Energy => XI,
            Way::SelfConditioning => PIXELS,
        };
        let blocks = [[WIDTH + known, HIDDEN], [HIDDEN, WIDTH]].repeat(BLOCKS);
        [vec![[PIXELS + known + extra, WIDTH]], blocks, vec![[WIDTH, PIXELS]]].concat()
    }

    /// Of a weight and a bias for each layer.
    fn new(weights: &[Tensor]) -> Self {
        let layer = |pair: &[Tensor]| Linear::new(pair[0].clone(), Some(pair[1].clone()));
        Self { layers: weights.chunks_exact(2).map(layer).collect() }
    }

    /// x̂ of `x_t`, [B, 784]. `known` is of [`known`], `extra` what the way tells the network besides.
    fn forward(&self, x_t: &Tensor, known: &Tensor, extra: Option<&Tensor>) -> candle_core::Result<Tensor> {
        let [first, blocks @ .., last] = self.layers.as_slice() else {
            return Err(candle_core::Error::msg("a network has a first and a last layer"));
        };
        let inputs: Vec<&Tensor> = [x_t, known].into_iter().chain(extra).collect();
        let mut stream = first.forward(&Tensor::cat(&inputs, 1)?)?;
        for block in blocks.chunks_exact(2) {
            let hidden = block[0].forward(&Tensor::cat(&[&stream, known], 1)?)?.silu()?;
            stream = (stream + block[1].forward(&hidden)?)?;
        }
        last.forward(&stream)
    }
}

/// Timesteps and classes, one-hot and side by side: a linear layer makes of each a table of embeddings.
fn known(t: &[usize], timesteps: usize, classes: &[u8]) -> candle_core::Result<Tensor> {
    let t = Tensor::from_iter(t.iter().map(|&t| t as i64), &Device::Cpu)?;
    let classes = Tensor::new(classes, &Device::Cpu)?;
    Tensor::cat(&[one_hot(t, timesteps, 1_f32, 0.0)?, one_hot(classes, CLASSES, 1_f32, 0.0)?], 1)
}

/// A network on its way.
struct Trainer<'a> {
    way: Way,
    schedule: &'a NoiseSchedule,
    data: &'a DataSet,
    epochs: Epochs,
    rng: AddressedRng,
    network: Network,
    optimizer: AdamW,
    weights: Vec<Var>,
    average: Vec<Tensor>,
    steps: u64,
    spent: Duration,
}

impl<'a> Trainer<'a> {
    fn new(way: Way, schedule: &'a NoiseSchedule, data: &'a DataSet, seed: u64) -> Result<Self> {
        let (rng, mut weights) = (AddressedRng::new(seed), Vec::new());
        for (number, [inputs, outputs]) in (0..).zip(Network::shapes(way, schedule.num_train_timesteps())) {
            // candle's own initialisation cannot be seeded.
            let weight = normal(rng, Purpose::Weights, &[number], 0, outputs * inputs)?;
            let weight = (weight.reshape((outputs, inputs))? / (inputs as f64).sqrt())?;
            weights.push(Var::from_tensor(&weight)?);
            weights.push(Var::zeros(outputs, DType::F32, &Device::Cpu)?);
        }
        let tensors: Vec<Tensor> = weights.iter().map(|weight| weight.as_tensor().clone()).collect();
        let params = ParamsAdamW { lr: 5e-4, beta2: 0.99, weight_decay: 0.0, ..ParamsAdamW::default() };
        Ok(Self {
            way,
            schedule,
            data,
            epochs: Epochs::new(data.len(), BATCH, seed)?,
            rng,
            network: Network::new(&tensors),
            optimizer: AdamW::new(weights.clone(), params)?,
            average: tensors.iter().map(|it| it.detach().copy()).collect::<candle_core::Result<_>>()?,
            weights,
            steps: 0,
            spent: Duration::ZERO,
        })
    }

    fn step(&mut self) -> Result<()> {
        let clock = Instant::now();
        let loss = self.loss()?;
        self.optimizer.backward_step(&loss)?;
        // The average warms up, so that it does not hang on the initial weights.
        let k = self.steps as f64;
        let decay = EMA_DECAY.min((1.0 + k) / (10.0 + k));
        for (average, weight) in self.average.iter_mut().zip(&self.weights) {
            *average = ((&*average * decay)? + (weight.as_detached_tensor() * (1.0 - decay))?)?;
        }
        self.steps += 1;
        self.spent += clock.elapsed();
        if self.steps.is_multiple_of(500) {
            eprintln!("{:?}: step {}, loss {:.3}", self.way, self.steps, loss.to_scalar::<f32>()?);
        }
        Ok(())
    }

    /// The loss of the next batch. Every image has an address: its position in the whole stream.
    fn loss(&mut self) -> Result<Tensor> {
        let (rng, schedule, timesteps) = (self.rng, self.schedule, self.schedule.num_train_timesteps());
        let (mut pixels, mut classes) = (Vec::new(), Vec::new());
        let indices = self.epochs.batch(self.steps);
        self.data.gather_images(indices, &mut pixels)?;
        self.data.gather_labels(indices, &mut classes)?;
        let x_start = Tensor::from_vec(pixels, (BATCH, PIXELS), &Device::Cpu)?;
        let positions: Vec<u64> = (self.steps * BATCH as u64..).take(BATCH).collect();
        let bound = u32::try_from(timesteps)?;
        let draw = |&position| rng.below(Purpose::TrainTimestep, position, 0, bound) as usize;
        let t: Vec<usize> = positions.iter().map(draw).collect();
        let eps = rng.normal_like(Purpose::TrainNoise, &positions, 0, &x_start)?;
        let x_t = schedule.q_sample(&x_start, &t, &eps)?;
        let known = known(&t, timesteps, &classes)?;
        // Late steps hardly err in x₀, and would otherwise learn nothing; without limits they would drown the others.
        let weigh = |&t| schedule.snr(t).map(|snr| snr.clamp(1.0, 5.0));
        let weights = t.iter().map(weigh).collect::<ddpm_core::Result<Vec<f64>>>()?;
        let weights = Tensor::new(weights, &Device::Cpu)?.to_dtype(DType::F32)?;
        Ok(match self.way {
            Way::Mean => {
                let estimate = self.network.forward(&x_t, &known, None)?;
                distance(&estimate, &x_start, &weights, 2.0)?
            }
            Way::Energy => {
                // Two estimates of each image are two rows of one pass.
                let xi = normal(rng, Purpose::TrainNoise, &positions, 1, 2 * XI)?;
                let xi = Tensor::cat(&xi.chunk(2, 1)?, 0)?;
                let both = self.network.forward(&x_t.repeat((2, 1))?, &known.repeat((2, 1))?, Some(&xi))?;
                let (one, two) = (both.narrow(0, 0, BATCH)?, both.narrow(0, BATCH, BATCH)?);
                let to_data = distance(&both, &x_start.repeat((2, 1))?, &weights.repeat(2)?, BETA)?;
                (to_data - (distance(&one, &two, &weights, BETA)? * (0.5 * LAMBDA))?)?
            }
            Way::SelfConditioning => {
                let mut estimate = x_start.zeros_like()?;
                // The coin is tossed once a batch, so that half of the batches cost one pass only. Nothing is learnt
                // from the first pass, as sampling does not go back to its last step either.
                if rng.below(Purpose::TrainTimestep, positions[0], 1, 2) == 1 {
                    estimate = self.network.forward(&x_t, &known, Some(&estimate))?;
                    // Clipped, or the network would answer an estimate that is too large by a larger one.
                    estimate = estimate.clamp(-1_f32, 1_f32)?.detach();
                }
                let estimate = self.network.forward(&x_t, &known, Some(&estimate))?;
                distance(&estimate, &x_start, &weights, 2.0)?
            }
        })
    }
}

/// `width` normal numbers for each index.
fn normal(
    rng: AddressedRng,
    purpose: Purpose,
    indices: &[u64],
    step: usize,
    width: usize,
) -> ddpm_core::Result<Tensor> {
    rng.normal(purpose, indices, step, &[width], DType::F32, &Device::Cpu)
}

/// The mean of (√w ‖a − b‖)^power over images, each with its weight w.
fn distance(a: &Tensor, b: &Tensor, weights: &Tensor, power: f64) -> candle_core::Result<Tensor> {
    let squares = ((a - b)?.sqr()?.sum(1)? * weights)?;
    // The small number keeps the slope of the root finite where a is b.
    (squares + 1e-6)?.powf(power / 2.0)?.mean_all()
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
        let x_t = normal(Purpose::SampleStart, 0, PIXELS)?;
        let mut before = x_t.zeros_like()?;
        let x_start = sampler::ddpm(
            schedule,
            &Timesteps::all(schedule),
            &NoiseMode::Posterior,
            x_t,
            |x_t, timestep| {
                let t = timestep.index();
                let extra = match way {
                    Way::Mean => None,
                    // A fresh one for each step. The sampler's noise has the addresses below T.
                    Way::Energy => Some(normal(Purpose::SampleStep, timesteps + t, XI)),
                    Way::SelfConditioning => Some(before.clamp(-1_f32, 1_f32).map_err(Into::into)),
                };
                let extra = extra.transpose().map_err(candle_core::Error::wrap)?;
                let known = known(&vec![t; labels.len()], timesteps, labels)?;
                before = network.forward(x_t, &known, extra.as_ref())?;
                Ok(before.clone())
            },
            |_x_t, draw| normal(Purpose::SampleStep, draw, PIXELS),
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
