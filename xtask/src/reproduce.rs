//! `cargo xtask reproduce`: from the images to everything in `results/`, in one command.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::ddpm::{Count, DataSet, Ddpm, Subject, Training, Way};
use crate::figures::{Classified, Classifier, Evaluation, Likelihood, MEASURED, cell, percent};
use crate::install;
use crate::phases::{Phase, Phases, in_words};
use crate::process;
use crate::provenance::Provenance;
use crate::source::Source;
use crate::staging::{ResultFile, Staging, file_name_part};
use crate::start::Started;
use crate::workspace::Workspace;

/// Images of each class in a grid and in the animation.
const SHOWN_PER_CLASS: u32 = 5;
/// Images in a grid of a set without labels.
const SHOWN_WITHOUT_LABELS: u32 = 50;
/// Images by which the class accuracy of other ways of sampling is taken.
const JUDGED: u32 = 1000;
/// Test images of the variational bound, and those that the diffusion classifier tells, by so many draws.
const TESTED: u32 = 1000;
const DRAWS: u32 = 20;

/// Make everything in results/ again: fetch and verify the images, train, draw, measure.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Train for a short time only; the results go to runs/quick/results/.
    #[arg(long)]
    quick: bool,
    /// Train the built-in model, which takes about a quarter of an hour; the results go to results/best/.
    #[arg(long, conflicts_with = "quick")]
    best: bool,
    /// The images: mnist (built in), hub (MNIST from the Hub), a folder of IDX files or
    /// hf://datasets/OWNER/NAME. Results of other images than MNIST go to runs/.../results/.
    #[arg(long, value_name = "SOURCE", default_value = "mnist", value_parser = Source::parse)]
    source: Source,
    /// Seed of training, sampling and evaluation.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Threads to compute with; all cores by default.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Go on from the last checkpoint of an interrupted run instead of starting anew.
    #[arg(long)]
    resume: bool,
    /// Afterwards make the model the built-in one, in assets/models/mnist/.
    #[arg(long, conflicts_with = "quick")]
    install: bool,
}

/// What measuring writes, and what it is.
const QUALITY: [(&str, &str, &str); 3] = [
    ("quality", "md", "all figures of merit, beside those of real test images"),
    ("quality", "svg", "class accuracy by class, and where images lie among the training images"),
    ("closest-pairs", "png", "the images that are most like a training image, beside it"),
];

/// `metrics.json`.
#[derive(Debug, Serialize)]
struct Metrics<'a> {
    #[serde(flatten)]
    provenance: &'a Provenance,
    data: &'a DataSet,
    training: &'a Training,
    #[serde(flatten)]
    measured: &'a Measured,
    phases: &'a [Phase],
    total_seconds: f64,
    files: &'a [ResultFile],
}

/// What was measured, by way of sampling.
#[derive(Debug, Default, Serialize)]
struct Measured {
    /// Class accuracy alone; empty if the images have no labels.
    evaluation: BTreeMap<Way, Evaluation>,
    /// All figures of merit.
    quality: BTreeMap<Way, Evaluation>,
    /// The variational bound; none without test images.
    likelihood: Option<Likelihood>,
    /// The diffusion classifier; none without labelled test images.
    classifier: Option<Classifier>,
}

/// Builds `ddpm-cli` and reproduces the results with it.
pub(crate) fn run(arguments: &Arguments, workspace: &Workspace) -> Result<()> {
    ensure!(
        !arguments.install || arguments.source.is_mnist(),
        "--install makes the built-in MNIST model; it needs --source mnist or hub, not {}",
        arguments.source.argument()
    );
    let started = Started::with_build(workspace, arguments.seed, arguments.source.features())?;
    process::print(&reproduce(arguments, started)?)?;
    if arguments.install {
        let (model, target) = (model_folder(arguments, workspace), "assets/models/mnist");
        install::install(&model, &workspace.root().join(target), install::LIMIT_BYTES)?;
        process::print(&format!("{target}/ is now this model"))?;
    }
    Ok(())
}

/// All phases after the build; returns a summary for the user.
pub(crate) fn reproduce(arguments: &Arguments, started: Started<'_>) -> Result<String> {
    let Started { workspace, binary, provenance, mut phases } = started;
    let (source, run_folder) = (arguments.source.argument(), run_folder(arguments, workspace));
    let root = workspace.root();
    let ddpm = Ddpm { binary: &binary, root, seed: arguments.seed, threads: arguments.threads };

    let data = phases.run("data", || ddpm.data(source))?;
    let start = if arguments.resume { "--resume" } else { "--overwrite" };
    let choices = ["--dtype", "f16", start].map(String::from);
    let training = phases.run("train", || ddpm.train(source, preset(arguments), &run_folder, &choices))?;

    let model = model_folder(arguments, workspace);
    let name = file_name_part(&data.name);
    let mut staging = Staging::new(run_folder.join("results.partial"))?;
    let labelled = data.classes.is_some_and(|classes| classes > 0);
    let (count, shown) = if labelled {
        (Count::PerClass(SHOWN_PER_CLASS), format!("{SHOWN_PER_CLASS} images of each class"))
    } else {
        (Count::InAll(SHOWN_WITHOUT_LABELS), format!("{SHOWN_WITHOUT_LABELS} images"))
    };
    let pictures = [
        (format!("results-{name}.png"), Way::Default, "sampled with posterior noise and guidance"),
        (format!("results-{name}-no-noise.png"), Way::NoNoise, "sampled with guidance, without added noise"),
        (format!("denoising-{name}.gif"), Way::Default, "from pure noise to the result, step by step"),
    ];
    for (file, way, how) in pictures {
        let out = staging.add(&file, &format!("{shown}, {how}"));
        phases.run(&format!("draw {file}"), || ddpm.sample(&model, count, way, &out))?;
    }
    let out = staging.add(&format!("loss-{name}.svg"), "loss of training and of held-out images over epochs");
    std::fs::copy(run_folder.join("loss.svg"), out)?;
    // That of MNIST is built in.
    let features = (!arguments.source.is_mnist()).then(|| run_folder.join("features"));
    if let Some(features) = &features {
        phases.run("train a feature net", || ddpm.features(source, features))?;
    }
    let subject = Subject { model: Some(&model), source, features: features.as_deref() };
    let mut measured = Measured::default();
    let ways: &[Way] = if labelled { &[Way::Default, Way::Varied] } else { &[Way::Default] };
    for &way in ways {
        let folder = run_folder.join("quality").join(way.name());
        let measure = || ddpm.quality(subject, MEASURED, way, &folder);
        let figures = phases.run(&format!("measure, {}", way.name()), measure)?;
        for (file, ending, what) in QUALITY {
            let name = format!("{file}-{}.{ending}", way.name());
            let to = staging.add(&name, &format!("{what}, sampled with {}", way.arguments().join(" ")));
            std::fs::copy(folder.join(format!("{file}.{ending}")), to)?;
        }
        measured.quality.insert(way, figures);
    }
    let ways: &[Way] = if labelled { &[Way::NoGuidance, Way::NoNoise] } else { &[] };
    for &way in ways {
        let judge = || ddpm.evaluate(subject, JUDGED, "accuracy", way.arguments());
        let judged = phases.run(&format!("evaluate, {}", way.name()), judge)?;
        measured.evaluation.insert(way, judged);
    }

    if data.test.is_some_and(|images| images > 0) {
        let likelihood = phases.run("measure the likelihood", || ddpm.likelihood(subject, TESTED))?;
        measured.likelihood = Some(likelihood);
        if labelled {
            let classifier = phases.run("classify", || ddpm.classifier(subject, TESTED, DRAWS))?;
            measured.classifier = Some(classifier);
        }
    }

    let out = staging.add("metrics.json", "command, machine, times, losses and accuracies");
    let metrics = Metrics {
        provenance: &provenance,
        data: &data,
        training: &training,
        measured: &measured,
        phases: phases.done(),
        total_seconds: phases.total_seconds(),
        files: staging.files(),
    };
    std::fs::write(out, serde_json::to_string_pretty(&metrics)? + "\n")?;
    let results = match (arguments.source.is_mnist(), preset(arguments)) {
        (true, "reproduce") => root.join("results"),
        (true, "best") => root.join("results/best"),
        _ => run_folder.join("results"),
    };
    let files = staging.publish(&results)?;
    let results = results.strip_prefix(root).unwrap_or(&results);
    Ok(summary(results, &files, &phases, &training, &measured))
}

fn preset(arguments: &Arguments) -> &'static str {
    match (arguments.quick, arguments.best) {
        (true, _) => "quick",
        (_, true) => "best",
        _ => "reproduce",
    }
}

fn run_folder(arguments: &Arguments, workspace: &Workspace) -> PathBuf {
    workspace.root().join("runs").join(preset(arguments))
}

fn model_folder(arguments: &Arguments, workspace: &Workspace) -> PathBuf {
    run_folder(arguments, workspace).join("model")
}

fn summary(
    results: &Path,
    files: &[ResultFile],
    phases: &Phases,
    training: &Training,
    measured: &Measured,
) -> String {
    let mut lines = vec![format!(
        "Done in {}, of which training took {} ({:.0} images/s).",
        in_words(phases.total_seconds()),
        in_words(training.seconds),
        training.images_per_second
    )];
    lines.extend(measured.quality.iter().map(|(way, figures)| in_a_line(*way, figures)));
    lines.extend(measured.evaluation.iter().map(|(way, figures)| in_a_line(*way, figures)));
    lines.extend(measured.likelihood.as_ref().map(likelihood_in_a_line));
    lines.extend(measured.classifier.iter().flat_map(classifier_in_lines));
    lines.push(format!("{}/", results.display()));
    let width = files.iter().map(|file| file.file.len()).max().unwrap_or(0);
    lines.extend(files.iter().map(|file| format!("  {:width$}  {}", file.file, file.description)));
    lines.join("\n")
}

fn likelihood_in_a_line(likelihood: &Likelihood) -> String {
    let bits = &likelihood.bound.optimal.total_bits_per_dim;
    format!(
        "Bound of {} test images, bits per dimension: {} ± {} (standard error).",
        likelihood.images,
        cell(bits.mean, 3),
        cell(bits.standard_error, 3)
    )
}

fn classifier_in_lines(classifier: &Classifier) -> impl Iterator<Item = String> {
    let line = |draws: &Classified| {
        let accuracy = percent(draws.accuracy);
        format!("Of {} test images it tells {accuracy} by {} draws.", classifier.images, draws.draws)
    };
    classifier.results.iter().map(line)
}

/// The most telling of the figures that were taken.
fn in_a_line(way: Way, figures: &Evaluation) -> String {
    let mut parts = Vec::new();
    if let Some(frechet) = &figures.frechet {
        let ratio = frechet.ratio.map(|ratio| format!(" ({ratio:.2} times that of real test images)"));
        parts.push(format!("Fréchet distance {}{}", cell(frechet.distance, 2), ratio.unwrap_or_default()));
    }
    if let Some(manifold) = &figures.manifold {
        let (precision, recall) = (cell(manifold.precision.mean, 3), cell(manifold.recall.mean, 3));
        parts.push(format!("precision {precision}, recall {recall}"));
    }
    if figures.class_accuracy.is_some() {
        let real = figures.real_accuracy.map(|real| format!(" (real test images: {})", percent(Some(real))));
        parts.push(format!("class accuracy {}{}", percent(figures.class_accuracy), real.unwrap_or_default()));
    }
    format!(
        "{} images with {}, by {}: {}.",
        figures.samples,
        way.arguments().join(" "),
        figures.feature_net,
        parts.join(", ")
    )
}
