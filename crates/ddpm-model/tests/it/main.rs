//! Integration tests of `ddpm-model`.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::integer_division,
    reason = "a test may panic, and its numbers are small"
)]

mod compute;
mod cpu;
mod folder;
mod given_image;
mod gradients;
mod guide;
mod plan_fit;
mod prediction;
mod requests;

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use ddpm_core::{CounterRng, NoiseScheduleConfig, Purpose};
use ddpm_model::{Denoiser, DenoiserConfig, Network, initial_weights};

/// A small network.
fn small(network: Network) -> DenoiserConfig {
    DenoiserConfig { network, ..DenoiserConfig::mlp(3, 4, 5) }
}

fn small_mlp() -> DenoiserConfig {
    small(Network::Mlp { width: 16, hidden: 24, blocks: 2, embedding: 8 })
}

fn small_plain() -> DenoiserConfig {
    small(Network::Plain { width: 16, layers: 2, embedding: 8 })
}

/// Patches that extend past both edges of an image, and widths that are no multiple of a panel.
fn small_patch_mlp() -> DenoiserConfig {
    let (rows, cols) = (5, 7);
    let network =
        Network::PatchMlp { patch: 3, local: 20, code: 18, width: 24, hidden: 33, blocks: 2, embedding: 8 };
    DenoiserConfig { rows, cols, ..small(network) }
}

/// Weights like those of a trained network. None is zero: a test could not detect an error in a part with zero weights.
fn weights(config: &DenoiserConfig, dtype: DType) -> HashMap<String, Tensor> {
    let rng = CounterRng::new(4);
    let mut weights = initial_weights(config, 3, &Device::Cpu).unwrap();
    for (parameter, index) in std::iter::zip(config.parameters(), 0..) {
        let shape = parameter.shape.as_slice();
        let noise = rng.normal(Purpose::WEIGHTS, &[index], 1, shape, DType::F32, &Device::Cpu).unwrap();
        let weight = weights.get_mut(&parameter.name).unwrap();
        // Scaled by 1/√inputs, so that a layer's output has the scale of its input.
        let inputs = parameter.shape.last().map_or(1.0, |&inputs| inputs as f64);
        let scale = inputs.sqrt().recip().min(0.3);
        *weight = (&*weight + (noise.squeeze(0).unwrap() * scale).unwrap()).unwrap().to_dtype(dtype).unwrap();
    }
    weights
}

fn denoiser(config: &DenoiserConfig) -> Denoiser {
    Denoiser::new(config, &NoiseScheduleConfig::mnist20(), weights(config, DType::F32)).unwrap()
}

fn images(config: &DenoiserConfig, batch: u64) -> Tensor {
    let indices: Vec<u64> = (0..batch).collect();
    let shape = [config.pixels()];
    CounterRng::new(9).normal(Purpose::SAMPLE_START, &indices, 0, &shape, DType::F32, &Device::Cpu).unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}
