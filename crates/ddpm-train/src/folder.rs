//! The folder of a run: its lock, and what an older run or somebody else has left in it.

use std::{
    fs::{self, TryLockError},
    path::{Path, PathBuf},
};

use ddpm_files::{create_dir_all, remove_temporary};

use crate::{
    Error, Result, Start, metrics, post_hoc_ema,
    state_folder::{check_ours, list},
};

/// The file name of the log.
const LOG: &str = "metrics.jsonl";

/// A locked folder that may be written.
pub(crate) struct RunFolder {
    pub(crate) checkpoints: PathBuf,
    pub(crate) snapshots: PathBuf,
    pub(crate) log: PathBuf,
    /// The lock ends when this file is dropped.
    _lock: fs::File,
}

impl RunFolder {
    /// Creates the folder, locks it, checks that `start` fits its content, and removes temporary files that a killed run
    /// left. Everything else stays.
    pub(crate) fn open(folder: &Path, start: Start) -> Result<Self> {
        let checkpoints = folder.join("checkpoints");
        let snapshots = folder.join(post_hoc_ema::FOLDER);
        let log = folder.join(LOG);
        if start == Start::Resume && !folder.exists() {
            return Err(Error::NoCheckpoint { path: checkpoints, damaged: 0 });
        }
        let path = folder.join(".lock");
        let check = || check(folder, &checkpoints, &snapshots, start);
        if folder.exists() && !path.exists() {
            // A folder that is refused does not get a lock.
            check()?;
        }
        create_dir_all(folder)?;
        // The file is not truncated: its name may be a link to another file.
        let lock = fs::File::options().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        locked(lock.try_lock(), folder)?;
        check()?;
        for folder in
            [folder, &checkpoints, &snapshots, &folder.join("previews"), &folder.join("tensorboard")]
        {
            if folder.is_dir() {
                remove_temporary(folder)?;
            }
        }
        Ok(Self { checkpoints, snapshots, log, _lock: lock })
    }
}

/// The number of epochs in the log of a run folder; 0 without a log.
///
/// # Errors
///
/// [`Error::Foreign`] if the log has no line of this program, [`Error::Io`] if it cannot be read.
pub fn logged_epochs(folder: &Path) -> Result<u64> {
    let log = folder.join(LOG);
    metrics::epochs(&log)?.ok_or(Error::Foreign { path: log })
}

/// Checks the result of locking. A file system without locks is a warning.
fn locked(result: std::result::Result<(), TryLockError>, folder: &Path) -> Result<()> {
    match result {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Error::Locked { path: folder.to_owned() }),
        Err(TryLockError::Error(error)) => log::warn!(
            "{}: cannot lock the folder ({error}); a second run in it would not be refused",
            folder.display()
        ),
    }
    Ok(())
}

/// Checks that `start` fits the content of the folder. A run that ended before its first checkpoint has nothing to keep:
/// its log has at most the epoch whose checkpoint it was going to save.
fn check(folder: &Path, checkpoints: &Path, snapshots: &Path, start: Start) -> Result<()> {
    let (existing, snapshots) = (list(checkpoints)?, list(snapshots)?);
    let has_epochs = logged_epochs(folder)? > 1;
    match start {
        Start::Fresh if !existing.is_empty() || !snapshots.is_empty() || has_epochs => {
            Err(Error::Occupied { path: folder.to_owned() })
        }
        // A first checkpoint precedes the first snapshot, so a run with snapshots alone did not end before it.
        Start::Resume
            if existing.is_empty() && (has_epochs || !snapshots.is_empty() || !folder.join(LOG).exists()) =>
        {
            Err(Error::NoCheckpoint { path: checkpoints.to_owned(), damaged: 0 })
        }
        Start::Overwrite => existing.iter().chain(&snapshots).try_for_each(|path| check_ours(path)),
        Start::Fresh | Start::Resume => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_file_system_without_locks_is_no_error_and_a_lock_of_another_run_is() {
        for kind in [io::ErrorKind::Unsupported, io::ErrorKind::InvalidInput, io::ErrorKind::Other] {
            locked(Err(TryLockError::Error(kind.into())), Path::new("run")).unwrap();
        }
        let error = locked(Err(TryLockError::WouldBlock), Path::new("run")).unwrap_err();
        assert!(matches!(error, Error::Locked { path } if path == Path::new("run")));
    }
}
