//! Checkpoints that survive a crash: a checkpoint is either complete or does not exist.
//!
//! [`save`] writes a checkpoint to a hidden folder, syncs it to the disk, and renames it to `step-N/`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use ddpm_files::{AtomicFile, Manifest, Sha256};
use ddpm_model::{Error as ModelError, safetensors_header};
use safetensors::{
    Dtype, SafeTensors,
    tensor::{TensorInfo, TensorView},
};

use crate::{
    Error, Result, Trainer,
    metrics::Log,
    state_folder::{Progress, TENSORS, check_same, complete, create, list, read, remove},
};

/// Writes a checkpoint, and removes the states of an older run, `replaced`, and all but the newest `keep` checkpoints of
/// this one. It syncs the log to the disk first: a resumed run keeps the lines up to the checkpoint and does not write them
/// again.
pub(crate) fn save(
    folder: &Path,
    log: &mut Log,
    trainer: &Trainer<'_>,
    progress: &Progress,
    keep: usize,
    replaced: &[PathBuf],
) -> Result<()> {
    let (to, new) = create(folder, progress.step)?;
    let digest = write_tensors(new.file(TENSORS)?, trainer, progress.step)?;
    complete(&new, &to, progress, digest)?;
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
    for part in trainer.parts() {
        for parameter in &parameters {
            let (start, shape) = (end, parameter.shape.clone());
            end += shape.iter().product::<usize>() * size_of::<f32>();
            let info = TensorInfo { dtype: Dtype::F32, shape, data_offsets: (start, end) };
            infos.push((part.tensor_name(&parameter.name), info));
        }
    }
    let header = safetensors_header(file.path(), None, infos)?;
    let mut digest = Sha256::default();
    let mut write = |bytes: &[u8]| {
        digest.update(bytes);
        file.append(bytes)
    };
    write(&header)?;
    for part in trainer.parts() {
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

/// A checkpoint in memory.
pub(crate) struct Checkpoint {
    /// Its folder.
    pub(crate) path: PathBuf,
    pub(crate) progress: Progress,
    /// The file of tensors.
    pub(crate) tensors: Vec<u8>,
}

impl Checkpoint {
    /// Reads the newest checkpoint that matches its manifest. Returns it with the number of newer checkpoints, which are
    /// damaged.
    ///
    /// # Errors
    ///
    /// If the checkpoint's configuration or data differs from `now`, or a checkpoint cannot be read.
    pub(crate) fn newest(folder: &Path, now: &Progress) -> Result<(Self, usize)> {
        let mut damaged = 0;
        for path in list(folder)?.into_iter().rev() {
            let Some((progress, tensors)) = read(&path)? else {
                damaged += 1;
                continue;
            };
            check_same(&path, &progress, now)?;
            let (saved, now) = (progress.world_size, now.world_size);
            if saved != now && progress.config.sync_every.is_none() {
                return Err(Error::OtherWorldSize { path, saved, now });
            }
            return Ok((Self { path, progress, tensors }, damaged));
        }
        Err(Error::NoCheckpoint { path: folder.to_owned(), damaged })
    }

    /// Sets the trainer's state to that of the checkpoint.
    pub(crate) fn restore(&self, trainer: &mut Trainer<'_>) -> Result<()> {
        let path = self.path.join(TENSORS);
        let file = SafeTensors::deserialize(&self.tensors).map_err(ModelError::safetensors(&path))?;
        trainer.restore(self.progress.step, |name, shape| {
            let fits = |view: &TensorView<'_>| view.shape() == shape && view.dtype() == Dtype::F32;
            let missing = || Error::CheckpointTensor {
                path: path.clone(),
                name: name.to_owned(),
                expected: shape.to_vec(),
            };
            let view = file.tensor(name).ok().filter(fits).ok_or_else(missing)?;
            Ok(Tensor::from_raw_buffer(view.data(), DType::F32, shape, &Device::Cpu)?)
        })
    }
}

#[cfg(test)]
mod tests;
