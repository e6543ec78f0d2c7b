//! A feature net as a folder.
//!
//! ```text
//! config.json            the architecture, and the SHA-256 of the weights
//! features.safetensors   the weights, in f16
//! README.md              where they came from
//! ```

use std::{collections::HashMap, fs, io, path::Path};

use candle_core::{DType, Device, Tensor};
use ddpm_model::{Error as ModelError, encode_json, replace_dir, temporary_beside, write_atomic};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::config::{FeatureConfig, OutOfRange, Parameter};
use crate::{Error, FeatureNet, Result};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "features.safetensors";
const CARD: &str = "README.md";

macro_rules! builtin {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/models/mnist-features/", $name))
    };
}

static BUILTIN_CONFIG: &[u8] = builtin!("config.json");
static BUILTIN_WEIGHTS: &[u8] = builtin!("features.safetensors");

/// `config.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    feature_net: FeatureConfig,
    weights_sha256: String,
}

pub(super) fn read_builtin(device: &Device) -> Result<FeatureNet> {
    decode(Path::new("built-in"), BUILTIN_CONFIG, BUILTIN_WEIGHTS.to_vec(), device)
}

pub(super) fn read(folder: &Path, device: &Device) -> Result<FeatureNet> {
    let read = |name| {
        let path = folder.join(name);
        fs::read(&path).map_err(|source| Error::ReadFeatures { path, source })
    };
    decode(folder, &read(CONFIG)?, read(WEIGHTS)?, device)
}

/// The net of two files' content. `folder` is for messages.
fn decode(folder: &Path, config: &[u8], weights: Vec<u8>, device: &Device) -> Result<FeatureNet> {
    let path = folder.join(CONFIG);
    let Config { feature_net: config, weights_sha256 } =
        serde_json::from_slice(config).map_err(|source| ModelError::Json { path: path.clone(), source })?;
    if let Err(OutOfRange { option, found, expected }) = config.validate() {
        return Err(Error::FeatureOption { path, option, found, expected });
    }
    let (path, found) = (folder.join(WEIGHTS), digest(&weights));
    if found != weights_sha256 {
        return Err(Error::FeatureDigest { path, found, expected: weights_sha256 });
    }
    let map = decode_weights(&path, &weights, &config, device)?;
    FeatureNet::new(config, &map, weights, found, device)
}

/// A net of trained weights. It has the weights that its file will have, rounded to f16.
pub(super) fn freeze(
    config: &FeatureConfig,
    weights: &HashMap<String, Tensor>,
    device: &Device,
) -> Result<FeatureNet> {
    let path = Path::new(WEIGHTS);
    let halved = config
        .parameters()
        .into_iter()
        .filter_map(|Parameter { name, .. }| weights.get(&name).map(|tensor| (name, tensor)))
        .map(|(name, tensor)| Ok((name, tensor.to_dtype(DType::F16)?.to_device(&Device::Cpu)?)))
        .collect::<candle_core::Result<Vec<_>>>()?;
    let file = safetensors::serialize(halved, None)
        .map_err(|source| ModelError::Safetensors { path: path.to_owned(), source })?;
    let map = decode_weights(path, &file, config, device)?;
    let digest = digest(&file);
    FeatureNet::new(config.clone(), &map, file, digest, device)
}

pub(super) fn check_writable(folder: &Path) -> Result<()> {
    let is_net = || {
        let config = fs::read(folder.join(CONFIG)).unwrap_or_default();
        serde_json::from_slice::<Config>(&config).is_ok()
    };
    let is_empty = || fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    if folder.exists() && !is_empty() && !is_net() {
        let source = io::Error::new(io::ErrorKind::AlreadyExists, "exists and holds no feature net");
        return Err(ModelError::Write { path: folder.to_owned(), source }.into());
    }
    Ok(())
}

pub(super) fn write(
    folder: &Path,
    config: &FeatureConfig,
    (weights, digest): (&[u8], &str),
    card: &str,
) -> Result<()> {
    check_writable(folder)?;
    // Removed with all that is in it, unless it takes the place of the folder.
    let temporary = temporary_beside(folder)?;
    let path = |name| temporary.path().join(name);
    let config = Config { feature_net: config.clone(), weights_sha256: digest.to_owned() };
    write_atomic(&path(CONFIG), &encode_json(&path(CONFIG), &config)?)?;
    write_atomic(&path(WEIGHTS), weights)?;
    write_atomic(&path(CARD), card.as_bytes())?;
    Ok(replace_dir(temporary, folder)?)
}

/// Weights as f32, after checking that names, types and shapes are exactly those of `config`.
fn decode_weights(
    path: &Path,
    bytes: &[u8],
    config: &FeatureConfig,
    device: &Device,
) -> Result<HashMap<String, Tensor>> {
    let path = path.to_owned();
    let file = SafeTensors::deserialize(bytes)
        .map_err(|source| ModelError::Safetensors { path: path.clone(), source })?;
    let mut weights = HashMap::new();
    for Parameter { name, shape: expected } in config.parameters() {
        let Ok(view) = file.tensor(&name) else {
            return Err(ModelError::MissingTensor { path, name, expected }.into());
        };
        if (view.dtype(), view.shape()) != (safetensors::Dtype::F16, &expected) {
            let found = format!("{:?} {:?}", view.dtype(), view.shape());
            let expected = format!("F16 {expected:?}");
            return Err(ModelError::TensorMismatch { path, name, found, expected }.into());
        }
        let tensor = Tensor::from_raw_buffer(view.data(), DType::F16, &expected, &Device::Cpu)?;
        weights.insert(name, tensor.to_dtype(DType::F32)?.to_device(device)?);
    }
    // The smallest name, so that the message does not depend on the order of a hash map.
    match file.names().into_iter().filter(|name| !weights.contains_key(*name)).min() {
        Some(name) => Err(ModelError::UnexpectedTensor { path, name: name.to_owned() }.into()),
        None => Ok(weights),
    }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
