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
    /// The start of a run from the weights of another one.
    Start {
        /// The name of the network.
        initial: String,
        /// The SHA-256 of its weights.
        sha256: String,
    },
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
        /// The norm of the gradient of the last step, before clipping; `None` at the end of an epoch that is not a
        /// multiple of 50 steps, and in a log of an earlier version.
        #[serde(default)]
        grad_norm: Option<f64>,
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
        /// The loss of the averaged weights on test images; `None` if the data has no test images, or the weights were not
        /// evaluated after this epoch.
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
            Self::Start { .. } => 0,
            Self::Train { step, .. } | Self::Epoch { step, .. } => step,
        }
    }

    /// Seconds of training when the line was written.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        match *self {
            Self::Start { .. } => 0.0,
            Self::Train { seconds, .. } | Self::Epoch { seconds, .. } => seconds,
        }
    }
}

/// The name of the log of a run that replaces another one, before its first checkpoint. `remove_temporary` knows it.
const TEMPORARY: &str = ".tmp-newlog";

/// The log file, open for appending.
pub(crate) struct Log {
    path: PathBuf,
    file: fs::File,
    last_epoch: Option<Record>,
    last_seconds: Option<f64>,
    /// The log of an older run, which [`publish`](Log::publish) replaces with this log.
    replaces: Option<PathBuf>,
}

/// The records of a log. A line that is not a record, such as a truncated one, is left out.
fn records(log: &[u8]) -> impl Iterator<Item = (&[u8], Record)> {
    let lines = log.split(|&byte| byte == b'\n');
    lines.filter_map(|line| Some((line, serde_json::from_slice(line).ok()?)))
}

/// Reads a log; a missing file is empty.
fn read(path: &Path) -> Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        bytes => bytes.map_err(Error::io(path)),
    }
}

/// The number of epochs in a log; 0 if the file does not exist, `None` if this program did not write it.
pub(crate) fn epochs(path: &Path) -> Result<Option<u64>> {
    let (log, mut epochs, mut any) = (read(path)?, 0, false);
    for (_, record) in records(&log) {
        any = true;
        if let Record::Epoch { epoch, .. } = record {
            epochs = epochs.max(epoch);
        }
    }
    Ok((any || log.trim_ascii().is_empty() || is_start_of_a_record(&log)).then_some(epochs))
}

/// Whether a log ends inside its first line, because the program was killed or the disk was full.
fn is_start_of_a_record(log: &[u8]) -> bool {
    const START: &[u8] = b"{\"kind\":\"";
    !log.contains(&b'\n') && (log.starts_with(START) || START.starts_with(log))
}

impl Log {
    /// Opens the log, and removes the lines after `step`, which a resumed run writes again.
    pub(crate) fn open(path: &Path, step: u64) -> Result<Self> {
        let log = read(path)?;
        let (mut kept, mut last_epoch, mut last_seconds) = (Vec::new(), None, None);
        for (line, record) in records(&log).filter(|(_, record)| record.step() <= step) {
            kept.extend([line, b"\n"].concat());
            last_seconds = Some(record.seconds());
            if matches!(record, Record::Epoch { .. }) {
                last_epoch = Some(record);
            }
        }
        write_atomic(path, &kept)?;
        let file = fs::OpenOptions::new().append(true).open(path).map_err(Error::io(path))?;
        Ok(Self { path: path.to_owned(), file, last_epoch, last_seconds, replaces: None })
    }

    /// Opens a new log under a temporary name beside the log of an older run.
    pub(crate) fn replacing(path: &Path) -> Result<Self> {
        let mut log = Self::open(&path.with_file_name(TEMPORARY), 0)?;
        log.replaces = Some(path.to_owned());
        Ok(log)
    }

    /// Syncs all lines to the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(Error::io(&self.path))
    }

    /// Replaces the log of an older run, the first time.
    pub(crate) fn publish(&mut self) -> Result<()> {
        if let Some(path) = self.replaces.take() {
            fs::rename(&self.path, &path).map_err(Error::io(&path))?;
            self.path = path;
        }
        Ok(())
    }

    /// The same log with another file.
    #[cfg(test)]
    pub(crate) fn with_file(self, file: fs::File) -> Self {
        Self { path: self.path.clone(), file, last_epoch: None, last_seconds: None, replaces: None }
    }

    /// The seconds of the last line that the log had when it was opened.
    pub(crate) fn last_seconds(&self) -> Option<f64> {
        self.last_seconds
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
}

impl Drop for Log {
    fn drop(&mut self) {
        if self.replaces.is_some() {
            // The run ended before its first checkpoint. The caller reports the cause.
            drop(fs::remove_file(&self.path));
        }
    }
}
