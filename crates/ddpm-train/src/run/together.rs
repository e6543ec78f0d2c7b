//! What the processes of a group do together, apart from the steps.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use ddpm_model::{Error as ModelError, encode_json};

use super::Outcome;
use crate::{
    Error, Result, Trainer,
    checkpoint::Checkpoint,
    group::{Group, any, is_first, world_size},
    state_folder::{Progress, STATE, check_same},
};

/// Checks that all processes have the same configuration and data. If one differs, it is an error in all of them.
pub(super) fn check_equal(group: Group<'_>, now: &Progress) -> Result<()> {
    let Some(members) = group else { return Ok(()) };
    let path = Path::new(STATE);
    let mut bytes = encode_json(path, now)?;
    members.broadcast(&mut bytes).map_err(Error::Group)?;
    let first = serde_json::from_slice(&bytes).map_err(ModelError::json(path))?;
    let result = check_same(path, &first, now).map_err(|error| match error {
        Error::OtherConfig { key, saved, now, .. } => {
            Error::OtherProcess { rank: members.rank(), key, found: now, expected: saved }
        }
        other => other,
    });
    match (any(group, result.is_err())?, result) {
        (true, Ok(())) => Err(Error::Group("a process has another configuration or other data".into())),
        (_, result) => result,
    }
}

/// Gives the checkpoint of process 0, if it has one, to all processes.
pub(super) fn share_checkpoint(
    group: Group<'_>,
    found: Option<Checkpoint>,
    folder: &Path,
) -> Result<Option<Checkpoint>> {
    let Some(members) = group else { return Ok(found) };
    let share = |mut bytes: Vec<u8>| members.broadcast(&mut bytes).map(|()| bytes).map_err(Error::Group);
    let (path, progress, tensors) = match found {
        Some(Checkpoint { path, progress, tensors }) => (path, Some(progress), tensors),
        None => (folder.to_owned(), None, Vec::new()),
    };
    let progress = share(encode_json(&path, &progress)?)?;
    let progress: Option<Progress> = serde_json::from_slice(&progress).map_err(ModelError::json(&path))?;
    let tensors = share(tensors)?;
    Ok(progress.map(|progress| Checkpoint { path, progress, tensors }))
}

/// The run of a process that is not process 0.
pub(super) fn follow(
    mut trainer: Trainer<'_>,
    folder: &Path,
    progress: Progress,
    stop: &AtomicBool,
    group: Group<'_>,
) -> Result<Outcome> {
    debug_assert!(!is_first(group));
    let mut before = progress.seconds;
    if let Some(checkpoint) = share_checkpoint(group, None, folder)? {
        checkpoint.restore(&mut trainer)?;
        before = checkpoint.progress.seconds;
    }
    let (started, total) = (Instant::now(), trainer.total_steps());
    while trainer.step() < total {
        if trainer.is_synchronised() && any(group, stop.load(Ordering::Relaxed))? {
            return Err(Error::Stopped { step: trainer.step(), total });
        }
        trainer.train_step()?;
    }
    Outcome::of(&trainer, before + started.elapsed().as_secs_f64(), world_size(group))
}
