//! Training of a feature net.
//!
//! AdamW minimises the cross-entropy of the task, with a cosine learning rate schedule and images shifted by a few
//! pixels. Every random number depends on the seed and an index only, so data, configuration and seed determine the
//! net.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var, backprop::GradStore};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, loss::cross_entropy};
use ddpm_core::{CounterRng, Purpose, ShuffledBatches};
use ddpm_data::Dataset;
use rayon::prelude::*;

use super::{
    config::{FeatureConfig, Task},
    folder,
    layers::{Layers, Weights, in_order},
};
use crate::{FeatureNet, Result};

/// Images of one pass on a CPU. The gradients of all chunks of a batch are computed in parallel and summed in a fixed
/// order, so that the sum does not depend on the number of threads.
const CPU_CHUNK: usize = 16;
/// The largest number of warm-up steps of the learning rate. A short training has a tenth of its steps.
const MAX_WARMUP: f64 = 200.0;

/// The hyperparameters of [`train_features`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeatureTraining {
    /// Passes over the training images.
    pub epochs: u32,
    /// Images in a step; a smaller data set is one batch.
    pub batch_size: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// The weight decay of AdamW.
    pub weight_decay: f64,
    /// The seed of all random numbers.
    pub seed: u64,
}

impl FeatureTraining {
    /// The hyperparameters of the built-in net.
    #[must_use]
    pub fn recipe(seed: u64) -> Self {
        Self { epochs: 10, batch_size: 128, learning_rate: 2e-3, weight_decay: 0.01, seed }
    }
}

/// The progress of a training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeatureProgress {
    /// Steps taken.
    pub step: u64,
    /// The total number of steps.
    pub total: u64,
    /// The mean cross-entropy of the epoch in nats, if this was its last step; `None` otherwise.
    pub epoch_loss: Option<f64>,
}

/// Trains a feature net with the architecture of [`FeatureConfig::for_data`], and calls `progress` after each step.
///
/// # Errors
///
/// If the image size or the number of classes is outside the range of [`FeatureConfig`], or the tensor library fails.
pub fn train_features(
    data: &Dataset,
    training: &FeatureTraining,
    device: &Device,
    mut progress: impl FnMut(FeatureProgress),
) -> Result<FeatureNet> {
    let config = FeatureConfig::for_data(data);
    config.validate(data.images_file())?;
    let mut epochs = ShuffledBatches::new(data.len(), training.batch_size.min(data.len()), training.seed)?;
    let per_epoch = epochs.steps_per_epoch() as u64;
    let total = per_epoch * u64::from(training.epochs);
    let rng = CounterRng::new(training.seed);
    let vars = initial_weights(&config, rng, device)?;
    let net = TrainableNet::new(&config, &vars, device)?;
    let params = ParamsAdamW { weight_decay: training.weight_decay, ..ParamsAdamW::default() };
    let mut optimizer = AdamW::new(vars.iter().map(|(_, var)| var.clone()).collect(), params)?;
    // Stays on the device until the end of the epoch: reading it makes the CPU wait for a GPU.
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

/// The factor of the learning rate, 0 to 1: linear warm-up, then half a cosine down to 0.
fn schedule(step: u64, total: u64) -> f64 {
    let (step, total) = (step as f64, total as f64);
    let cosine = 0.5 * (1.0 + (std::f64::consts::PI * step / total).cos());
    cosine * ((step + 1.0) / MAX_WARMUP.min(0.1 * total)).min(1.0)
}

/// Matrices from N(0, 2/inputs), for ReLU (He et al. 2015, arXiv 1502.01852), and biases of 0.
fn initial_weights(config: &FeatureConfig, rng: CounterRng, device: &Device) -> Result<Vec<(String, Var)>> {
    let var = |(index, (name, shape)): (u64, (String, Vec<usize>))| {
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

/// A net whose weights are trainable variables.
struct TrainableNet {
    layers: Layers,
    vars: Vec<Var>,
    weights: Weights,
    device: Device,
}

impl TrainableNet {
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
        let images = batch.targets.len();
        let chunk = if self.device.is_cpu() { CPU_CHUNK } else { images };
        let size = batch.pixels.len().checked_div(images).unwrap_or(0);
        let pass = |(pixels, targets): (&[f32], &[u32])| {
            let n = targets.len();
            let x = Tensor::from_slice(pixels, (n, size), &self.device)?;
            let (_, logits) = self.layers.forward(&x, &self.weights)?;
            let targets = Tensor::from_slice(targets, n, &self.device)?;
            let loss = (cross_entropy(&logits, &targets)? * (n as f64 / images as f64))?;
            let gradients = loss.backward()?;
            Ok((loss, gradients))
        };
        let parts = batch.pixels.par_chunks(chunk * size).zip(batch.targets.par_chunks(chunk));
        let parts = parts.map(pass).collect::<candle_core::Result<Vec<_>>>()?;
        let mut parts = parts.into_iter();
        let Some((mut loss, mut sum)) = parts.next() else { candle_core::bail!("a batch has no images") };
        for (part_loss, part) in parts {
            loss = (loss + part_loss)?;
            for var in &self.vars {
                if let (Some(a), Some(b)) = (sum.get(var), part.get(var)) {
                    let total = (a + b)?;
                    sum.insert(var, total);
                }
            }
        }
        Ok((loss, sum))
    }
}

/// The augmented images of a step in [0, 1], and their targets.
struct Batch {
    pixels: Vec<f32>,
    targets: Vec<u32>,
}

impl Batch {
    fn new(data: &Dataset, config: &FeatureConfig, indices: &[u32], step: u64, rng: CounterRng) -> Self {
        let size = data.image_size();
        let mut batch =
            Self { pixels: vec![0.0; indices.len() * size], targets: Vec::with_capacity(indices.len()) };
        // The noise index of an image is its position in the stream of all training images.
        let first = step * indices.len() as u64;
        for ((&index, position), out) in indices.iter().zip(first..).zip(batch.pixels.chunks_mut(size)) {
            let index = index as usize;
            let random = |step, bound| rng.below(Purpose::TRAIN_NOISE, position, step, bound);
            let (image, label) = (&data.images()[index * size..][..size], data.labels().map(|l| l[index]));
            let shifts = [config.rows, config.cols].into_iter().zip(0..).map(|(length, axis)| {
                let largest = largest_shift(length);
                i64::from(random(axis, 2 * largest + 1)) - i64::from(largest)
            });
            let shifts: Vec<i64> = shifts.collect();
            let flip = match config.task {
                Task::Classes { .. } => 0,
                Task::Flips => random(2, 4),
            };
            batch.targets.push(match config.task {
                Task::Classes { .. } => label.map_or(0, u32::from),
                Task::Flips => flip,
            });
            augment(image, config.cols, flip, [shifts[0], shifts[1]], out);
        }
        batch
    }
}

/// The largest shift of an image of this length, in pixels: 2 for 28 or more, 1 for 14 or more, 0 below 14.
fn largest_shift(length: usize) -> u32 {
    if length < 14 { 0 } else { 1 + u32::from(length >= 28) }
}

/// Writes an image to `out` in [0, 1], first flipped, then shifted. Pixels shifted in are black. Bit 0 of `flip` flips
/// left to right, bit 1 top to bottom.
fn augment(image: &[u8], cols: usize, flip: u32, [down, right]: [i64; 2], out: &mut [f32]) {
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

/// Each image under each of the four flips, and the flips as labels.
pub(super) fn all_flips(data: &Dataset) -> (Vec<u8>, Vec<u8>) {
    let (mut pixels, mut flips) = (Vec::new(), Vec::new());
    for image in data.images().chunks(data.image_size()) {
        for flip in 0..4_u8 {
            let mut lines: Vec<Vec<u8>> = image.chunks(data.cols()).map(<[u8]>::to_vec).collect();
            if flip & 1 != 0 {
                lines.iter_mut().for_each(|line| line.reverse());
            }
            if flip & 2 != 0 {
                lines.reverse();
            }
            pixels.extend(lines.concat());
            flips.push(flip);
        }
    }
    (pixels, flips)
}

#[cfg(test)]
mod tests;
