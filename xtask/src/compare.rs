//! `cargo xtask compare`: the same images and settings, other networks and losses.

use anyhow::Result;
use serde::Serialize;

use crate::compare_report::markdown;
use crate::ddpm::{Count, DataSet, Ddpm, Subject, Training, Way};
use crate::figures::Evaluation;
use crate::phases::{Phase, in_words};
use crate::process;
use crate::provenance::Provenance;
use crate::source::Source;
use crate::staging::Staging;
use crate::start::Started;
use crate::workspace::Workspace;

/// Images of each class in a grid.
const SHOWN_PER_CLASS: u32 = 5;
/// Images that are drawn and judged.
const JUDGED: u32 = 500;

/// Train small models that differ in one choice each, and write a table of how well they do.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Epochs of each training; those of the preset `compare` by default.
    #[arg(long, value_name = "N")]
    epochs: Option<u32>,
    /// Seed of training, sampling and evaluation.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Threads to compute with; all cores by default.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// What is told apart: every field but the name is a choice of `ddpm-cli train`.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Candidate {
    pub(crate) name: &'static str,
    pub(crate) network: &'static str,
    /// What the last layer of the network puts out, before any conversion.
    pub(crate) raw_output: &'static str,
    /// What the model is said to predict, after the conversion.
    pub(crate) prediction: &'static str,
    pub(crate) loss: &'static str,
}

/// First each prediction by conversion from raw output x₀, then other spaces of loss, then raw outputs of ε
/// and v, then the same for the original recipe, whose literal form is `plain-raw-epsilon`.
const CANDIDATES: [Candidate; 10] = [
    Candidate::new("mlp", "sample", "epsilon", "sample", "mlp-epsilon"),
    Candidate::new("mlp", "sample", "sample", "sample", "mlp-sample"),
    Candidate::new("mlp", "sample", "v_prediction", "sample", "mlp-v_prediction"),
    Candidate::new("mlp", "sample", "epsilon", "min_snr", "mlp-loss-min_snr"),
    Candidate::new("mlp", "sample", "v_prediction", "v_prediction", "mlp-loss-v_prediction"),
    Candidate::new("mlp", "sample", "epsilon", "epsilon", "mlp-loss-epsilon"),
    Candidate::new("mlp", "epsilon", "epsilon", "epsilon", "mlp-raw-epsilon"),
    Candidate::new("mlp", "v_prediction", "v_prediction", "v_prediction", "mlp-raw-v_prediction"),
    Candidate::new("plain", "epsilon", "epsilon", "epsilon", "plain-raw-epsilon"),
    Candidate::new("plain", "sample", "epsilon", "sample", "plain-sample"),
];

impl Candidate {
    const fn new(
        network: &'static str,
        raw_output: &'static str,
        prediction: &'static str,
        loss: &'static str,
        name: &'static str,
    ) -> Self {
        Self { name, network, raw_output, prediction, loss }
    }

    fn choices(&self, epochs: Option<u32>) -> Vec<String> {
        let choices = [
            ["--network", self.network],
            ["--output", self.raw_output],
            ["--prediction", self.prediction],
            ["--loss", self.loss],
        ];
        let mut choices: Vec<String> = choices.concat().into_iter().map(String::from).collect();
        choices.push("--overwrite".to_owned());
        if let Some(epochs) = epochs {
            choices.extend(["--epochs".to_owned(), epochs.to_string()]);
        }
        choices
    }
}

/// A candidate after training, with its measurements.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    #[serde(flatten)]
    pub(crate) candidate: Candidate,
    /// File of the grid of images, sampled with posterior noise.
    pub(crate) grid: String,
    pub(crate) training: Training,
    pub(crate) evaluation: Evaluation,
    pub(crate) evaluation_without_noise: Evaluation,
}

/// `compare.json`.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison<'a> {
    #[serde(flatten)]
    pub(crate) provenance: &'a Provenance,
    pub(crate) data: DataSet,
    pub(crate) models: Vec<Outcome>,
    pub(crate) phases: Vec<Phase>,
    pub(crate) total_seconds: f64,
}

/// Builds `ddpm-cli` and compares with it.
pub(crate) fn run(arguments: &Arguments, workspace: &Workspace) -> Result<()> {
    process::print(&compare(arguments, Started::with_build(workspace, arguments.seed, &[])?)?)
}

/// All phases after the build; returns a summary for the user.
pub(crate) fn compare(arguments: &Arguments, started: Started<'_>) -> Result<String> {
    let Started { workspace, binary, provenance, mut phases } = started;
    let (root, source) = (workspace.root(), Source::mnist());
    let runs = root.join("runs/compare");
    let ddpm = Ddpm { binary: &binary, root, seed: arguments.seed, threads: arguments.threads };
    let data = phases.run("data", || ddpm.data(source.argument()))?;

    let mut staging = Staging::new(runs.join("results.partial"))?;
    let mut models = Vec::new();
    for candidate in CANDIDATES {
        let (name, folder) = (candidate.name, runs.join(candidate.name));
        let choices = candidate.choices(arguments.epochs);
        let training = phases
            .run(&format!("train {name}"), || ddpm.train(source.argument(), "compare", &folder, &choices))?;
        let model = folder.join("model");
        let grid = format!("compare-{name}.png");
        let out = staging.add(&grid, &format!("images of {name}, sampled with posterior noise"));
        let count = Count::PerClass(SHOWN_PER_CLASS);
        phases.run(&format!("draw {grid}"), || ddpm.sample(&model, count, Way::Default, &out))?;
        let subject = Subject { model: Some(&model), source: source.argument(), features: None };
        let judge = |way: Way| ddpm.evaluate(subject, JUDGED, "accuracy", way.arguments());
        let evaluation = phases.run(&format!("evaluate {name}"), || judge(Way::Default))?;
        let evaluation_without_noise =
            phases.run(&format!("evaluate {name} without noise"), || judge(Way::NoNoise))?;
        models.push(Outcome { candidate, grid, training, evaluation, evaluation_without_noise });
    }

    let (total_seconds, done) = (phases.total_seconds(), phases.done().to_vec());
    let comparison = Comparison { provenance: &provenance, data, models, phases: done, total_seconds };
    let report = markdown(&comparison);
    std::fs::write(staging.add("compare.md", "the comparison, as a table"), &report)?;
    let json = serde_json::to_string_pretty(&comparison)? + "\n";
    std::fs::write(staging.add("compare.json", "the comparison, with all measurements"), json)?;
    staging.publish(&root.join("results"))?;
    Ok(format!("{report}\nDone in {}: results/compare.md", in_words(total_seconds)))
}
