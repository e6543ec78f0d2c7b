//! Checkpoints that survive a crash: complete and verified, or not there.
//!
//! A checkpoint is written to a hidden folder, made durable, and renamed to `step-N/`. It holds
//! `state.safetensors`, `state.json`, and `manifest.json` with the SHA-256 of both.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use ddpm_kernels::StatePart;
use ddpm_model::{
    AtomicFile, TEMPORARY, encode_json, replace_dir, safetensors_header, temporary_beside, write_atomic,
};
use safetensors::{Dtype, SafeTensors, tensor::TensorInfo};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Error, Result, TrainConfig, Trainer, optimizer::state_name};

const TENSORS: &str = "state.safetensors";
const STATE: &str = "state.json";
const MANIFEST: &str = "manifest.json";
/// How many checkpoints are kept.
const KEEP: usize = 2;

/// What a checkpoint says besides its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Progress {
    /// Steps taken.
    pub(crate) step: u64,
    /// Seconds of training so far.
    pub(crate) seconds: f64,
    /// The SHA-256 of the training images.
    pub(crate) images_sha256: String,
    /// The SHA-256 of their labels.
    pub(crate) labels_sha256: Option<String>,
    /// The configuration.
    pub(crate) config: TrainConfig,
}

/// Writes a checkpoint and removes the oldest ones.
pub(crate) fn save(folder: &Path, trainer: &Trainer<'_>, progress: &Progress) -> Result<()> {
    let to = folder.join(format!("step-{:08}", progress.step));
    let temporary = temporary_beside(&to)?;
    let tensors = write_tensors(&temporary.path().join(TENSORS), trainer)?;
    let state = encode_json(&temporary.path().join(STATE), progress)?;
    let manifest: BTreeMap<&str, String> =
        [(TENSORS, tensors), (STATE, digest(&state))].into_iter().collect();
    write_atomic(&temporary.path().join(STATE), &state)?;
    write_atomic(
        &temporary.path().join(MANIFEST),
        &encode_json(&temporary.path().join(MANIFEST), &manifest)?,
    )?;
    replace_dir(temporary, &to)?;
    let old = list(folder)?;
    for path in old.iter().rev().skip(KEEP) {
        remove(path)?;
    }
    Ok(())
}

/// Writes a trainer's state in the safetensors format and returns its SHA-256. One part after another, so that
/// the memory of a run does not double with each checkpoint.
fn write_tensors(path: &Path, trainer: &Trainer<'_>) -> Result<String> {
    let mut parameters = trainer.config().denoiser.parameters();
    parameters.sort_by(|a, b| a.name.cmp(&b.name));
    let (mut infos, mut end) = (Vec::new(), 0);
    for part in StatePart::ALL {
        for parameter in &parameters {
            let (start, shape) = (end, parameter.shape.clone());
            end += shape.iter().product::<usize>() * size_of::<f32>();
            let info = TensorInfo { dtype: Dtype::F32, shape, data_offsets: (start, end) };
            infos.push((state_name(part, &parameter.name), info));
        }
    }
    let (mut file, mut digest) = (AtomicFile::create(path)?, Sha256::new());
    let mut write = |bytes: &[u8]| {
        digest.update(bytes);
        file.append(bytes)
    };
    write(&safetensors_header(path, infos)?)?;
    for part in StatePart::ALL {
        let mut tensors = trainer.part(part)?;
        tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (_, tensor) in tensors {
            let values = tensor.flatten_all()?.to_vec1::<f32>()?;
            write(&values.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>())?;
        }
    }
    file.commit()?;
    Ok(hex(&digest.finalize()))
}

/// Restores the newest checkpoint that verifies, if its configuration and data are those of `now`, and says
/// how many newer ones were damaged.
pub(crate) fn restore(folder: &Path, trainer: &mut Trainer<'_>, now: &Progress) -> Result<(Progress, usize)> {
    let mut damaged = 0;
    for path in list(folder)?.into_iter().rev() {
        let Some((progress, tensors)) = read(&path)? else {
            damaged += 1;
            continue;
        };
        check_same(&path, &progress, now)?;
        let path = path.join(TENSORS);
        let file = SafeTensors::deserialize(&tensors)
            .map_err(|source| Error::Safetensors { path: path.clone(), source })?;
        trainer.restore(progress.step, |name, shape| {
            let view = file.tensor(name).ok();
            let view = view.filter(|v| v.shape() == shape && v.dtype() == safetensors::Dtype::F32);
            let Some(view) = view else {
                let (path, name) = (path.clone(), name.to_owned());
                return Err(Error::CheckpointTensor { path, name, expected: shape.to_vec() });
            };
            Ok(Tensor::from_raw_buffer(view.data(), DType::F32, shape, &Device::Cpu)?)
        })?;
        return Ok((progress, damaged));
    }
    Err(Error::NoCheckpoint { path: folder.to_owned(), damaged })
}

/// The checkpoints of a folder, oldest first. Temporary ones are not listed.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Io { path: folder.to_owned(), source }),
    };
    let mut list: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_none() && path.is_dir())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-")))
        .collect();
    list.sort();
    Ok(list)
}

/// The content of a checkpoint, or none if it does not match its manifest.
fn read(path: &Path) -> Result<Option<(Progress, Vec<u8>)>> {
    let (Ok(manifest), Ok(state), Ok(tensors)) =
        (fs::read(path.join(MANIFEST)), fs::read(path.join(STATE)), fs::read(path.join(TENSORS)))
    else {
        return Ok(None);
    };
    let Ok(manifest) = serde_json::from_slice::<BTreeMap<String, String>>(&manifest) else {
        return Ok(None);
    };
    let good = |name: &str, bytes: &[u8]| manifest.get(name).is_some_and(|sum| *sum == digest(bytes));
    if !good(TENSORS, &tensors) || !good(STATE, &state) {
        return Ok(None);
    }
    // A file that matches its digest but does not parse was written by another version.
    let path = path.join(STATE);
    let progress = serde_json::from_slice(&state).map_err(|source| Error::Json { path, source })?;
    Ok(Some((progress, tensors)))
}

fn check_same(path: &Path, saved: &Progress, now: &Progress) -> Result<()> {
    let differs = |key: &str, saved: String, now: String| {
        Err(Error::OtherConfig { path: path.to_owned(), key: key.to_owned(), saved, now })
    };
    let labels = |progress: &Progress| progress.labels_sha256.clone().unwrap_or_else(|| "none".to_owned());
    for (key, saved, now) in [
        ("training images (SHA-256)", saved.images_sha256.clone(), now.images_sha256.clone()),
        ("training labels (SHA-256)", labels(saved), labels(now)),
    ] {
        if saved != now {
            return differs(key, saved, now);
        }
    }
    let map = |config: &TrainConfig| -> Result<serde_json::Value> {
        serde_json::to_value(config).map_err(|source| Error::Json { path: path.to_owned(), source })
    };
    let (saved, now) = (map(&saved.config)?, map(&now.config)?);
    for (key, value) in saved.as_object().into_iter().flatten() {
        if now[key] != *value {
            return differs(key, value.to_string(), now[key].to_string());
        }
    }
    Ok(())
}

fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Removes what a run that was killed while it wrote has left in a folder.
pub(crate) fn remove_temporary(folder: &Path) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(|source| Error::Io { path: folder.to_owned(), source })?;
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let temporary = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY));
        if temporary && path.is_dir() {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Removes a folder if it is there.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::Io { path: folder.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}
