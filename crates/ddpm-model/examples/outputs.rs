//! Writes outputs of a model's network, as references for other implementations:
//!
//! ```sh
//! cargo run --release -p ddpm-model --example outputs MODEL OUT.safetensors
//! ```
//!
//! The file holds `x_t` [N, pixels], `t` and `classes` [N], and `output` [N, pixels], in the network's parameterization.

use std::{collections::HashMap, env, path::Path};

use candle_core::{DType, Device, Tensor};
use ddpm_core::{CounterRng, Purpose};
use ddpm_model::read_model;

/// The number of images: each timestep and each class occurs, in many combinations.
const IMAGES: usize = 120;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [model, out] = words.as_slice() else { return Err("expected MODEL OUT.safetensors".into()) };
    let denoiser = read_model(Path::new(model), &Device::Cpu)?;
    let (config, timesteps) = (denoiser.config(), denoiser.schedule().num_train_timesteps());
    let indices: Vec<u64> = (0..).take(IMAGES).collect();
    let purpose = Purpose::custom(0);
    let x_t =
        CounterRng::new(1).normal(purpose, &indices, 0, &[config.pixels()], DType::F32, &Device::Cpu)?;
    let t: Vec<usize> = (0..IMAGES).map(|image| image % timesteps).collect();
    // The null class is the last one.
    let classes: Vec<u32> = (0..).take(config.num_classes + 1).cycle().take(IMAGES).collect();
    let output = denoiser.forward(&x_t, &t, &classes)?;
    let t: Vec<u32> = t.into_iter().map(u32::try_from).collect::<Result<_, _>>()?;
    let tensors = HashMap::from([
        ("x_t", x_t),
        ("t", Tensor::new(t, &Device::Cpu)?),
        ("classes", Tensor::new(classes, &Device::Cpu)?),
        ("output", output),
    ]);
    candle_core::safetensors::save(&tensors, out)?;
    Ok(())
}
