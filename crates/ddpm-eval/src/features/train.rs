//! How a feature net comes about.
//!
//! Cross-entropy of the task's answers by AdamW, with the learning rate on half a cosine and images shifted by
//! a few pixels. Every random number has an address, so a net is a function of data, configuration and seed.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var, backprop::GradStore};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, loss::cross_entropy};
use ddpm_core::{CounterRng, Purpose};
use ddpm_data::{Dataset, ShuffledBatches};
use rayon::prelude::*;

use super::{
    config::{FeatureConfig, OutOfRange, Parameter, Task},
    folder,
    layers::{Layers, Weights, in_order},
};
use crate::{Error, FeatureNet, Result};

/// Images of one pass on a CPU: the gradients of parts are taken in parallel and added in their order, so that
/// the sum does not depend on the number of threads.
const CPU_CHUNK: usize = 16;
/// Steps, at most, over which the learning rate rises; a tenth of a short training.
const WARM_UP: f64 = 200.0;

/// How to train a feature net.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeatureTraining {
    /// Passes over the training images.
    pub epochs: u32,
    /// Images in a step; fewer if there are not as many.
    pub batch_size: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// The decay of weights.
    pub weight_decay: f64,
    /// The seed of all randomness.
    pub seed: u64,
}

impl FeatureTraining {
    /// How the built-in net was trained.
    #[must_use]
    pub fn recipe(seed: u64) -> Self {
        Self { epochs: 10, batch_size: 128, learning_rate: 2e-3, weight_decay: 0.01, seed }
    }
}

/// How far training has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeatureProgress {
    /// Steps taken.
    pub step: u64,
    /// Steps of the whole training.
    pub total: u64,
    /// The mean loss of an epoch, in nats, after its last step.
    pub epoch_loss: Option<f64>,
}

/// Trains a feature net on a data set, and tells `progress` after every step.
///
/// # Errors
///
/// If the data set has images or classes outside of the range of [`FeatureConfig`], or the tensor library fails.
pub fn train_features(
    data: &Dataset,
    training: &FeatureTraining,
    device: &Device,
    mut progress: impl FnMut(FeatureProgress),
) -> Result<FeatureNet> {
    let config = FeatureConfig::for_data(data);
    if let Err(OutOfRange { option, found, expected }) = config.validate() {
        let path = data.images_file().to_owned();
        return Err(Error::FeatureOption { path, option, found, expected });
    }
    let mut epochs = ShuffledBatches::new(data.len(), training.batch_size.min(data.len()), training.seed)?;
    let per_epoch = epochs.steps_per_epoch() as u64;
    let total = per_epoch * u64::from(training.epochs);
    let rng = CounterRng::new(training.seed);
    let vars = initial_weights(&config, rng, device)?;
    let net = Trainee::new(&config, &vars, device)?;
    let params = ParamsAdamW { weight_decay: training.weight_decay, ..ParamsAdamW::default() };
    let mut optimizer = AdamW::new(vars.iter().map(|(_, var)| var.clone()).collect(), params)?;
    // On the device until the epoch is over: reading it makes a GPU wait.
    let mut loss_sum = Tensor::zeros((), DType::F32, device)?;
    for step in 0..total {
        let batch = Batch::new(data, &config, epochs.batch(step), step, rng);
        let (loss, gradients) = net.gradients(&batch)?;
        optimizer.set_learning_rate(training.learning_rate * schedule(step, total));
        optimizer.step(&gradients)?;
        loss_sum = (loss_sum + loss.detach())?;
        let step = step + 1;
        let mut epoch_loss = None;
        if step.is_multiple_of(per_epoch) {
            epoch_loss = Some(f64::from(loss_sum.to_scalar::<f32>()?) / per_epoch as f64);
            loss_sum = loss_sum.zeros_like()?;
        }
        progress(FeatureProgress { step, total, epoch_loss });
    }
    let weights = vars.into_iter().map(|(name, var)| (name, var.into_inner())).collect();
    folder::freeze(&config, &weights, device)
}

/// A warm-up, then half a cosine, 0 to 1.
fn schedule(step: u64, total: u64) -> f64 {
    let (step, total) = (step as f64, total as f64);
    let cosine = 0.5 * (1.0 + (std::f64::consts::PI * step / total).cos());
    cosine * ((step + 1.0) / WARM_UP.min(0.1 * total)).min(1.0)
}

/// Normal with variance 2/inputs, as suits ReLU (He et al. 2015, arXiv 1502.01852), and biases of zero.
fn initial_weights(config: &FeatureConfig, rng: CounterRng, device: &Device) -> Result<Vec<(String, Var)>> {
    let var = |(index, Parameter { name, shape }): (u64, Parameter)| {
        let tensor = match shape[..] {
            [_, inputs] => {
                let normal = rng.normal(Purpose::WEIGHTS, &[index], 0, &shape, DType::F32, device)?;
                (normal.squeeze(0)? * (2.0 / inputs as f64).sqrt())?
            }
            _ => Tensor::zeros(shape, DType::F32, device)?,
        };
        Ok((name, Var::from_tensor(&tensor)?))
    };
    (0..).zip(config.parameters()).map(var).collect()
}

/// A net whose weights are variables.
struct Trainee {
    layers: Layers,
    vars: Vec<Var>,
    weights: Weights,
    device: Device,
}

impl Trainee {
    fn new(config: &FeatureConfig, vars: &[(String, Var)], device: &Device) -> Result<Self> {
        let map: HashMap<_, _> =
            vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        Ok(Self {
            layers: Layers::new(config, device)?,
            weights: in_order(config, &map)?,
            vars: vars.iter().map(|(_, var)| var.clone()).collect(),
            device: device.clone(),
        })
    }

    /// The mean loss of a batch, and its gradients.
    fn gradients(&self, batch: &Batch) -> candle_core::Result<(Tensor, GradStore)> {
        let images = batch.answers.len();
        let chunk = if self.device.is_cpu() { CPU_CHUNK } else { images };
        let size = batch.pixels.len().checked_div(images).unwrap_or(0);
        let part = |(pixels, answers): (&[f32], &[u32])| {
            let n = answers.len();
            let x = Tensor::from_slice(pixels, (n, size), &self.device)?;
            let (_, logits) = self.layers.forward(&x, &self.weights)?;
            let answers = Tensor::from_slice(answers, n, &self.device)?;
            let loss = (cross_entropy(&logits, &answers)? * (n as f64 / images as f64))?;
            let gradients = loss.backward()?;
            Ok((loss, gradients))
        };
        let parts = batch.pixels.par_chunks(chunk * size).zip(batch.answers.par_chunks(chunk));
        let parts = parts.map(part).collect::<candle_core::Result<Vec<_>>>()?;
        let mut parts = parts.into_iter();
        let Some((mut loss, mut sum)) = parts.next() else { candle_core::bail!("a batch without images") };
        for (part_loss, part) in parts {
            loss = (loss + part_loss)?;
            for var in &self.vars {
                if let (Some(a), Some(b)) = (sum.get(var), part.get(var)) {
                    let both = (a + b)?;
                    sum.insert(var, both);
                }
            }
        }
        Ok((loss, sum))
    }
}

/// The images of a step, in [0, 1], and the right answers.
struct Batch {
    pixels: Vec<f32>,
    answers: Vec<u32>,
}

impl Batch {
    fn new(data: &Dataset, config: &FeatureConfig, indices: &[u32], step: u64, rng: CounterRng) -> Self {
        let size = data.image_size();
        let mut batch =
            Self { pixels: vec![0.0; indices.len() * size], answers: Vec::with_capacity(indices.len()) };
        // The position in the whole stream of training images is an image's address.
        let first = step * indices.len() as u64;
        for ((&index, at), out) in indices.iter().zip(first..).zip(batch.pixels.chunks_mut(size)) {
            let index = index as usize;
            let draw = |number, bound| rng.below(Purpose::TRAIN_NOISE, at, number, bound);
            let (image, answer) = (&data.images()[index * size..][..size], data.labels().map(|l| l[index]));
            let shifts = [config.rows, config.cols].into_iter().zip(0..).map(|(length, axis)| {
                let most = largest_shift(length);
                i64::from(draw(axis, 2 * most + 1)) - i64::from(most)
            });
            let shifts: Vec<i64> = shifts.collect();
            let flip = match config.task {
                Task::Classes { .. } => 0,
                Task::Flips => draw(2, 4),
            };
            batch.answers.push(match config.task {
                Task::Classes { .. } => answer.map_or(0, u32::from),
                Task::Flips => flip,
            });
            place(image, config.cols, flip, [shifts[0], shifts[1]], out);
        }
        batch
    }
}

/// Pixels, at most, by which an image of this length is shifted: two of 28.
fn largest_shift(length: usize) -> u32 {
    if length < 14 { 0 } else { 1 + u32::from(length >= 28) }
}

/// Writes an image in [0, 1], flipped and then shifted, with black where it leaves room.
fn place(image: &[u8], cols: usize, flip: u32, [down, right]: [i64; 2], out: &mut [f32]) {
    let rows = image.len().checked_div(cols).unwrap_or(0);
    let source = |at: usize, shift: i64, length: usize, flipped: bool| {
        let at = usize::try_from(i64::try_from(at).ok()? - shift).ok().filter(|&at| at < length)?;
        Some(if flipped { length - 1 - at } else { at })
    };
    for (row, line) in out.chunks_mut(cols).enumerate() {
        let from_row = source(row, down, rows, flip & 2 != 0);
        for (col, out) in line.iter_mut().enumerate() {
            let from = from_row.zip(source(col, right, cols, flip & 1 != 0));
            *out = from.map_or(0.0, |(y, x)| f32::from(image[y * cols + x]) / 255.0);
        }
    }
}

/// Each image under each of the four flips, and which one it is.
pub(super) fn all_flips(data: &Dataset) -> (Vec<u8>, Vec<u8>) {
    let (mut pixels, mut answers) = (Vec::new(), Vec::new());
    for image in data.images().chunks(data.image_size()) {
        for answer in 0..4_u8 {
            let mut lines: Vec<Vec<u8>> = image.chunks(data.cols()).map(<[u8]>::to_vec).collect();
            if answer & 1 != 0 {
                lines.iter_mut().for_each(|line| line.reverse());
            }
            if answer & 2 != 0 {
                lines.reverse();
            }
            pixels.extend(lines.concat());
            answers.push(answer);
        }
    }
    (pixels, answers)
}

#[cfg(test)]
mod tests;
