//! The event file of a training run: the log and the previews, for TensorBoard.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use ddpm_files::write_atomic;
use ddpm_train::Record;

use super::previews::Previews;
use crate::event_file::{first_record, image, scalars};

/// What the name of an event file begins with, by which TensorBoard finds it. At least eight digits follow.
const PREFIX: &str = "events.out.tfevents.";

/// The event file of a run in progress. The run writes it anew when it starts or is resumed, from its whole log, and adds
/// to it as the log grows.
pub(super) struct Events {
    run: PathBuf,
    /// The step from which the run was resumed, which names the file: TensorBoard would not read a file of the same name
    /// from the start again.
    from: u64,
    /// `None` before the first update, and after one that failed.
    open: Option<Open>,
}

/// A file that holds everything up to a position in the log.
struct Open {
    path: PathBuf,
    file: File,
    position: u64,
    timeline: Timeline,
}

/// Turns the log into events.
struct Timeline {
    /// The time, in seconds since 1970, at which the run would have started if it had not been interrupted.
    started: f64,
    /// The last epoch of the log, its step and its time, if its preview has not become an event.
    epoch: Option<(u64, u64, f64)>,
}

impl Events {
    pub(super) fn new(run: &Path) -> Self {
        Self { run: run.to_owned(), from: 0, open: None }
    }

    /// The run goes on after this step.
    pub(super) fn resumed(&mut self, step: u64) {
        self.from = step;
    }

    /// Adds what is new in the log and among the previews. The log must be that of this run, as it is after the first
    /// checkpoint. After an error, the next call writes the file anew.
    pub(super) fn update(&mut self, previews: &Previews) -> Result<()> {
        let open = match self.open.take() {
            Some(open) => open.extended(&self.run, previews),
            None => self.create(previews),
        };
        self.open = Some(open.context("cannot write the event file for TensorBoard")?);
        Ok(())
    }

    /// Writes a file from the whole log. It replaces those of older parts of the run.
    fn create(&self, previews: &Previews) -> Result<Open> {
        let path = folder(&self.run).join(format!("{PREFIX}{:08}", self.from));
        let (records, position) = records_from(&self.run, 0)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let started = now - records.last().map_or(0.0, Record::seconds);
        let mut timeline = Timeline { started, epoch: None };
        let events = [first_record(started), timeline.events(&records, previews)?].concat();
        write_atomic(&path, &events)?;
        for older in existing(&self.run)?.into_iter().filter(|older| *older != path) {
            fs::remove_file(&older).with_context(|| format!("cannot remove {}", older.display()))?;
        }
        let file = File::options().append(true).open(&path).with_context(|| path.display().to_string())?;
        Ok(Open { path, file, position, timeline })
    }
}

impl Open {
    fn extended(mut self, run: &Path, previews: &Previews) -> Result<Self> {
        let (records, position) = records_from(run, self.position)?;
        let events = self.timeline.events(&records, previews)?;
        self.file.write_all(&events).with_context(|| self.path.display().to_string())?;
        Ok(Self { position, ..self })
    }
}

impl Timeline {
    /// The events of new records, and of a preview that was written after its record.
    fn events(&mut self, records: &[Record], previews: &Previews) -> Result<Vec<u8>> {
        let mut events = Vec::new();
        for record in records {
            let (step, time) = (record.step(), self.started + record.seconds());
            match *record {
                Record::Start { .. } => {}
                Record::Train { loss, learning_rate, grad_norm, images_per_second, .. } => {
                    let mut values = vec![
                        ("loss", loss),
                        ("learning_rate", learning_rate),
                        ("images_per_second", images_per_second),
                    ];
                    values.extend(grad_norm.map(|norm| ("grad_norm", norm)));
                    events.extend(scalars(time, step, &values));
                }
                Record::Epoch { epoch, test_loss, .. } => {
                    if let Some(loss) = test_loss {
                        events.extend(scalars(time, step, &[("test_loss", loss)]));
                    }
                    self.epoch = Some((epoch, step, time));
                    events.extend(self.preview(previews)?);
                }
            }
        }
        events.extend(self.preview(previews)?);
        Ok(events)
    }

    fn preview(&mut self, previews: &Previews) -> Result<Vec<u8>> {
        let preview = self.epoch.and_then(|(epoch, step, time)| Some((previews.of(epoch)?, step, time)));
        let Some((path, step, time)) = preview else { return Ok(Vec::new()) };
        self.epoch = None;
        let png = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        // A file that is no PNG was put there by somebody else.
        Ok(image(time, step, "samples", &png).unwrap_or_default())
    }
}

/// The records of the log of a run from a position on, and the position after the last complete line.
fn records_from(run: &Path, position: u64) -> Result<(Vec<Record>, u64)> {
    let path = run.join("metrics.jsonl");
    let read = || -> io::Result<Vec<u8>> {
        let (mut file, mut log) = (File::open(&path)?, Vec::new());
        file.seek(SeekFrom::Start(position))?;
        file.read_to_end(&mut log)?;
        Ok(log)
    };
    let log = read().with_context(|| format!("cannot read {}", path.display()))?;
    let end = log.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    let lines = log[..end].split(|&byte| byte == b'\n');
    Ok((lines.filter_map(|line| serde_json::from_slice(line).ok()).collect(), position + end as u64))
}

fn folder(run: &Path) -> PathBuf {
    run.join("tensorboard")
}

/// The files of a run folder with the names of its event files.
pub(super) fn existing(run: &Path) -> Result<Vec<PathBuf>> {
    let folder = folder(run);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries,
    };
    let paths = entries.and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>());
    let mut paths: Vec<PathBuf> = paths.with_context(|| format!("cannot read {}", folder.display()))?;
    let is_event_file = |path: &PathBuf| {
        let step = path.file_name()?.to_str()?.strip_prefix(PREFIX)?;
        Some(step.len() >= 8 && step.bytes().all(|byte| byte.is_ascii_digit()))
    };
    paths.retain(|path| is_event_file(path) == Some(true));
    Ok(paths)
}
