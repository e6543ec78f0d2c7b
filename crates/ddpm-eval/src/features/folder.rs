//! The folder of a feature net.
//!
//! ```text
//! config.json            the architecture, and the SHA-256 of features.safetensors
//! features.safetensors   the weights in f16
//! README.md              the model card: training data, accuracy and command
//! ```

use std::{collections::HashMap, fs, path::Path};

use candle_core::{DType, Device, Tensor};
use ddpm_files::{AtomicDir, check_keys, sha256_hex};
use ddpm_model::{Error as ModelError, decode_weights, encode_json};
use serde::{Deserialize, Serialize};

use super::config::FeatureConfig;
use crate::{Error, FeatureNet, Result};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "features.safetensors";
const CARD: &str = "README.md";

macro_rules! builtin {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/mnist-features/", $name))
    };
}

static BUILTIN_CONFIG: &[u8] = builtin!("config.json");
static BUILTIN_WEIGHTS: &[u8] = builtin!("features.safetensors");

/// The content of `config.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    feature_net: FeatureConfig,
    weights_sha256: String,
}

pub(super) fn read_builtin(device: &Device) -> Result<FeatureNet> {
    build(Path::new("built-in"), BUILTIN_CONFIG, BUILTIN_WEIGHTS.to_vec(), device)
}

pub(super) fn read(folder: &Path, device: &Device) -> Result<FeatureNet> {
    let read = |name| {
        let path = folder.join(name);
        fs::read(&path).map_err(|source| Error::ReadFeatures { path, source })
    };
    build(folder, &read(CONFIG)?, read(WEIGHTS)?, device)
}

/// The net from the contents of its two files. `folder` is for error messages.
fn build(folder: &Path, config: &[u8], weights: Vec<u8>, device: &Device) -> Result<FeatureNet> {
    let path = folder.join(CONFIG);
    let Config { feature_net: config, weights_sha256 } =
        check_keys(config).and_then(|()| serde_json::from_slice(config)).map_err(ModelError::json(&path))?;
    config.validate(&path)?;
    let (path, found) = (folder.join(WEIGHTS), sha256_hex(&weights));
    if found != weights_sha256 {
        return Err(Error::out_of_range(format!("{}: SHA-256", path.display()), found, weights_sha256));
    }
    let map = decode_weights(&path, &weights, config.parameters(), Some(DType::F16), device)?;
    FeatureNet::new(config, &map, weights, found, device)
}

/// A frozen net with trained weights, rounded to f16 as in its file.
pub(super) fn freeze(
    config: &FeatureConfig,
    weights: &HashMap<String, Tensor>,
    device: &Device,
) -> Result<FeatureNet> {
    let path = Path::new(WEIGHTS);
    let rounded = config
        .parameters()
        .into_iter()
        .filter_map(|(name, _)| weights.get(&name).map(|tensor| (name, tensor)))
        .map(|(name, tensor)| Ok((name, tensor.to_dtype(DType::F16)?.to_device(&Device::Cpu)?)))
        .collect::<candle_core::Result<Vec<_>>>()?;
    let file = safetensors::serialize(rounded, None).map_err(ModelError::safetensors(path))?;
    let map = decode_weights(path, &file, config.parameters(), Some(DType::F16), device)?;
    let digest = sha256_hex(&file);
    FeatureNet::new(config.clone(), &map, file, digest, device)
}

pub(super) fn check_writable(folder: &Path) -> Result<()> {
    let is_net = || {
        let config = fs::read(folder.join(CONFIG)).unwrap_or_default();
        serde_json::from_slice::<Config>(&config).is_ok()
    };
    Ok(ddpm_files::check_writable(folder, "feature net", is_net, &[CONFIG, WEIGHTS, CARD])?)
}

pub(super) fn write(
    folder: &Path,
    config: &FeatureConfig,
    (weights, digest): (&[u8], &str),
    card: &str,
) -> Result<()> {
    check_writable(folder)?;
    let new = AtomicDir::create(folder)?;
    let path = |name| folder.join(name);
    let config = Config { feature_net: config.clone(), weights_sha256: digest.to_owned() };
    new.write(CONFIG, &encode_json(&path(CONFIG), &config)?)?;
    new.write(WEIGHTS, weights)?;
    new.write(CARD, card.as_bytes())?;
    Ok(new.commit()?)
}

#[cfg(test)]
mod tests;
