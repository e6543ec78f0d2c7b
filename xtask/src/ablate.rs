//! `cargo xtask ablate`: one choice changed at a time, of training and of sampling.

mod report;
#[cfg(test)]
mod tests;
mod variants;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use serde::Serialize;

use crate::ddpm::{Ddpm, Subject, Training};
use crate::figures::{Evaluation, Likelihood, MEASURED};
use crate::phases::{Phase, Phases, in_words};
use crate::process;
use crate::provenance::Provenance;
use crate::source::Source;
use crate::staging::Staging;
use crate::start::Started;
use crate::workspace::Workspace;

use variants::{Model, OPTIMAL, SAMPLING, TRAINING, Variant};

/// Training images of MNIST.
const IMAGES_PER_EPOCH: f64 = 60_000.0;
const METRICS: &str = "frechet,manifold,accuracy,memorisation";
/// Test images of the variational bound.
const LIKELIHOOD_IMAGES: u32 = 1000;

/// Train models for the same time that differ in one choice each, sample in several ways, and table how good the
/// images are.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Minutes of each training, about.
    #[arg(long, value_name = "M", default_value_t = 1.0, value_parser = minutes)]
    minutes: f64,
    /// Only these rows; the results go to runs/ablate/results/.
    #[arg(long, value_name = "NAMES", value_delimiter = ',',
        value_parser = PossibleValuesParser::new(variants::names()))]
    only: Vec<String>,
    /// Seed of training, sampling and evaluation.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Threads to compute with; all cores by default.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// A variant with its measurements.
#[derive(Debug, Clone, Serialize)]
struct Row {
    name: &'static str,
    /// Arguments of `ddpm-cli train`, without the number of epochs; `None` for the built-in model.
    train: Option<Vec<&'static str>>,
    /// Arguments of `ddpm-cli eval`.
    eval: Vec<String>,
    /// `None` if the model is built in.
    training: Option<Training>,
    evaluation: Evaluation,
    /// `None` if the model is built in, unless the row needs its optimal variances.
    likelihood: Option<Likelihood>,
}

/// `ablation.json`.
#[derive(Debug, Serialize)]
struct Ablation<'a> {
    #[serde(flatten)]
    provenance: &'a Provenance,
    minutes: f64,
    /// Rows of models that were trained for this.
    training: Vec<Row>,
    /// Rows of the built-in model.
    sampling: Vec<Row>,
    phases: Vec<Phase>,
    total_seconds: f64,
}

/// Builds `ddpm-cli` and ablates with it.
pub(crate) fn run(arguments: &Arguments, workspace: &Workspace) -> Result<()> {
    process::print(&ablate(arguments, Started::with_build(workspace, arguments.seed, &[])?)?)
}

/// All phases after the build; returns a summary for the user.
pub(crate) fn ablate(arguments: &Arguments, started: Started<'_>) -> Result<String> {
    let Started { workspace, binary, provenance, mut phases } = started;
    let selected = arguments.selected();
    let root = workspace.root();
    let workbench = Workbench {
        ddpm: Ddpm { binary: &binary, root, seed: arguments.seed, threads: arguments.threads },
        runs: root.join("runs/ablate"),
        minutes: arguments.minutes,
    };
    // A part does not take the place of what an interrupted run of all rows left.
    let (partial, results) = if arguments.only.is_empty() {
        ("results.partial", root.join("results"))
    } else {
        ("part.partial", workbench.runs.join("results"))
    };
    let mut staging = Staging::new(workbench.runs.join(partial))?;
    let table = staging.add("ablation.md", "the ablation, as tables");
    let json = staging.add("ablation.json", "the ablation, with all measurements");

    let mut ablation = Ablation {
        provenance: &provenance,
        minutes: arguments.minutes,
        training: Vec::new(),
        sampling: Vec::new(),
        phases: Vec::new(),
        total_seconds: 0.0,
    };
    for variant in selected {
        let row = workbench.row(variant, &mut phases)?;
        match variant.model {
            Model::BuiltIn => ablation.sampling.push(row),
            Model::Trained { .. } => ablation.training.push(row),
        }
        (ablation.phases, ablation.total_seconds) = (phases.done().to_vec(), phases.total_seconds());
        // After every row, so that an interruption keeps what is done.
        std::fs::write(&table, report::markdown(&ablation))?;
        std::fs::write(&json, serde_json::to_string_pretty(&ablation)? + "\n")?;
    }
    staging.publish(&results)?;
    let results = results.strip_prefix(root).unwrap_or(&results).display();
    Ok(format!(
        "{}\nDone in {}: {results}/ablation.md",
        report::markdown(&ablation),
        in_words(ablation.total_seconds)
    ))
}

impl Arguments {
    /// The selected variants, in the order of the tables.
    fn selected(&self) -> Vec<&'static Variant> {
        let is_wanted = |name: &str| self.only.is_empty() || self.only.iter().any(|wanted| wanted == name);
        let all = TRAINING.iter().chain(&SAMPLING);
        all.filter(|variant| is_wanted(variant.name)).collect()
    }
}

/// What all rows share.
struct Workbench<'a> {
    ddpm: Ddpm<'a>,
    runs: PathBuf,
    minutes: f64,
}

impl Workbench<'_> {
    fn row(&self, variant: &Variant, phases: &mut Phases) -> Result<Row> {
        let &Variant { name, model, sampling } = variant;
        let training = match model {
            Model::Trained { preset, choices } => Some(self.train(name, preset, choices, phases)?),
            Model::BuiltIn => None,
        };
        let folder = training.is_some().then(|| self.runs.join(name).join("model"));
        let source = Source::mnist();
        let subject = Subject { model: folder.as_deref(), source: source.argument(), features: None };
        let measure = || self.ddpm.likelihood(subject, LIKELIHOOD_IMAGES);
        let is_measured = training.is_some() || sampling.contains(&OPTIMAL);
        let likelihood =
            is_measured.then(|| phases.run(&format!("likelihood of {name}"), measure)).transpose()?;
        let eval = sampling.iter().map(|&word| match &likelihood {
            Some(likelihood) if word == OPTIMAL => listed(&likelihood.optimal_variances),
            _ => word.to_owned(),
        });
        let eval: Vec<String> = eval.collect();
        let evaluation = phases
            .run(&format!("evaluate {name}"), || self.ddpm.evaluate(subject, MEASURED, METRICS, &eval))?;
        Ok(Row { name, train: model.train_arguments(), eval, training, evaluation, likelihood })
    }

    /// Trains for about the minutes asked for: as many epochs as one epoch foretells.
    fn train(&self, name: &str, preset: &str, choices: &[&str], phases: &mut Phases) -> Result<Training> {
        let source = Source::mnist();
        let train = |epochs: f64, out: &Path| {
            let mut choices: Vec<String> = choices.iter().copied().map(String::from).collect();
            choices.extend(["--overwrite".to_owned(), "--epochs".to_owned(), epochs.to_string()]);
            self.ddpm.train(source.argument(), preset, out, &choices)
        };
        let one =
            phases.run(&format!("train {name}, one epoch"), || train(1.0, &self.runs.join("scratch")))?;
        let epochs = (self.minutes * 60.0 * one.images_per_second / IMAGES_PER_EPOCH).round().max(1.0);
        phases.run(&format!("train {name}"), || train(epochs, &self.runs.join(name)))
    }
}

/// As an argument.
fn listed(numbers: &[f64]) -> String {
    numbers.iter().map(f64::to_string).collect::<Vec<_>>().join(",")
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes = text.parse().ok().filter(|minutes: &f64| minutes.is_finite() && *minutes > 0.0);
    minutes.ok_or_else(|| "expected a number above 0".to_owned())
}
