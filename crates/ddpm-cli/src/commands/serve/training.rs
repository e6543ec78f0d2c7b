//! Watches the folder of a training run.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use axum::response::sse;
use candle_core::Device;
use ddpm_train::Record;
use serde_json::json;
use tokio::{sync::mpsc, task::spawn_blocking, time::sleep};

use super::{request::Model, stream::event};
use crate::{commands::previews, model};

/// The time between two looks at the folder.
const PERIOD: Duration = Duration::from_millis(500);

/// The most bytes of the log that one look reads.
const PART: u64 = 1 << 18;

/// The longest line of a log, and the largest preview, in bytes.
const LIMIT: u64 = 16 << 20;

/// A run folder, and its model when it was last read.
#[derive(Debug)]
pub(super) struct Training {
    folder: PathBuf,
    model: Mutex<Option<(SystemTime, Model)>>,
}

impl Training {
    /// # Errors
    /// The folder does not exist.
    pub(super) fn new(folder: &Path) -> Result<Self> {
        ensure!(folder.is_dir(), "{}: no such folder, expected one of `train`", folder.display());
        Ok(Self { folder: folder.to_owned(), model: Mutex::default() })
    }

    /// The model of the run, read again if it has changed.
    pub(super) fn model(&self) -> Result<Model> {
        let folder = self.folder.join("model");
        let name = folder.display().to_string();
        let changed = changed(&folder).with_context(|| format!("{name}: the run has no model yet"))?;
        let mut known = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, model)) = known.as_ref().filter(|(at, _)| *at == changed) {
            return Ok(model.clone());
        }
        let denoiser = model::load(&name, &Device::Cpu)?;
        let sha256 = denoiser.sha256()?;
        let model = Model { name, denoiser: Arc::new(denoiser), sha256 };
        *known = Some((changed, model.clone()));
        Ok(model)
    }

    /// The newest preview.
    pub(super) fn preview(&self) -> Result<Vec<u8>> {
        let (_, path) = newest(&self.folder).context("the run has no preview yet")?;
        let mut png = Vec::new();
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        file.take(LIMIT).read_to_end(&mut png)?;
        Ok(png)
    }

    /// Sends what happens in the folder until nobody receives it.
    pub(super) async fn watch(self: Arc<Self>, events: mpsc::Sender<sse::Event>) {
        let mut seen = Seen::default();
        while !events.is_closed() {
            let training = self.clone();
            let looked = spawn_blocking(move || seen.look(&training.folder).map(|found| (seen, found))).await;
            let (next, found) = match looked {
                Ok(Ok(looked)) => looked,
                Ok(Err(error)) => {
                    let message = format!("{}: {error}", self.folder.join("metrics.jsonl").display());
                    drop(events.send(event("failed", &json!({ "message": message }))).await);
                    return;
                }
                Err(_) => return,
            };
            seen = next;
            // Without news, so that a client that has gone is noticed.
            let is_old = found.is_empty();
            for event in found {
                if events.send(event).await.is_err() {
                    return;
                }
            }
            if is_old {
                sleep(PERIOD).await;
            }
        }
    }
}

/// What has been sent.
#[derive(Default)]
struct Seen {
    /// The bytes of the log that were read.
    position: u64,
    /// The start of a line that is not complete.
    line: Vec<u8>,
    preview: Option<(u64, SystemTime)>,
    model: Option<SystemTime>,
}

impl Seen {
    /// The events since the last look.
    fn look(&mut self, folder: &Path) -> io::Result<Vec<sse::Event>> {
        let mut events = Vec::new();
        let log = folder.join("metrics.jsonl");
        let length = match fs::metadata(&log) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            metadata => metadata?.len(),
        };
        if length < self.position {
            (self.position, self.line) = (0, Vec::new());
            events.push(event("restart", &json!({})));
        }
        if length > self.position {
            let mut file = File::open(&log)?;
            file.seek(SeekFrom::Start(self.position))?;
            let read = file.take(PART).read_to_end(&mut self.line)?;
            self.position += read as u64;
            let complete = self.line.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
            let lines: Vec<u8> = self.line.drain(..complete).collect();
            let records =
                lines.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
            let records: Vec<Record> = records.collect();
            events.push(event("records", &json!(records)));
            if self.line.len() as u64 > LIMIT {
                return Err(io::Error::other("a line is too long for a log of `train`"));
            }
        }
        let preview = newest(folder).and_then(|(epoch, path)| Some((epoch, changed(&path)?)));
        if let Some((epoch, _)) = preview.filter(|_| preview != self.preview) {
            events.push(event("preview", &json!({ "epoch": epoch })));
            self.preview = preview;
        }
        let model = changed(&folder.join("model"));
        if model.is_some() && model != self.model {
            events.push(event("model", &json!({})));
            self.model = model;
        }
        Ok(events)
    }
}

/// When a file or a folder was changed; `None` if it does not exist.
fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// The preview of the latest epoch.
fn newest(folder: &Path) -> Option<(u64, PathBuf)> {
    previews::all(folder).ok()?.pop()
}
