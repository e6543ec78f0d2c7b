//! How the ways train.

use std::time::{Duration, Instant};

use anyhow::Result;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use ddpm_core::{AddressedRng, LossWeighting, NoiseSchedule, PredictionType, Purpose};
use ddpm_data::{DataSet, Epochs};

use crate::{
    PIXELS, Way,
    network::{Network, XI, known},
};

const BATCH: usize = 128;
const EMA_DECAY: f64 = 0.999;
/// β and λ of the energy score.
const BETA: f64 = 1.0;
const LAMBDA: f64 = 1.0;

/// A network on its way.
pub(crate) struct Trainer<'a> {
    pub(crate) way: Way,
    schedule: &'a NoiseSchedule,
    data: &'a DataSet,
    epochs: Epochs,
    rng: AddressedRng,
    /// For each timestep. Late steps hardly err in x₀, and would otherwise learn nothing; without limits they would
    /// drown the others.
    weights_of_loss: Vec<f64>,
    network: Network,
    optimizer: AdamW,
    weights: Vec<Var>,
    average: Vec<Tensor>,
    pub(crate) steps: u64,
    pub(crate) spent: Duration,
}

impl<'a> Trainer<'a> {
    pub(crate) fn new(way: Way, schedule: &'a NoiseSchedule, data: &'a DataSet, seed: u64) -> Result<Self> {
        let (rng, mut weights) = (AddressedRng::new(seed), Vec::new());
        for (number, [inputs, outputs]) in (0..).zip(Network::shapes(way, schedule.num_train_timesteps())) {
            // candle's own initialisation cannot be seeded.
            let weight = normal(rng, Purpose::WEIGHTS, &[number], 0, outputs * inputs)?;
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
            weights_of_loss: LossWeighting::ClampedSnr.weights(schedule, PredictionType::Sample)?,
            network: Network::new(way, &tensors),
            optimizer: AdamW::new(weights.clone(), params)?,
            average: tensors.iter().map(|it| it.detach().copy()).collect::<candle_core::Result<_>>()?,
            weights,
            steps: 0,
            spent: Duration::ZERO,
        })
    }

    /// The network with averaged weights.
    pub(crate) fn averaged(&self) -> Network {
        Network::new(self.way, &self.average)
    }

    pub(crate) fn step(&mut self) -> Result<()> {
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
        let draw = |&position| rng.below(Purpose::TRAIN_TIMESTEP, position, 0, bound) as usize;
        let t: Vec<usize> = positions.iter().map(draw).collect();
        let eps = rng.normal_like(Purpose::TRAIN_NOISE, &positions, 0, &x_start)?;
        let x_t = schedule.q_sample(&x_start, &t, &eps)?;
        let known = known(&t, timesteps, &classes)?;
        let weights = Tensor::from_iter(t.iter().map(|&t| self.weights_of_loss[t]), &Device::Cpu)?;
        let weights = weights.to_dtype(DType::F32)?;
        Ok(match self.way {
            Way::Mean | Way::TokenMixing => {
                let estimate = self.network.forward(&x_t, &known, None)?;
                distance(&estimate, &x_start, &weights, 2.0)?
            }
            Way::Energy => {
                // Two estimates of each image are two rows of one pass.
                let xi = normal(rng, Purpose::TRAIN_NOISE, &positions, 1, 2 * XI)?;
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
                if rng.below(Purpose::TRAIN_TIMESTEP, positions[0], 1, 2) == 1 {
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
pub(crate) fn normal(
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
