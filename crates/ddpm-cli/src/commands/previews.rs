//! The previews of a training run: pictures after each epoch.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use ddpm_files::write_atomic;
use ddpm_train::{Error, Start, logged_epochs};

use super::events;

/// The previews of one run, and those of an older run that it replaces.
pub(super) struct Previews {
    folder: PathBuf,
    replaced: Vec<PathBuf>,
}

impl Previews {
    /// Checks that a run of `epochs` epochs will replace no preview, no plot and no event file that no run has written. A run
    /// has written a preview if its log has the epoch.
    pub(super) fn new(run: &Path, start: Start, epochs: u64) -> Result<Self> {
        let folder = run.join("previews");
        let logged = logged_epochs(run)?;
        let existing = existing(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let mut replaced = Vec::new();
        if start != Start::Resume {
            let plot = run.join("loss.svg");
            let plot = Some(plot).filter(|plot| logged == 0 && plot.exists());
            let without_log = !run.join("metrics.jsonl").exists();
            let event_file = events::existing(run)?.into_iter().find(|_| without_log);
            let (older, others): (Vec<_>, _) = existing.into_iter().partition(|(epoch, _)| *epoch <= logged);
            let foreign = others.into_iter().find(|(epoch, _)| *epoch <= epochs).map(|(_, path)| path);
            if let Some(path) = foreign.or(plot).or(event_file) {
                return Err(Error::Foreign { path }.into());
            }
            replaced = older.into_iter().map(|(_, path)| path).collect();
        }
        Ok(Self { folder, replaced })
    }

    /// Removes the previews of an older run.
    pub(super) fn remove_replaced(&mut self) -> Result<()> {
        self.replaced.drain(..).try_for_each(|older| {
            fs::remove_file(&older).with_context(|| format!("cannot remove {}", older.display()))
        })
    }

    /// The path of the preview of an epoch, if there is one.
    pub(super) fn of(&self, epoch: u64) -> Option<PathBuf> {
        Some(self.folder.join(name(epoch))).filter(|path| path.exists())
    }

    /// Writes the preview of an epoch.
    pub(super) fn write(&self, epoch: u64, png: &[u8]) -> Result<()> {
        Ok(write_atomic(&self.folder.join(name(epoch)), png)?)
    }
}

/// The previews of a run with their epochs, in order.
pub(super) fn all(run: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let folder = run.join("previews");
    let mut previews = existing(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    previews.sort();
    Ok(previews)
}

fn name(epoch: u64) -> String {
    format!("epoch-{epoch:03}.png")
}

/// The files with the names of previews, and their epochs.
fn existing(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut previews = Vec::new();
    for entry in entries {
        let entry = entry?;
        let found = entry.file_name();
        let epoch = found.to_str().and_then(|found| {
            let epoch = found.strip_prefix("epoch-")?.strip_suffix(".png")?.parse().ok()?;
            (found == name(epoch)).then_some(epoch)
        });
        previews.extend(epoch.map(|epoch| (epoch, entry.path())));
    }
    Ok(previews)
}
