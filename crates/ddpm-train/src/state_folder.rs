//! Folders `step-N/` with a state of the run: checkpoints, and snapshots of averages.
//!
//! A folder is either complete or does not exist. It holds `state.safetensors`, `state.json`, and `manifest.json` with
//! the SHA-256 of both files.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ddpm_files::{AtomicDir, Manifest, sha256_hex};
use ddpm_model::{Error as ModelError, encode_json};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, TrainConfig, run::Sum};

/// The file of tensors.
pub(crate) const TENSORS: &str = "state.safetensors";
/// The file of the [`Progress`].
pub(crate) const STATE: &str = "state.json";
/// All files. Without the first, the folder is not complete.
const FILES: [&str; 3] = [Manifest::NAME, STATE, TENSORS];

/// The content of `state.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Progress {
    /// Steps taken.
    pub(crate) step: u64,
    /// Seconds of training so far.
    pub(crate) seconds: f64,
    /// The number of processes that train together.
    #[serde(default = "one")]
    pub(crate) world_size: usize,
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

fn one() -> usize {
    1
}

/// Opens a new folder for the state after this number of steps. It may replace a folder with the files of a state only.
pub(crate) fn create(folder: &Path, step: u64) -> Result<(PathBuf, AtomicDir)> {
    let to = folder.join(name(step));
    if to.exists() {
        check_ours(&to)?;
    }
    let new = AtomicDir::create(&to)?;
    Ok((to, new))
}

/// Writes the progress and the manifest into a new folder that has the tensors.
pub(crate) fn complete(
    new: &AtomicDir,
    to: &Path,
    progress: &Progress,
    tensors_sha256: String,
) -> Result<()> {
    let state = encode_json(&to.join(STATE), progress)?;
    new.write(STATE, &state)?;
    let mut manifest = Manifest::default();
    manifest.insert(TENSORS, tensors_sha256);
    manifest.insert(STATE, sha256_hex(&state));
    Ok(manifest.write(new)?)
}

/// The folders of states in the order of their steps, without temporary folders, links, and names that [`create`] does
/// not give.
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

/// The name of the folder of the state after this number of steps.
fn name(step: u64) -> String {
    format!("step-{step:08}")
}

/// The number of steps in the name of a folder.
pub(crate) fn step_of(path: &Path) -> Option<u64> {
    let found = path.file_name()?.to_str()?;
    let step = found.strip_prefix("step-")?.parse().ok()?;
    (found == name(step)).then_some(step)
}

/// Checks that a folder with the name of a state has no other files.
pub(crate) fn check_ours(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        if !FILES.iter().any(|name| entry.file_name() == *name) {
            return Err(Error::Foreign { path: entry.path() });
        }
    }
    Ok(())
}

/// Reads the progress and the tensors; `None` if a file is missing or does not match the manifest.
pub(crate) fn read(path: &Path) -> Result<Option<(Progress, Vec<u8>)>> {
    let Some([state, tensors]) = Manifest::read_verified(path, [STATE, TENSORS])? else { return Ok(None) };
    Ok(Some((parse(path, &state)?, tensors)))
}

/// Reads the progress only.
pub(crate) fn read_progress(path: &Path) -> Result<Option<Progress>> {
    let Some([state]) = Manifest::read_verified(path, [STATE])? else { return Ok(None) };
    parse(path, &state).map(Some)
}

/// A file that matches its digest but does not parse was written by another version: an error.
fn parse(path: &Path, state: &[u8]) -> Result<Progress> {
    Ok(serde_json::from_slice(state).map_err(ModelError::json(&path.join(STATE)))?)
}

/// Checks that a saved configuration and its data are the same as now.
pub(crate) fn check_same(path: &Path, saved: &Progress, now: &Progress) -> Result<()> {
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

/// Removes the files of a state, the manifest first, and its folder if that has no other files.
pub(crate) fn remove(folder: &Path) -> io::Result<()> {
    for name in FILES {
        match fs::remove_file(folder.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    fs::remove_dir(folder)
}
