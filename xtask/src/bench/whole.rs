//! Whole processes of `ddpm-cli`: how soon it is done, how much memory it takes, and whether that stays so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::SEED;
use super::usage::run_for_stdout_and_memory;
use crate::process;

/// The smallest job of the scaling series; each following one is ten times as large.
const SMALLEST: u64 = 1000;
/// Jobs up to this size are repeated in turn, larger ones take long enough to be run once.
const REPEATED: u64 = 100_000;
const REPEATS: usize = 5;

/// A built `ddpm-cli` and where it works.
#[derive(Debug)]
pub(crate) struct Whole<'a> {
    pub(crate) cli: &'a Path,
    pub(crate) root: &'a Path,
    /// A folder of the root for what is written.
    pub(crate) folder: &'a Path,
    pub(crate) threads: usize,
}

/// Wall time of the same job by two programs, in seconds, round by round.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cold {
    pub(crate) ours: Vec<f64>,
    pub(crate) peer: Vec<f64>,
}

/// What a training run needs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TrainingMemory {
    /// In bytes; `None` where the system does not tell.
    pub(crate) peak: Option<u64>,
    pub(crate) parameters: u64,
}

/// A job of sampling.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scale {
    pub(crate) images: u64,
    /// For each repetition.
    pub(crate) images_per_second: Vec<f64>,
    /// The most of all repetitions, in bytes.
    pub(crate) peak: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Trained {
    parameters: u64,
}

#[derive(Debug, Deserialize)]
struct Sampled {
    seconds: f64,
}

impl Whole<'_> {
    /// Draws 50 digits with `ddpm-cli` and with `script` in turn, after one time that is not counted.
    pub(crate) fn cold(&self, mut script: Command, rounds: usize, pause: Duration) -> Result<Cold> {
        let mut ours = self.command("sample");
        ours.args(["--classes", "0-9", "--per-class", "5", "--quiet", "--out"]).arg(self.out("ours.png"));
        script.arg("--out").arg(self.out("peer.png"));
        process::say(&format!("$ {}\n$ {}", process::show(&ours), process::show(&script)));
        let mut cold = Cold { ours: Vec::new(), peer: Vec::new() };
        for round in 0..=rounds {
            thread::sleep(pause);
            let mine = wall_time(&mut ours)?;
            thread::sleep(pause);
            let theirs = wall_time(&mut script)?;
            if round > 0 {
                cold.ours.push(mine);
                cold.peer.push(theirs);
            }
        }
        Ok(cold)
    }

    /// Trains for an epoch and looks at the memory.
    pub(crate) fn training_memory(&self) -> Result<TrainingMemory> {
        let mut command = self.command("train");
        command.args(["--preset", "quick", "--epochs", "1", "--overwrite", "--json", "--out"]);
        let (Trained { parameters }, peak) = json_and_memory(command.arg(self.out("train")))?;
        Ok(TrainingMemory { peak, parameters })
    }

    /// Samples more and more images, up to `largest`.
    pub(crate) fn scaling(&self, largest: u64) -> Result<Vec<Scale>> {
        let sizes = std::iter::successors(Some(SMALLEST), |size| size.checked_mul(10));
        let sizes = sizes.take_while(|&size| size <= largest);
        let mut series: Vec<Scale> =
            sizes.map(|images| Scale { images, images_per_second: Vec::new(), peak: None }).collect();
        for repeat in 0..REPEATS {
            // The large ones in the middle, as far from the start as the small ones are on average.
            let now = |scale: &&mut Scale| scale.images <= REPEATED || repeat == REPEATS.div_euclid(2);
            for scale in series.iter_mut().filter(now) {
                let (Sampled { seconds }, peak) = self.sample(scale.images)?;
                scale.images_per_second.push(scale.images as f64 / seconds);
                scale.peak = scale.peak.max(peak);
            }
        }
        Ok(series)
    }

    fn sample(&self, images: u64) -> Result<(Sampled, Option<u64>)> {
        let mut command = self.command("sample");
        command.args([
            "--number",
            &images.to_string(),
            "--guidance",
            "1",
            "--format",
            "idx",
            "--json",
            "--out",
        ]);
        let result = json_and_memory(command.arg(self.out("scaling")));
        for suffix in ["images-idx3-ubyte", "labels-idx1-ubyte"] {
            // Not there if sampling failed.
            drop(fs::remove_file(self.folder.join(format!("scaling-{suffix}"))));
        }
        result
    }

    fn command(&self, subcommand: &str) -> Command {
        let (threads, seed) = (self.threads.to_string(), SEED.to_string());
        let mut command = Command::new(self.cli);
        command.current_dir(self.root).args([subcommand, "--seed", &seed, "--threads", &threads]);
        command
    }

    /// A file in the folder, relative to the root.
    fn out(&self, name: &str) -> PathBuf {
        self.folder.strip_prefix(self.root).unwrap_or(self.folder).join(name)
    }
}

/// The time from the start of a program to its end, in seconds.
fn wall_time(command: &mut Command) -> Result<f64> {
    let started = Instant::now();
    process::run(command.stdin(Stdio::null()))?;
    Ok(started.elapsed().as_secs_f64())
}

fn json_and_memory<T: DeserializeOwned>(command: &mut Command) -> Result<(T, Option<u64>)> {
    process::say(&format!("$ {}", process::show(command)));
    let (text, memory) = run_for_stdout_and_memory(command)?;
    let value = serde_json::from_str(&text)
        .with_context(|| format!("`{}` printed unexpected JSON: {}", process::show(command), text.trim()))?;
    Ok((value, memory))
}
