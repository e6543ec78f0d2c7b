//! Checkpoints that survive a crash: a checkpoint is either complete or does not exist.
//!
//! [`save`] writes a checkpoint to a hidden folder, syncs it to the disk, and renames it to `step-N/`. The folder holds
//! `state.safetensors`, `state.json`, and `manifest.json` with the SHA-256 of both files.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use ddpm_files::{AtomicDir, AtomicFile, Manifest, Sha256, sha256_hex};
use ddpm_kernels::StatePart;
use ddpm_model::{Error as ModelError, encode_json, safetensors_header};
use safetensors::{
    Dtype, SafeTensors,
    tensor::{TensorInfo, TensorView},
};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, TrainConfig, Trainer, metrics::Log, optimizer::state_name, run::Sum};

const TENSORS: &str = "state.safetensors";
const STATE: &str = "state.json";
/// All files of a checkpoint. Without the first, it is not complete.
const FILES: [&str; 3] = [Manifest::NAME, STATE, TENSORS];

/// The content of `state.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Progress {
    /// Steps taken.
    pub(crate) step: u64,
    /// Seconds of training so far.
    pub(crate) seconds: f64,
    /// The SHA-256 of the training images.
    pub(crate) images_sha256: String,
    /// The SHA-256 of the training labels; `None` if the data has no labels.
    pub(crate) labels_sha256: Option<String>,
    /// The SHA-256 of the weights from which the run started; `None` if they were random.
    #[serde(default)]
    pub(crate) initial_sha256: Option<String>,
    /// The configuration of the run.
    pub(crate) config: TrainConfig,
    /// The losses since the last line of the log.
    #[serde(default)]
    pub(crate) since_log: Sum,
    /// The losses since the last epoch, up to the last line of the log.
    #[serde(default)]
    pub(crate) since_epoch: Sum,
}

/// Writes a checkpoint, and removes those of an older run, `replaced`, and all but the newest `keep` of this one. It
/// syncs the log to the disk first: a resumed run keeps the lines up to the checkpoint and does not write them again.
pub(crate) fn save(
    folder: &Path,
    log: &mut Log,
    trainer: &Trainer<'_>,
    progress: &Progress,
    keep: usize,
    replaced: &[PathBuf],
) -> Result<()> {
    let to = folder.join(name(progress.step));
    if to.exists() {
        check_ours(&to)?;
    }
    let new = AtomicDir::create(&to)?;
    let mut manifest = Manifest::default();
    manifest.insert(TENSORS, write_tensors(new.file(TENSORS)?, trainer, progress.step)?);
    let state = encode_json(&to.join(STATE), progress)?;
    new.write(STATE, &state)?;
    manifest.insert(STATE, sha256_hex(&state));
    manifest.write(&new)?;
    log.sync()?;
    new.commit()?;
    log.publish()?;
    for path in replaced.iter().rev().filter(|path| **path != to) {
        // Without its manifest, no run resumes from a checkpoint of the older run. The loop below warns of a failure.
        drop(fs::remove_file(path.join(Manifest::NAME)));
    }
    let of_this_run: Vec<_> = list(folder)?.into_iter().filter(|path| !replaced.contains(path)).collect();
    let old = of_this_run.iter().filter(|path| **path != to).rev().skip(keep - 1);
    for path in replaced.iter().filter(|path| **path != to).rev().chain(old) {
        if let Err(error) = remove(path) {
            log::warn!("{}: cannot remove this old checkpoint: {error}", path.display());
        }
    }
    Ok(())
}

/// Writes the training state in the safetensors format and returns the file's SHA-256. It copies one part of the state
/// at a time, so that a checkpoint does not double the memory of the run. A number that is not finite is an error.
fn write_tensors(mut file: AtomicFile, trainer: &Trainer<'_>, step: u64) -> Result<String> {
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
    let header = safetensors_header(file.path(), infos)?;
    let mut digest = Sha256::default();
    let mut write = |bytes: &[u8]| {
        digest.update(bytes);
        file.append(bytes)
    };
    write(&header)?;
    for part in StatePart::ALL {
        let mut tensors = trainer.part(part)?;
        tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (name, tensor) in tensors {
            let values = tensor.flatten_all()?.to_vec1::<f32>()?;
            if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
                return Err(Error::NotFinite { name, value, step });
            }
            write(&values.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>())?;
        }
    }
    file.commit()?;
    Ok(digest.into_hex())
}

/// Restores the newest checkpoint that matches its manifest. Returns its progress and the number of newer checkpoints,
/// which are damaged.
///
/// # Errors
///
/// If the checkpoint's configuration or data differs from `now`, or a checkpoint cannot be read.
pub(crate) fn restore(folder: &Path, trainer: &mut Trainer<'_>, now: &Progress) -> Result<(Progress, usize)> {
    let mut damaged = 0;
    for path in list(folder)?.into_iter().rev() {
        let Some((progress, tensors)) = read(&path)? else {
            damaged += 1;
            continue;
        };
        check_same(&path, &progress, now)?;
        let path = path.join(TENSORS);
        let file = SafeTensors::deserialize(&tensors).map_err(ModelError::safetensors(&path))?;
        trainer.restore(progress.step, |name, shape| {
            let fits = |view: &TensorView<'_>| view.shape() == shape && view.dtype() == Dtype::F32;
            let missing = || Error::CheckpointTensor {
                path: path.clone(),
                name: name.to_owned(),
                expected: shape.to_vec(),
            };
            let view = file.tensor(name).ok().filter(fits).ok_or_else(missing)?;
            Ok(Tensor::from_raw_buffer(view.data(), DType::F32, shape, &Device::Cpu)?)
        })?;
        return Ok((progress, damaged));
    }
    Err(Error::NoCheckpoint { path: folder.to_owned(), damaged })
}

/// The checkpoints of a folder in the order of their steps, without temporary folders, links, and names that [`save`]
/// does not give.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io(folder))?,
    };
    let mut list = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io(folder))?;
        let is_dir = entry.file_type().map_err(Error::io(&entry.path()))?.is_dir();
        list.extend(step_of(&entry.path()).filter(|_| is_dir).map(|step| (step, entry.path())));
    }
    list.sort();
    Ok(list.into_iter().map(|(_, path)| path).collect())
}

/// The name of the checkpoint after this number of steps.
fn name(step: u64) -> String {
    format!("step-{step:08}")
}

/// The number of steps in the name of a checkpoint.
fn step_of(path: &Path) -> Option<u64> {
    let found = path.file_name()?.to_str()?;
    let step = found.strip_prefix("step-")?.parse().ok()?;
    (found == name(step)).then_some(step)
}

/// Checks that a folder with the name of a checkpoint has no other files.
pub(crate) fn check_ours(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        if !FILES.iter().any(|name| entry.file_name() == *name) {
            return Err(Error::Foreign { path: entry.path() });
        }
    }
    Ok(())
}

/// Reads a checkpoint; `None` if a file is missing or does not match the manifest.
fn read(path: &Path) -> Result<Option<(Progress, Vec<u8>)>> {
    let Some([state, tensors]) = Manifest::read_verified(path, [STATE, TENSORS])? else { return Ok(None) };
    // A file that matches its digest but does not parse was written by another version: an error.
    let progress = serde_json::from_slice(&state).map_err(ModelError::json(&path.join(STATE)))?;
    Ok(Some((progress, tensors)))
}

/// Checks that a saved configuration and its data are the same as now.
fn check_same(path: &Path, saved: &Progress, now: &Progress) -> Result<()> {
    let differs = |key: &str, saved: String, now: String| {
        Err(Error::OtherConfig { path: path.to_owned(), key: key.to_owned(), saved, now })
    };
    let none = |digest: &Option<String>| digest.clone().unwrap_or_else(|| "none".to_owned());
    for (key, saved, now) in [
        ("training images (SHA-256)", saved.images_sha256.clone(), now.images_sha256.clone()),
        ("training labels (SHA-256)", none(&saved.labels_sha256), none(&now.labels_sha256)),
        ("initial weights (SHA-256)", none(&saved.initial_sha256), none(&now.initial_sha256)),
    ] {
        if saved != now {
            return differs(key, saved, now);
        }
    }
    let map = |config: &TrainConfig| serde_json::to_value(config).map_err(ModelError::json(path));
    let (saved, now) = (map(&saved.config)?, map(&now.config)?);
    for (key, value) in saved.as_object().into_iter().flatten() {
        if now[key] != *value {
            return differs(key, value.to_string(), now[key].to_string());
        }
    }
    Ok(())
}

/// Removes the files of a checkpoint, the manifest first, and its folder if that has no other files.
fn remove(folder: &Path) -> io::Result<()> {
    for name in FILES {
        match fs::remove_file(folder.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    fs::remove_dir(folder)
}

#[cfg(test)]
mod tests;
