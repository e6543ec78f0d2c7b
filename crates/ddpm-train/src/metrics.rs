//! The log of a run: one JSON object a line.

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
    /// Some steps of training.
    Train {
        /// Steps taken so far.
        step: u64,
        /// ShuffledBatches so far, counting the current one as a fraction.
        epoch: f64,
        /// Images seen so far.
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
        /// ShuffledBatches so far.
        epoch: u64,
        /// Steps taken so far.
        step: u64,
        /// The mean loss over the epoch.
        train_loss: f64,
        /// The loss of the averaged weights on held-out images; none without such images.
        test_loss: Option<f64>,
        /// Seconds of training so far.
        seconds: f64,
    },
}

impl Record {
    /// Steps taken when the line was written.
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
    /// Opens the log, without the lines after `step`, which a resumed run writes again.
    pub(crate) fn open(path: &Path, step: u64) -> Result<Self> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text.map_err(Error::io(path))?,
        };
        let (mut kept, mut last_epoch) = (String::new(), None);
        for line in text.lines() {
            // A line that was cut off in the middle does not parse, and is dropped.
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

    /// The log with another file behind it.
    #[cfg(test)]
    pub(crate) fn with_file(self, file: fs::File) -> Self {
        Self { file, ..self }
    }

    /// The last line about an epoch.
    pub(crate) fn last_epoch(&self) -> Option<&Record> {
        self.last_epoch.as_ref()
    }

    pub(crate) fn write(&mut self, record: &Record) -> Result<()> {
        if matches!(record, Record::Epoch { .. }) {
            self.last_epoch = Some(record.clone());
        }
        let mut line = serde_json::to_string(record)
            .map_err(|source| Error::Json { path: self.path.clone(), source })?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(Error::io(&self.path))
    }

    /// Makes all lines durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(Error::io(&self.path))
    }
}
