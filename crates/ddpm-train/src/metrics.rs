//! The log of a training run: one JSON object on each line.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use ddpm_files::write_atomic;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// Progress within an epoch.
    Train {
        /// Steps taken so far.
        step: u64,
        /// Epochs so far, with the current one as a fraction.
        epoch: f64,
        /// Training images so far, counting repetitions.
        images: u64,
        /// The mean loss since the last such line.
        loss: f64,
        /// The learning rate of the last step.
        learning_rate: f64,
        /// Images per second since the last such line.
        images_per_second: f64,
        /// Seconds of training so far.
        seconds: f64,
    },
    /// The end of an epoch.
    Epoch {
        /// Epochs so far.
        epoch: u64,
        /// Steps taken so far.
        step: u64,
        /// The mean loss over the epoch.
        train_loss: f64,
        /// The loss of the averaged weights on test images; `None` if the data has no test images.
        test_loss: Option<f64>,
        /// Seconds of training so far.
        seconds: f64,
    },
}

impl Record {
    /// The number of steps taken when the line was written.
    #[must_use]
    pub fn step(&self) -> u64 {
        match *self {
            Self::Train { step, .. } | Self::Epoch { step, .. } => step,
        }
    }
}

/// The log file, open for appending.
pub(crate) struct Log {
    path: PathBuf,
    file: fs::File,
    last_epoch: Option<Record>,
}

impl Log {
    /// Opens the log, and removes the lines after `step`, which a resumed run writes again.
    pub(crate) fn open(path: &Path, step: u64) -> Result<Self> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text.map_err(Error::io(path))?,
        };
        let (mut kept, mut last_epoch) = (String::new(), None);
        for line in text.lines() {
            // A truncated line does not parse, and is removed.
            let Some(record) = serde_json::from_str::<Record>(line).ok().filter(|r| r.step() <= step) else {
                continue;
            };
            kept.extend([line, "\n"]);
            if matches!(record, Record::Epoch { .. }) {
                last_epoch = Some(record);
            }
        }
        write_atomic(path, kept.as_bytes())?;
        let file = fs::OpenOptions::new().append(true).open(path).map_err(Error::io(path))?;
        Ok(Self { path: path.to_owned(), file, last_epoch })
    }

    /// The same log with another file.
    #[cfg(test)]
    pub(crate) fn with_file(self, file: fs::File) -> Self {
        Self { file, ..self }
    }

    /// The last [`Record::Epoch`] of the log; `None` before the end of the first epoch.
    pub(crate) fn last_epoch(&self) -> Option<&Record> {
        self.last_epoch.as_ref()
    }

    /// Appends a line.
    pub(crate) fn write(&mut self, record: &Record) -> Result<()> {
        if matches!(record, Record::Epoch { .. }) {
            self.last_epoch = Some(record.clone());
        }
        let line = serde_json::to_string(record).map_err(ddpm_model::Error::json(&self.path))? + "\n";
        self.file.write_all(line.as_bytes()).map_err(Error::io(&self.path))
    }

    /// Syncs all lines to the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(Error::io(&self.path))
    }
}
