//! The command line of `ddpm-cli`, as far as the jobs need it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::process;

/// Fields that a newer `ddpm-cli` may add; they are kept in the files of results.
type More = BTreeMap<String, Value>;

/// What `ddpm-cli data` says about a set of images.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DataSet {
    pub(crate) name: String,
    /// `None` or 0 if the images have no labels.
    #[serde(default)]
    pub(crate) classes: Option<u32>,
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

/// What `ddpm-cli eval` says; accuracies are between 0 and 1.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Evaluation {
    pub(crate) samples: u64,
    pub(crate) class_accuracy: f64,
    pub(crate) class_accuracy_by_class: Vec<Option<f64>>,
    /// The accuracy of the same ruler on real images that it has not seen.
    pub(crate) real_accuracy: f64,
    /// The guidance scale of sampling.
    pub(crate) guidance: f64,
    /// How the class of an image is told.
    pub(crate) ruler: String,
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
    /// By a solver of second order, with guidance where the shape is decided: more varied images.
    Varied,
}

impl Way {
    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            Way::Default => &["--noise", "posterior"],
            Way::NoGuidance => &["--noise", "posterior", "--guidance", "1"],
            Way::NoNoise => &["--noise", "none"],
            Way::Varied => &["--sampler", "dpmpp-2m", "--guidance", "2", "--guidance-interval", "5-13"],
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
        self.json(self.command("data").args(["--data", source]))
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
        command.args(["--data", source, "--preset", preset, "--out"]).arg(self.relative(out));
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
        command.args(["--data", source, "-o"]).arg(self.relative(out));
        let _: Value = self.json(self.with_settings(&mut command))?;
        Ok(())
    }

    /// Draws images with a model, evenly of all classes, and judges their classes by a feature net: that in the
    /// folder `features`, or the built-in one of MNIST.
    pub(crate) fn evaluate(
        &self,
        model: &Path,
        source: &str,
        features: Option<&Path>,
        samples: u32,
        way: Way,
    ) -> Result<Evaluation> {
        let mut command = self.eval(model, source, features);
        command.args(["--samples", &samples.to_string(), "--metrics", "accuracy"]).args(way.arguments());
        self.json(self.with_settings(&mut command))
    }

    /// Takes all figures of merit of images drawn with a model, and writes table and pictures to the folder `out`.
    pub(crate) fn quality(
        &self,
        model: &Path,
        source: &str,
        features: Option<&Path>,
        way: Way,
        out: &Path,
    ) -> Result<Value> {
        let mut command = self.eval(model, source, features);
        command.args(way.arguments()).arg("-o").arg(self.relative(out));
        self.json(self.with_settings(&mut command))
    }

    fn eval(&self, model: &Path, source: &str, features: Option<&Path>) -> Command {
        let mut command = self.command("eval");
        command.arg("--model").arg(self.relative(model)).args(["--data", source]);
        if let Some(features) = features {
            command.arg("--features").arg(self.relative(features));
        }
        command
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(self.binary);
        command.current_dir(self.root).arg(subcommand);
        command
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
