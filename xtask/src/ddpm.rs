//! The command line of `ddpm-cli`, as far as the jobs need it.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::figures::{Classifier, Evaluation, Likelihood, More};
use crate::process;

/// What `ddpm-cli data` says about a set of images.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DataSet {
    pub(crate) name: String,
    /// `None` or 0 if the images have no labels.
    #[serde(default)]
    pub(crate) classes: Option<u32>,
    /// The number of test images; `None` or 0 if there are none.
    #[serde(default)]
    pub(crate) test: Option<u64>,
    #[serde(flatten)]
    pub(crate) more: More,
}

/// What `ddpm-cli train` says at the end. A loss that is not a number is `None`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Training {
    pub(crate) epochs: u64,
    pub(crate) steps: u64,
    pub(crate) batch_size: u64,
    pub(crate) seconds: f64,
    pub(crate) images_per_second: f64,
    pub(crate) train_loss: Option<f64>,
    pub(crate) test_loss: Option<f64>,
    #[serde(flatten)]
    pub(crate) more: More,
}

/// A way of sampling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Way {
    /// As `ddpm-cli` samples by itself: posterior noise, and guidance.
    Default,
    /// Posterior noise, without guidance.
    NoGuidance,
    /// With guidance, without added noise.
    NoNoise,
    /// By a solver of second order: more varied images.
    Varied,
}

impl Way {
    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            Way::Default => &["--noise", "posterior"],
            Way::NoGuidance => &["--noise", "posterior", "--guidance", "1"],
            Way::NoNoise => &["--noise", "none"],
            Way::Varied => &["--sampler", "dpmpp-2m"],
        }
    }

    /// As part of a file's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Way::Default => "default",
            Way::NoGuidance => "no-guidance",
            Way::NoNoise => "no-noise",
            Way::Varied => "varied",
        }
    }
}

/// How many images to draw.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Count {
    PerClass(u32),
    InAll(u32),
}

/// A model and the images that it is measured by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// The folder of the model; `None` is the built-in one.
    pub(crate) model: Option<&'a Path>,
    pub(crate) source: &'a str,
    /// The folder of a feature net; `None` is the built-in one of MNIST.
    pub(crate) features: Option<&'a Path>,
}

/// A built `ddpm-cli` and the settings that all its calls share.
#[derive(Debug)]
pub(crate) struct Ddpm<'a> {
    /// The program.
    pub(crate) binary: &'a Path,
    /// The folder it is started in: paths below it are handed over relative to it.
    pub(crate) root: &'a Path,
    pub(crate) seed: u64,
    pub(crate) threads: Option<usize>,
}

impl Ddpm<'_> {
    /// Fetches and verifies a set of images.
    pub(crate) fn data(&self, source: &str) -> Result<DataSet> {
        self.json(self.with_data(&mut self.command("data"), source))
    }

    /// Trains into the folder `out`; `choices` are further arguments.
    pub(crate) fn train(
        &self,
        source: &str,
        preset: &str,
        out: &Path,
        choices: &[String],
    ) -> Result<Training> {
        let mut command = self.command("train");
        self.with_data(&mut command, source).args(["--preset", preset, "--out"]).arg(self.relative(out));
        self.json(self.with_settings(&mut command).args(choices))
    }

    /// Draws images with a model into one PNG or GIF, as the name of `out` says.
    pub(crate) fn sample(&self, model: &Path, count: Count, way: Way, out: &Path) -> Result<()> {
        let format = if out.extension().is_some_and(|e| e == "gif") { "gif" } else { "png" };
        let (flag, number) = match count {
            Count::PerClass(number) => ("--per-class", number),
            Count::InAll(number) => ("-n", number),
        };
        let mut command = self.command("sample");
        command.arg("--model").arg(self.relative(model)).args([flag, &number.to_string()]);
        command.args(way.arguments()).args(["--format", format]);
        command.arg("-o").arg(self.relative(out));
        let _: Value = self.json(self.with_settings(&mut command))?;
        Ok(())
    }

    /// Trains a feature net of a set of images into the folder `out`.
    pub(crate) fn features(&self, source: &str, out: &Path) -> Result<()> {
        let mut command = self.command("features");
        self.with_data(&mut command, source).arg("-o").arg(self.relative(out));
        let _: Value = self.json(self.with_settings(&mut command))?;
        Ok(())
    }

    /// Draws images with a model, evenly of all classes, and takes the figures of merit named in `metrics`;
    /// `choices` say how to sample.
    pub(crate) fn evaluate(
        &self,
        subject: Subject<'_>,
        samples: u32,
        metrics: &str,
        choices: &[impl AsRef<OsStr>],
    ) -> Result<Evaluation> {
        let mut command = self.eval_generated(subject);
        command.args(["--samples", &samples.to_string(), "--metrics", metrics]).args(choices);
        self.json(self.with_settings(&mut command))
    }

    /// Takes all figures of merit of images drawn with a model, and writes table and pictures to the folder `out`.
    pub(crate) fn quality(
        &self,
        subject: Subject<'_>,
        samples: u32,
        way: Way,
        out: &Path,
    ) -> Result<Evaluation> {
        let mut command = self.eval_generated(subject);
        command.args(["--samples", &samples.to_string()]).args(way.arguments());
        command.arg("-o").arg(self.relative(out));
        self.json(self.with_settings(&mut command))
    }

    /// Measures the variational bound of a model on test images.
    pub(crate) fn likelihood(&self, subject: Subject<'_>, images: u32) -> Result<Likelihood> {
        let mut command = self.eval(subject);
        command.args(["--likelihood", "--images", &images.to_string()]);
        self.json(self.with_settings(&mut command))
    }

    /// Measures a model as a classifier of test images.
    pub(crate) fn classifier(&self, subject: Subject<'_>, images: u32, draws: u32) -> Result<Classifier> {
        let mut command = self.eval(subject);
        command.args(["--classifier", "--images", &images.to_string(), "--draws", &draws.to_string()]);
        self.json(self.with_settings(&mut command))
    }

    fn eval(&self, subject: Subject<'_>) -> Command {
        let mut command = self.command("eval");
        if let Some(model) = subject.model {
            command.arg("--model").arg(self.relative(model));
        }
        self.with_data(&mut command, subject.source);
        command
    }

    /// Only generated images are measured by a feature net.
    fn eval_generated(&self, subject: Subject<'_>) -> Command {
        let mut command = self.eval(subject);
        if let Some(features) = subject.features {
            command.arg("--features").arg(self.relative(features));
        }
        command
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(self.binary);
        command.current_dir(self.root).arg(subcommand);
        command
    }

    /// The name of a set that is no folder below the root stays as it is.
    fn with_data<'c>(&self, command: &'c mut Command, source: &str) -> &'c mut Command {
        command.arg("--data").arg(self.relative(Path::new(source)))
    }

    fn with_settings<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.args(["--seed", &self.seed.to_string()]);
        if let Some(threads) = self.threads {
            command.args(["--threads", &threads.to_string()]);
        }
        command
    }

    fn relative(&self, path: &Path) -> OsString {
        path.strip_prefix(self.root).unwrap_or(path).as_os_str().to_owned()
    }

    fn json<T: DeserializeOwned>(&self, command: &mut Command) -> Result<T> {
        command.arg("--json");
        process::say(&format!("$ {}", process::show(command)));
        let text = process::run_for_stdout(command)?;
        serde_json::from_str(&text)
            .with_context(|| format!("`{}` printed unexpected JSON: {}", process::show(command), text.trim()))
    }
}
