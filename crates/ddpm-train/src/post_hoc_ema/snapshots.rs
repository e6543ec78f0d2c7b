//! The snapshots of a run: folders with the averages after a step, in f16.

use std::path::Path;

use ddpm_files::sha256_hex;
use ddpm_model::{WeightType, encode_tensors};

use super::SIGMA_RELS;
use crate::{
    Result, Trainer,
    part::Part,
    run::Sum,
    state_folder::{Progress, TENSORS, check_same, complete, create, list, read_progress, remove, step_of},
};

/// The folder of the snapshots in the folder of a run.
pub(crate) const FOLDER: &str = "snapshots";

/// Writes the snapshot of the step that the trainer has reached.
///
/// # Errors
///
/// If the folder cannot be written, or a number is not finite in f16.
pub(crate) fn save(folder: &Path, trainer: &Trainer<'_>, progress: &Progress) -> Result<()> {
    let (since_log, since_epoch) = (Sum::default(), Sum::default());
    let progress = Progress { step: trainer.step(), since_log, since_epoch, ..progress.clone() };
    let (to, new) = create(folder, progress.step)?;
    let averages = (0..SIGMA_RELS.len()).map(|index| trainer.part(Part::PowerAverage(index)));
    let tensors = averages.collect::<Result<Vec<_>>>()?.concat();
    let tensors = tensors.iter().map(|(name, tensor)| (name, tensor));
    let bytes = encode_tensors(&to.join(TENSORS), tensors, WeightType::F16)?;
    new.write(TENSORS, &bytes)?;
    complete(&new, &to, &progress, sha256_hex(&bytes))?;
    Ok(new.commit()?)
}

/// Makes the snapshots those of a run that goes on after the step of `progress`: removes the snapshots of later steps,
/// damaged ones, and those that an older run left; and writes the snapshot of this step if it is missing, because the
/// program was killed before it was written.
pub(crate) fn resume(folder: &Path, trainer: &Trainer<'_>, progress: &Progress) -> Result<()> {
    let mut kept = 0;
    let mut has_this = false;
    for path in list(folder)? {
        let step = step_of(&path).filter(|&step| step <= progress.step);
        let saved = if step.is_some() { read_progress(&path)? } else { None };
        if saved.is_some_and(|saved| check_same(&path, &saved, progress).is_ok()) {
            kept += 1;
            has_this |= step == Some(progress.step);
        } else if let Err(error) = remove(&path) {
            log::warn!("{}: cannot remove this snapshot of another run: {error}", path.display());
        }
    }
    let timetable = trainer.timetable();
    if progress.step > 0 && timetable.has_snapshot(progress.step) && !has_this {
        save(folder, trainer, progress)?;
        kept += 1;
    }
    let expected = timetable.snapshots_until(progress.step).min(progress.step);
    if kept < expected {
        log::warn!(
            "{}: {} of {expected} snapshots are missing, so fewer lengths of the average can be had",
            folder.display(),
            expected - kept
        );
    }
    Ok(())
}
