//! A program that waits for the name of a job and does it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::process;

/// Lines of what a program said that an error repeats.
const LAST_LINES: usize = 8;

/// The answer to `info`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Info {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) threads: usize,
    pub(crate) parameters: u64,
}

/// The answer to the name of a job: what was done.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Piece {
    pub(crate) seconds: f64,
    /// Images trained on or sampled; none for a mere product of matrices.
    #[serde(default)]
    pub(crate) images: f64,
    /// Floating-point operations of the matrix products.
    pub(crate) flops: f64,
    /// The way that was chosen at the first request, and what was measured there.
    pub(crate) variant: Option<String>,
    #[serde(default)]
    pub(crate) images_per_second: BTreeMap<String, f64>,
    /// Ways that could not be tried, with the reason.
    #[serde(default)]
    pub(crate) failed: BTreeMap<String, String>,
}

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Server {
    /// Its command line.
    name: String,
    child: Child,
    /// `None` once it is to end.
    requests: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
    log: PathBuf,
}

impl Server {
    /// Starts a server whose stderr goes to the file `log`.
    pub(crate) fn start(mut command: Command, log: &Path) -> Result<Self> {
        let name = process::show(&command);
        process::say(&format!("$ {name}"));
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start `{name}`"))?;
        let requests = child.stdin.take();
        let replies = child.stdout.take().map(BufReader::new).context("a piped stdout is there")?;
        Ok(Self { name, child, requests, replies, log: log.to_owned() })
    }

    /// Has a job done.
    ///
    /// # Errors
    /// The server has ended, or its answer is not as agreed; the error shows what it said.
    pub(crate) fn ask<T: DeserializeOwned>(&mut self, job: &str) -> Result<T> {
        let mut line = String::new();
        // Where it cannot be written to, it has ended, and there is nothing to read either.
        let sent = self.requests.as_mut().is_some_and(|pipe| writeln!(pipe, "{job}").is_ok());
        if sent {
            self.replies
                .read_line(&mut line)
                .with_context(|| format!("cannot read what `{}` answers", self.name))?;
        }
        if !line.ends_with('\n') {
            return Err(self.ended(&format!("instead of answering `{job}`"), &line));
        }
        serde_json::from_str(&line)
            .with_context(|| format!("`{}` answered `{job}` with: {}", self.name, line.trim_end()))
    }

    /// [`Server::ask`] for a measurement.
    pub(crate) fn measure(&mut self, job: &str) -> Result<Piece> {
        let piece: Piece = self.ask(job)?;
        let Piece { seconds, images, flops, .. } = piece;
        let sensible = seconds > 0.0 && flops > 0.0 && images >= 0.0;
        if !sensible || !(seconds + flops + images).is_finite() {
            bail!("`{}` answered `{job}` with {seconds} s, {images} images, {flops} operations", self.name);
        }
        Ok(piece)
    }

    /// Lets the server end.
    ///
    /// # Errors
    /// It does not end well.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.requests = None;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(self.ended("when it was to stop", "")) }
    }

    fn ended(&mut self, when: &str, printed: &str) -> anyhow::Error {
        // Its pipe is closed, so it ends if it has not.
        self.requests = None;
        let how = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let said: Vec<&str> = log.lines().chain(printed.lines()).collect();
        let last = said[said.len().saturating_sub(LAST_LINES)..].join("\n");
        anyhow!("`{}` ended {when} ({how}); it said:\n{last}", self.name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
