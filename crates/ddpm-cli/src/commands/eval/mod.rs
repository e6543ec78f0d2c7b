//! `ddpm-cli eval`: metrics of generated images.

mod pairs;
mod plot;
mod subject;
mod table;

use std::{path::PathBuf, time::Instant};

use anyhow::{Result, bail, ensure};
use candle_core::Device;
use ddpm_data::{Dataset, Source, Splits};
use ddpm_eval::{Evaluation, FeatureNet, GeneratedImages, Metric, Report};
use ddpm_files::AtomicFile;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use self::subject::Subject;
use super::sampling::SamplingOption;
use crate::{
    args::{Common, Eval},
    interrupt, output,
};

/// The results of an evaluation, with everything that determined them.
struct Evaluated<'a> {
    options: &'a Eval,
    common: &'a Common,
    subject: &'a Subject,
    net: &'a FeatureNet,
    report: &'a Report,
}

/// An evaluation that is ready to start: everything is loaded and checked.
pub(crate) struct Prepared<'a> {
    options: &'a Eval,
    common: &'a Common,
    subject: Subject,
    splits: Splits,
    net: FeatureNet,
    metrics: Vec<Metric>,
    device: Device,
}

/// What came of an evaluation.
pub(crate) struct Results {
    json: Value,
    /// quality.md.
    table: String,
    /// The command that gives the same results.
    pub(crate) command: String,
    /// The cells of each metric: its name, the value of generated images, the value of test images, and their ratio.
    pub(crate) rows: Vec<[String; 4]>,
    /// Sentences on metrics that are missing, and on images that occur more than once.
    pub(crate) sentences: Vec<String>,
    /// closest-pairs.png.
    pub(crate) pairs: Option<Vec<u8>>,
    /// quality.svg.
    pub(crate) plot: Option<String>,
}

pub(crate) fn run(options: &Eval, common: &Common) -> Result<()> {
    let prepared = Prepared::new(options, common)?;
    // Until here, while data may be downloaded, a signal ends the program at once. From here on it removes these files.
    interrupt::listen()?;
    // Opens the files before sampling, so that a folder that cannot be written is found now. Without the first, the
    // others mean nothing.
    let names = ["quality.md", "closest-pairs.png", "quality.svg"];
    let open = |folder: &PathBuf| -> Result<Vec<AtomicFile>, ddpm_files::Error> {
        let files = names.iter().rev().map(|name| AtomicFile::create(folder.join(name)));
        let mut files = files.collect::<Result<Vec<_>, _>>()?;
        // The file that was opened first may have created the folder. As the last one to be dropped it removes it.
        files.reverse();
        Ok(files)
    };
    let files = options.out_dir.as_ref().map(open).transpose()?;
    let results = prepared.measure()?;
    if let Some(files) = files {
        let mut written = Vec::new();
        let contents = [
            Some(results.table.as_bytes()),
            results.pairs.as_deref(),
            results.plot.as_deref().map(str::as_bytes),
        ];
        for (mut file, content) in std::iter::zip(files, contents) {
            if let Some(content) = content {
                file.append(content)?;
                written.push(file);
            }
        }
        AtomicFile::commit_all(written)?;
    }
    output::result(common, &results.json, &results.table)
}

impl<'a> Prepared<'a> {
    /// Loads the model, the data and the feature net.
    ///
    /// # Errors
    /// One of them cannot be loaded, they do not fit each other, or a requested metric cannot be had.
    pub(crate) fn new(options: &'a Eval, common: &'a Common) -> Result<Self> {
        let device = common.device.open()?;
        let (subject, splits) = Subject::open(options, common, &device)?;
        let net = net(options, &splits, &device)?;
        let metrics = metrics(options, &subject, &net)?;
        let prepared = Self { options, common, subject, splits, net, metrics, device };
        prepared.evaluation().ensure_measurable()?;
        Ok(prepared)
    }

    fn evaluation(&self) -> Evaluation<'_> {
        Evaluation {
            net: &self.net,
            train: self.splits.train(),
            test: self.splits.test(),
            // Restricts the real images only if --classes restricts the generated ones.
            classes: self.subject.labels().filter(|_| self.options.sampling.classes.is_some()),
            metrics: &self.metrics,
            seed: self.common.seed,
            device: &self.device,
        }
    }

    /// Samples and measures.
    ///
    /// # Errors
    /// Sampling or a metric fails, or the program is interrupted.
    pub(crate) fn measure(&self) -> Result<Results> {
        let Self { options, common, subject, net, .. } = self;
        let mut clock = Clock { common, bar: spinner(common)?, part: None };
        if matches!(subject, Subject::Model { .. }) {
            clock.next(Some("sampling"));
        }
        let (pixels, labels) = (subject.pixels(common)?, subject.labels());
        let generated = GeneratedImages { pixels: &pixels, labels };
        let report = self.evaluation().measure(&generated, |part| clock.next(Some(part)))?;
        clock.next(None);
        interrupt::check()?;

        let evaluated = Evaluated { options, common, subject, net, report: &report };
        let sampling = subject.sampling(options);
        let pairs = report.memorisation.as_ref().map(|found| &found.generated.closest);
        Ok(Results {
            json: evaluated.json(&sampling)?,
            table: table::markdown(&evaluated, &sampling)?,
            command: table::command(&evaluated, &sampling),
            rows: table::rows(&report),
            sentences: table::sentences(&report),
            pairs: pairs.map(|closest| pairs::png(closest, &pixels, self.splits.train())).transpose()?,
            plot: plot::svg(&report, labels)?,
        })
    }
}

/// The feature net of --features, or the built-in one if the data is MNIST.
fn net(options: &Eval, splits: &Splits, device: &Device) -> Result<FeatureNet> {
    match &options.features {
        Some(folder) => Ok(FeatureNet::load(folder, device)?),
        None if is_mnist(&options.data, splits.train())? => Ok(FeatureNet::builtin(device)?),
        None => bail!(
            "{} is not MNIST, and the built-in feature net is for MNIST only; train one with `ddpm-cli train-features \
             --data {} -o features` and pass --features features",
            splits.name(),
            options.data
        ),
    }
}

fn is_mnist(source: &Source, train: &Dataset) -> Result<bool> {
    let is_like = *source == Source::Mnist || (train.len(), train.rows(), train.cols()) == (60_000, 28, 28);
    if !is_like {
        return Ok(false);
    }
    let mnist = Dataset::mnist_train()?;
    Ok((train.images_sha256(), train.labels_sha256()) == (mnist.images_sha256(), mnist.labels_sha256()))
}

/// The metrics of --metrics, or all metrics.
fn metrics(options: &Eval, subject: &Subject, net: &FeatureNet) -> Result<Vec<Metric>> {
    let Some(names) = &options.metrics else { return Ok(Metric::ALL.to_vec()) };
    if names.contains(&Metric::Accuracy) {
        let without = match subject {
            Subject::Model { .. } => "the model has no classes",
            Subject::Images { .. } => "the images have no labels",
        };
        ensure!(subject.labels().is_some(), "{without}, so class accuracy cannot be measured");
        ensure!(
            net.num_classes().is_some(),
            "the feature net was trained without labels, so it cannot measure class accuracy"
        );
    }
    Ok(names.clone())
}

/// A spinner with a message on standard error; hidden if standard error is not a terminal.
fn spinner(common: &Common) -> Result<ProgressBar> {
    if common.quiet {
        return Ok(ProgressBar::hidden());
    }
    Ok(ProgressBar::new(0).with_style(ProgressStyle::with_template("{spinner} {msg}  {elapsed}")?))
}

/// Shows the current part of the evaluation on the terminal. With `--verbose`, prints the time that each part took.
struct Clock<'a> {
    common: &'a Common,
    bar: ProgressBar,
    part: Option<(&'static str, Instant)>,
}

impl Clock<'_> {
    fn next(&mut self, name: Option<&'static str>) {
        if let Some((name, started)) = self.part.take() {
            output::verbose(self.common, &format!("{name}: {:.1} s", started.elapsed().as_secs_f64()));
        }
        match name {
            // Sampling has its own progress bar.
            Some("sampling") => {}
            Some(name) => self.bar.set_message(name),
            None => self.bar.finish_and_clear(),
        }
        self.part = name.map(|name| (name, Instant::now()));
    }
}

impl Evaluated<'_> {
    fn json(&self, sampling: &[SamplingOption]) -> Result<Value> {
        let Self { options, report, .. } = self;
        let accuracy = report.accuracy.as_ref();
        let mut json = serde_json::to_value(report)?;
        if let (Value::Object(json), Value::Object(subject)) = (&mut json, self.subject.json(options)) {
            json.extend(subject);
        }
        json["data"] = options.data.to_string().into();
        json["seed"] = self.common.seed.into();
        // The first 12 digits of the digest.
        json["feature_net"] = format!("the feature net {}", &self.net.digest()[..12]).into();
        json["features_sha256"] = self.net.digest().into();
        json["class_accuracy"] = accuracy.map(|found| found.generated.overall).into();
        json["class_accuracy_by_class"] = accuracy.map(|found| found.generated.by_class.clone()).into();
        json["real_accuracy"] = accuracy.and_then(|found| Some(found.floor.as_ref()?.overall)).into();
        for (name, value, _) in sampling {
            json[name.replace('-', "_")] = value.clone();
        }
        Ok(json)
    }
}
