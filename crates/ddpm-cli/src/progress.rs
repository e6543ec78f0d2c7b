//! Progress of long jobs on standard error: a bar on a terminal, otherwise a line every half minute, or, with `--json`, an
//! event every second, which is a JSON object on a line.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::{args::Common, output};

/// The time between two lines without a terminal.
const INTERVAL: Duration = Duration::from_secs(30);
/// The time between two events.
const EVENT_INTERVAL: Duration = Duration::from_secs(1);

/// The progress of a job.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// What is counted, such as "images".
    unit: &'static str,
    quiet: bool,
    /// Whether lines are events in JSON.
    json: bool,
    /// The time of the last line.
    last: Cell<Instant>,
}

impl Progress {
    /// Counts something, such as "images".
    pub(crate) fn new(common: &Common, unit: &'static str) -> Result<Self> {
        if common.quiet {
            return Ok(Self::hidden());
        }
        let template =
            format!("{{wide_bar}} {{human_pos}}/{{human_len}} {unit}  {{per_sec}}  {{eta}} left  {{msg}}");
        let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(&template)?);
        Ok(Self { bar, unit, quiet: false, json: common.json, last: Cell::new(Instant::now()) })
    }

    /// No bar and no lines.
    pub(crate) fn hidden() -> Self {
        let bar = ProgressBar::hidden();
        Self { bar, unit: "", quiet: true, json: false, last: Cell::new(Instant::now()) }
    }

    /// Starts at a position, from which the speed is measured.
    pub(crate) fn start(&self, position: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(position);
        self.bar.reset_eta();
    }

    /// Sets the position and a message.
    pub(crate) fn set(&self, position: u64, message: Option<String>) {
        self.bar.set_position(position);
        if let Some(message) = message {
            self.bar.set_message(message);
        }
        let interval = if self.json { EVENT_INTERVAL } else { INTERVAL };
        if self.bar.is_hidden() && self.last.get().elapsed() >= interval {
            let (total, message) = (self.bar.length().unwrap_or(0), self.bar.message());
            let separator = if message.is_empty() { "" } else { ", " };
            let text = format!("{position} of {total} {}{separator}{message}", self.unit);
            self.event("progress", json!({ "unit": self.unit, "done": position, "total": total }), &text);
        }
    }

    /// Advances the position.
    pub(crate) fn add(&self, done: usize) {
        self.set(self.bar.position() + done as u64, None);
    }

    /// Prints a line: text above the bar of a terminal, and without a terminal text or, with `--json`, the event `name` with
    /// the fields of `json`, an object.
    pub(crate) fn event(&self, name: &str, mut json: Value, text: &str) {
        if self.quiet {
            return;
        }
        if !self.bar.is_hidden() {
            self.bar.println(text);
        } else if self.json {
            json["event"] = name.into();
            output::lines(&json.to_string());
        } else {
            output::lines(text);
        }
        self.last.set(Instant::now());
    }
}

/// A function of the number of images done and their total number, which shows them.
pub(crate) fn images(common: &Common) -> Result<impl FnMut(usize, usize)> {
    let progress = Progress::new(common, "images")?;
    let mut started = false;
    Ok(move |done, total| {
        if !std::mem::replace(&mut started, true) {
            progress.start(0, total as u64);
        }
        progress.set(done as u64, None);
    })
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
