//! `cargo xtask reproduce`: trains and measures a model and writes everything in `results/`.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::ddpm::Ddpm;
use crate::install;
use crate::phases::{Phase, in_words};
use crate::printed::{Printed, cell, percent};
use crate::process;
use crate::provenance::Provenance;
use crate::source::Source;
use crate::staging::{ResultFile, Staging, file_name_part};
use crate::start::Started;
use crate::workspace::Workspace;

/// Reproduce everything in results/: load and check the images, train, sample, evaluate.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Train for a short time only (preset quick); the results go to runs/quick/results/.
    #[arg(long)]
    quick: bool,
    /// Train the built-in model (preset best), which takes about half an hour; the results go to results/best/.
    #[arg(long, conflicts_with = "quick")]
    best: bool,
    /// The data set: mnist (built in), hub (MNIST from the Hub), a folder of IDX files or
    /// hf://datasets/OWNER/NAME. Results of other data sets than MNIST go to runs/.../results/.
    #[arg(long, value_name = "SOURCE", default_value = "mnist", value_parser = Source::parse)]
    source: Source,
    /// The seed of training, sampling and evaluation.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// The number of threads [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Continue from the newest checkpoint of an interrupted run instead of starting again.
    #[arg(long)]
    resume: bool,
    /// Finally replace the built-in model, in crates/ddpm-cli/assets/, by the trained one.
    #[arg(long, conflicts_with = "quick")]
    install: bool,
}

/// The numbers of images and of noise samples.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    /// Generated images for all metrics. Results are comparable only between equal numbers.
    pub(crate) generated: u32,
    /// Generated images for class accuracy alone.
    pub(crate) accuracy: u32,
    /// Test images for the likelihood and the classifier.
    pub(crate) test: u32,
    /// Noise samples for each image in the classifier.
    pub(crate) noise: u32,
}

const COUNTS: Counts = Counts { generated: 10_000, accuracy: 1000, test: 1000, noise: 20 };

/// Sampling options with a name.
#[derive(Debug, Clone, Copy)]
struct Sampling {
    /// Part of file names, and a key of `metrics.json`.
    name: &'static str,
    /// Arguments of `ddpm-cli`; empty for its defaults.
    arguments: &'static str,
}

const DEFAULT: Sampling = Sampling { name: "default", arguments: "" };
/// Algorithm 2 of Ho et al. 2020, with guidance.
const DDPM: Sampling = Sampling { name: "ddpm", arguments: "--sampler ddpm --variance fixed_small" };
/// Without guidance, which would hide how well the model has learned the classes.
const NO_GUIDANCE: Sampling = Sampling { name: "no_guidance", arguments: "--guidance-scale 1" };
const NO_NOISE: Sampling = Sampling { name: "no_noise", arguments: "--noise none" };

/// The files that `eval -o` writes: name, extension and description.
const QUALITY: [(&str, &str, &str); 3] = [
    ("quality", "md", "all metrics of generated images and of real test images"),
    ("quality", "svg", "accuracy by class, and features of generated and of training images"),
    ("closest-pairs", "png", "the generated images nearest to a training image, each above that image"),
];

/// The content of `metrics.json`.
#[derive(Debug, Serialize)]
struct Metrics<'a> {
    #[serde(flatten)]
    provenance: &'a Provenance,
    data: &'a Value,
    training: &'a Value,
    /// Class accuracy alone, by the name of the sampling options; empty if the images have no labels.
    evaluation: BTreeMap<&'a str, &'a Value>,
    /// All metrics, by the name of the sampling options.
    quality: BTreeMap<&'a str, &'a Value>,
    /// The variational bound; `None` without test images.
    likelihood: Option<&'a Value>,
    /// The diffusion classifier; `None` without labelled test images.
    classifier: Option<&'a Value>,
    phases: &'a [Phase],
    total_seconds: f64,
    files: &'a [ResultFile],
}

/// Builds `ddpm-cli` and reproduces the results with it.
pub(crate) fn run(arguments: &Arguments, workspace: &Workspace) -> Result<()> {
    ensure!(
        !arguments.install || arguments.source.is_mnist(),
        "--install replaces the built-in MNIST model; it needs --source mnist or hub, not {}",
        arguments.source.argument()
    );
    let started = Started::with_build(workspace, arguments.seed, arguments.source.features())?;
    process::print(&reproduce(arguments, started, COUNTS)?)?;
    if arguments.install {
        let (model, target) =
            (arguments.run_folder(workspace).join("model"), "crates/ddpm-cli/assets/models/mnist");
        install::install(&model, &workspace.root().join(target), install::LIMIT_BYTES)?;
        process::print(&format!("{target}/ now holds this model"))?;
    }
    Ok(())
}

/// Runs all phases after the build and returns a summary for the user.
pub(crate) fn reproduce(arguments: &Arguments, started: Started<'_>, counts: Counts) -> Result<String> {
    let Started { workspace, binary, provenance, mut phases } = started;
    let (root, folder) = (workspace.root(), arguments.run_folder(workspace));
    let ddpm = Ddpm { binary: &binary, root, seed: arguments.seed, threads: arguments.threads };
    let source = ddpm.path(Path::new(arguments.source.argument()));
    let from_source = ["--data", &source];
    let mut call = |phase: &str, line: &str, more: &[&str]| phases.run(phase, || ddpm.call(line, more));

    let data = call("data", "data", &from_source)?;
    let (preset, run) = (arguments.preset(), ddpm.path(&folder));
    let line = format!("train --preset guide --overwrite -o {run}/guide");
    call("train the guide", &line, &from_source)?;
    let start = if arguments.resume { "--resume" } else { "--overwrite" };
    let line = format!("train --preset {preset} --guide {run}/guide/model --dtype f16 {start} -o {run}");
    let training = call("train", &line, &from_source)?;

    let is_labelled = data.number("/classes")?.is_some_and(|classes| classes > 0.0);
    let has_test_images = data.number("/test")?.is_some_and(|images| images > 0.0);
    let name = file_name_part(&data.argument("/name")?);
    let mut staging = Staging::new(folder.join("results.partial"))?;
    let (count, shown) =
        if is_labelled { ("--per-class 5", "5 images of each class") } else { ("-n 50", "50 images") };
    let pictures = [
        (format!("results-{name}.png"), DDPM, "sampled with posterior noise and guidance"),
        (format!("results-{name}-no-noise.png"), NO_NOISE, "sampled with guidance, without added noise"),
        (format!("denoising-{name}.gif"), DDPM, "from pure noise to the images, step by step"),
        (format!("samples-{name}.png"), DEFAULT, "sampled with the options of `ddpm-cli sample`"),
    ];
    for (file, Sampling { arguments, .. }, how) in pictures {
        let out = ddpm.path(&staging.add(&file, &format!("{shown}, {how}")));
        let format = if file.ends_with(".gif") { "gif" } else { "png" };
        let line = format!("sample --model {run}/model {count} {arguments} --format {format} -o {out}");
        call(&format!("sample {file}"), &line, &[])?;
    }
    let out = staging.add(&format!("loss-{name}.svg"), "loss on training and test images over epochs");
    std::fs::copy(folder.join("loss.svg"), out)?;

    // Only MNIST has a built-in feature net.
    let mut features = String::new();
    if !arguments.source.is_mnist() {
        call("train a feature net", &format!("train-features -o {run}/features"), &from_source)?;
        features = format!(" --features {run}/features");
    }
    let eval = format!("eval --model {run}/model{features}");
    let mut quality = Vec::new();
    for sampling in [DEFAULT, DDPM] {
        let Sampling { name, arguments } = &sampling;
        let out = folder.join("quality").join(name);
        let to = ddpm.path(&out);
        let line = format!("{eval} --num-images {} {arguments} -o {to}", counts.generated);
        quality.push((sampling, call(&format!("measure, {name}"), &line, &from_source)?));
        for (file, extension, what) in QUALITY {
            let description = format!("{what}, sampled with {}", sampling.in_words());
            let to = staging.add(&format!("{file}-{name}.{extension}"), &description);
            std::fs::copy(out.join(format!("{file}.{extension}")), to)?;
        }
    }
    let mut evaluation = Vec::new();
    for sampling in if is_labelled { &[NO_GUIDANCE, NO_NOISE][..] } else { &[] } {
        let Sampling { name, arguments } = sampling;
        let line = format!("{eval} --num-images {} --metrics accuracy {arguments}", counts.accuracy);
        evaluation.push((*sampling, call(&format!("evaluate, {name}"), &line, &from_source)?));
    }
    let of_test = format!("--model {run}/model --num-images {}", counts.test);
    let line = format!("likelihood {of_test}");
    let likelihood = has_test_images.then(|| call("measure the likelihood", &line, &from_source));
    let likelihood = likelihood.transpose()?;
    let line = format!("classify {of_test} --num-noise {}", counts.noise);
    let classifier = (has_test_images && is_labelled).then(|| call("classify", &line, &from_source));
    let classifier = classifier.transpose()?;

    let (total, seconds) = (in_words(phases.total_seconds()), training.number("/seconds")?);
    let (train, speed) = (in_words(seconds.unwrap_or(f64::NAN)), training.number("/images_per_second")?);
    let mut summary =
        vec![format!("Done in {total}, of which training took {train} ({} images/s).", cell(speed, 0))];
    for (sampling, printed) in quality.iter().chain(&evaluation) {
        summary.push(metrics_in_a_line(sampling, printed)?);
    }
    summary.extend(likelihood.as_ref().map(likelihood_in_a_line).transpose()?);
    summary.extend(classifier.as_ref().map(classifier_in_a_line).transpose()?);

    let out = staging.add("metrics.json", "command, machine, times, losses and metrics as JSON");
    let metrics = Metrics {
        provenance: &provenance,
        data: &data.output,
        training: &training.output,
        evaluation: by_name(&evaluation),
        quality: by_name(&quality),
        likelihood: likelihood.as_ref().map(|printed| &printed.output),
        classifier: classifier.as_ref().map(|printed| &printed.output),
        phases: phases.done(),
        total_seconds: phases.total_seconds(),
        files: staging.files(),
    };
    std::fs::write(out, serde_json::to_string_pretty(&metrics)? + "\n")?;
    let results = arguments.results_folder(workspace);
    let files = staging.publish(&results)?;
    summary.push(format!("{}/", ddpm.path(&results)));
    let width = files.iter().map(|file| file.file.len()).max().unwrap_or(0);
    summary.extend(files.iter().map(|file| format!("  {:width$}  {}", file.file, file.description)));
    Ok(summary.join("\n"))
}

impl Arguments {
    fn preset(&self) -> &'static str {
        match (self.quick, self.best) {
            (true, _) => "quick",
            (_, true) => "best",
            _ => "standard",
        }
    }

    fn run_folder(&self, workspace: &Workspace) -> PathBuf {
        let name = if self.preset() == "standard" { "reproduce" } else { self.preset() };
        workspace.root().join("runs").join(name)
    }

    /// The folder of the results. Only full runs on MNIST replace files of the checkout.
    fn results_folder(&self, workspace: &Workspace) -> PathBuf {
        match (self.source.is_mnist(), self.preset()) {
            (true, "standard") => workspace.root().join("results"),
            (true, "best") => workspace.root().join("results/best"),
            _ => self.run_folder(workspace).join("results"),
        }
    }
}

impl Sampling {
    fn in_words(&self) -> &'static str {
        if self.arguments.is_empty() { "the default options" } else { self.arguments }
    }
}

fn by_name(measured: &[(Sampling, Printed)]) -> BTreeMap<&str, &Value> {
    measured.iter().map(|(sampling, printed)| (sampling.name, &printed.output)).collect()
}

/// The main metrics, of those that were measured.
fn metrics_in_a_line(sampling: &Sampling, eval: &Printed) -> Result<String> {
    let mut parts = Vec::new();
    if !eval.at("/frechet")?.is_null() {
        let ratio = eval.number("/frechet/ratio")?;
        let ratio = ratio.map(|ratio| format!(" ({ratio:.2} times the distance of real test images)"));
        let distance = cell(eval.number("/frechet/distance")?, 2);
        parts.push(format!("Fréchet distance {distance}{}", ratio.unwrap_or_default()));
    }
    if !eval.at("/manifold")?.is_null() {
        let mean = |name| eval.number(&format!("/manifold/{name}/mean"));
        parts.push(format!("precision {}, recall {}", cell(mean("precision")?, 3), cell(mean("recall")?, 3)));
    }
    if let accuracy @ Some(_) = eval.number("/class_accuracy")? {
        let real = eval.number("/real_accuracy")?;
        let real = real.map(|real| format!(" (real test images: {})", percent(Some(real), 1)));
        parts.push(format!("class accuracy {}{}", percent(accuracy, 1), real.unwrap_or_default()));
    }
    Ok(format!(
        "{} images with {}, measured with {}: {}.",
        eval.argument("/samples")?,
        sampling.in_words(),
        eval.argument("/feature_net")?,
        parts.join(", ")
    ))
}

fn likelihood_in_a_line(likelihood: &Printed) -> Result<String> {
    let bits = |part| likelihood.number(&format!("/bound/optimal/total_bits_per_dim/{part}"));
    Ok(format!(
        "Variational bound of {} test images with optimal variances: {} ± {} bits per dimension.",
        likelihood.argument("/images")?,
        cell(bits("mean")?, 3),
        cell(bits("standard_error")?, 3)
    ))
}

fn classifier_in_a_line(classifier: &Printed) -> Result<String> {
    Ok(format!(
        "The diffusion classifier recognises {} of {} test images, with {} noise samples for each image.",
        percent(classifier.number("/results/0/overall")?, 1),
        classifier.argument("/images")?,
        classifier.argument("/results/0/num_noise")?
    ))
}
