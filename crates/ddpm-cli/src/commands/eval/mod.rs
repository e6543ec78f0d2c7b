//! `ddpm-cli eval`: metrics of generated images.

mod pairs;
mod plot;
mod table;

use std::{path::PathBuf, time::Instant};

use anyhow::{Result, bail, ensure};
use candle_core::Device;
use ddpm_core::ReverseVariance;
use ddpm_data::{Dataset, Source, Splits};
use ddpm_eval::{Evaluation, FeatureNet, GeneratedImages, Metric, Report, ensure_fits};
use ddpm_files::AtomicFile;
use ddpm_model::{Denoiser, SampleConfig};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::job::Job;
use crate::{
    args::{Common, Eval, Interval},
    data, interrupt, output,
    progress::Progress,
};

/// The results of an evaluation, with everything that determined them.
struct Evaluated<'a> {
    options: &'a Eval,
    common: &'a Common,
    config: &'a SampleConfig,
    net: &'a FeatureNet,
    report: &'a Report,
}

/// The sampling options: name, value in JSON, and value on the command line, which is `None` if the command does not
/// need the option.
type SamplingOptions = [(&'static str, Value, Option<String>); 12];

pub(crate) fn run(options: &Eval, common: &Common) -> Result<()> {
    let device = common.device.open()?;
    let denoiser = options.sampling.load(&device)?;
    let splits = data::load_for(&options.data, &denoiser)?;
    let train = splits.train();
    ensure_fits(&denoiser, train)?;
    let sampling = options.sampling.config(common.seed, &denoiser)?;
    let classes = options.sampling.classes(&denoiser)?;
    let net = net(options, &splits, &device)?;
    let metrics = metrics(options, &denoiser, &net)?;
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

    let job = Job::in_turn(sampling, &classes, options.num_images)?;
    let labels: Option<Vec<u8>> = if classes.is_empty() { None } else { Some(job.byte_labels()?.collect()) };
    let evaluation = Evaluation {
        net: &net,
        train,
        test: splits.test(),
        // Restricts the real images only if --classes restricts the generated ones.
        classes: labels.as_deref().filter(|_| options.sampling.classes.is_some()),
        metrics: &metrics,
        seed: common.seed,
        device: &device,
    };
    evaluation.ensure_measurable()?;
    let mut clock = Clock { common, bar: spinner(common)?, part: None };
    clock.next(Some("sampling"));
    let pixels = job.pixels(&denoiser, &Progress::new(common, "images")?)?;
    let generated = GeneratedImages { pixels: &pixels, labels: labels.as_deref() };
    let report = evaluation.measure(&generated, |part| clock.next(Some(part)))?;
    clock.next(None);
    interrupt::check()?;

    let evaluated = Evaluated { options, common, config: &job.config, net: &net, report: &report };
    let sampling = evaluated.sampling_options();
    let table = table::markdown(&evaluated, &sampling)?;
    if let Some(files) = files {
        let pairs = report.memorisation.as_ref().map(|found| &found.generated.closest);
        let pairs = pairs.map(|closest| pairs::png(closest, &pixels, train)).transpose()?;
        let plot = plot::svg(&report, labels.as_deref())?.map(String::into_bytes);
        let mut written = Vec::new();
        for (mut file, content) in std::iter::zip(files, [Some(table.clone().into_bytes()), pairs, plot]) {
            if let Some(content) = content {
                file.append(&content)?;
                written.push(file);
            }
        }
        AtomicFile::commit_all(written)?;
    }
    output::result(common, &evaluated.json(&sampling)?, &table)
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
fn metrics(options: &Eval, denoiser: &Denoiser, net: &FeatureNet) -> Result<Vec<Metric>> {
    let Some(names) = &options.metrics else { return Ok(Metric::ALL.to_vec()) };
    if names.contains(&Metric::Accuracy) {
        ensure!(
            denoiser.config().num_classes > 0,
            "the model has no classes, so class accuracy cannot be measured"
        );
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
    fn sampling_options(&self) -> SamplingOptions {
        let sampling = &self.options.sampling;
        let classes = sampling.classes.as_ref().map(|list| &list.0);
        let plan = sampling.plan.as_ref().map(|path| path.display().to_string());
        // A plan has its own steps and guidance.
        let own = plan.is_none();
        let sampler = own.then(|| output::name(&sampling.sampler));
        let variance = sampling.variance();
        let step_count = self.config.plan.steps();
        let timesteps = &sampling.timesteps;
        let scale = self.config.guidance.scale();
        let interval = |interval: Option<Interval>| {
            let ends = interval.map(|Interval(first, last)| [first, last]);
            (json!(ends), ends.map(|[first, last]| format!("{first}-{last}")))
        };
        let (guided, guided_text) = interval(sampling.guiding.guidance_interval);
        let (annealed, annealed_text) = interval(sampling.guiding.class_annealing);
        let (guide, epsilon_scale) = (&sampling.guiding.guide, sampling.epsilon_scale);
        [
            ("classes", json!(classes), classes.map(output::list)),
            ("plan", json!(plan), plan),
            ("sampler", json!(sampler), sampler),
            ("variance", json!(variance), variance.as_ref().map(variance_name)),
            ("eta", json!(sampling.eta), sampling.eta.map(|eta| eta.to_string())),
            ("steps", json!(step_count), sampling.steps.map(|steps| steps.to_string())),
            ("timesteps", json!(timesteps), timesteps.as_ref().map(output::list)),
            ("epsilon-scale", json!(epsilon_scale), epsilon_scale.map(|scale| scale.to_string())),
            ("guidance-scale", json!(scale), own.then(|| scale.to_string())),
            ("guidance-interval", guided, guided_text),
            ("guide", json!(guide), guide.clone()),
            ("class-annealing", annealed, annealed_text),
        ]
    }

    fn json(&self, sampling: &SamplingOptions) -> Result<Value> {
        let Self { options, report, .. } = self;
        let accuracy = report.accuracy.as_ref();
        let mut json = serde_json::to_value(report)?;
        json["model"] = options.sampling.model.as_str().into();
        json["data"] = options.data.to_string().into();
        json["seed"] = self.common.seed.into();
        // The first 12 digits of the digest.
        json["feature_net"] = format!("the feature net {}", &self.net.digest()[..12]).into();
        json["features_sha256"] = self.net.digest().into();
        json["class_accuracy"] = accuracy.map(|found| found.generated.overall).into();
        json["class_accuracy_by_class"] = accuracy.map(|found| found.generated.by_class.clone()).into();
        json["real_accuracy"] = accuracy.and_then(|found| Some(found.floor.as_ref()?.overall)).into();
        json["missing"] = table::missing(self).into();
        for (name, value, _) in sampling {
            json[name.replace('-', "_")] = value.clone();
        }
        Ok(json)
    }
}

/// A variance as the value of --variance.
fn variance_name(variance: &ReverseVariance) -> String {
    match variance {
        ReverseVariance::FixedSmall => "fixed_small".to_owned(),
        ReverseVariance::FixedLarge => "fixed_large".to_owned(),
        ReverseVariance::PerStep(list) => output::list(list),
        _ => "zero".to_owned(),
    }
}
