//! `ddpm-cli eval`.

mod pairs;
mod plot;
mod table;

use std::time::Instant;

use anyhow::{Result, bail, ensure};
use candle_core::Device;
use clap::ValueEnum;
use ddpm_data::{Dataset, HubConfig, Source, Splits};
use ddpm_eval::{Evaluation, FeatureNet, GeneratedImages, Metric, Report, ensure_fits};
use ddpm_files::{create_dir_all, write_atomic};
use ddpm_model::{Denoiser, SampleConfig, TimestepSelection};
use serde_json::{Value, json};

use super::job::Job;
use crate::{
    args::{Common, Eval},
    model, output,
};

/// What was measured and how.
struct Evaluated<'a> {
    options: &'a Eval,
    common: &'a Common,
    config: &'a SampleConfig,
    net: &'a FeatureNet,
    report: &'a Report,
}

pub(crate) fn run(options: &Eval, common: &Common) -> Result<()> {
    let device = common.device.open()?;
    let denoiser = model::load(&options.sampling.model, &device)?;
    let splits = options.data.load(&HubConfig::from_env())?;
    let train = splits.train();
    ensure_fits(&denoiser, train)?;
    let sampling = options.sampling.config(common.seed, &denoiser)?;
    let classes = options.sampling.classes(&denoiser)?;
    let net = net(options, &splits, &device)?;
    for data in [train].into_iter().chain(splits.test()) {
        net.ensure_fits(data)?;
    }
    let metrics = metrics(options, &denoiser, &net)?;
    if let Some(folder) = &options.out_dir {
        // Rather now than after sampling.
        create_dir_all(folder)?;
    }

    let job = Job::in_turn(sampling, &denoiser, &classes, options.num_images)?;
    let labels: Option<Vec<u8>> = if classes.is_empty() { None } else { Some(job.byte_labels()?.collect()) };
    let mut clock = Clock { common, bar: output::spinner(common)?, part: None };
    clock.next(Some("sampling"));
    let pixels = job.pixels(&denoiser, &job.bar(common)?)?;
    let evaluation = Evaluation {
        net: &net,
        train,
        test: splits.test(),
        // Only where classes were left out is there anything to leave out.
        classes: labels.as_deref().filter(|_| options.sampling.classes.is_some()),
        metrics: &metrics,
        seed: common.seed,
        device: &device,
    };
    let generated = GeneratedImages { pixels: &pixels, labels: labels.as_deref() };
    let report = evaluation.measure(&generated, |part| clock.next(Some(part)))?;
    clock.next(None);

    if let Some(folder) = &options.out_dir {
        if let Some(memorisation) = &report.memorisation {
            let picture = pairs::png(&memorisation.generated.closest, &pixels, train)?;
            write_atomic(&folder.join("closest-pairs.png"), &picture)?;
        }
        if let Some(plot) = plot::svg(&report, labels.as_deref())? {
            write_atomic(&folder.join("quality.svg"), plot.as_bytes())?;
        }
    }
    let evaluated = Evaluated { options, common, config: &job.config, net: &net, report: &report };
    let table = table::markdown(&evaluated)?;
    if let Some(folder) = &options.out_dir {
        write_atomic(&folder.join("quality.md"), table.as_bytes())?;
    }
    output::result(common, &evaluated.json(&denoiser)?, &table)
}

/// The feature net asked for, or that of MNIST if the data is MNIST.
fn net(options: &Eval, splits: &Splits, device: &Device) -> Result<FeatureNet> {
    match &options.features {
        Some(folder) => Ok(FeatureNet::load(folder, device)?),
        None if is_mnist(&options.data, splits.train())? => Ok(FeatureNet::builtin(device)?),
        None => bail!(
            "{} is not MNIST, for which a feature net is built in; train one by `ddpm-cli features --data {} -o \
             features` and pass --features features",
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

/// What to measure: what was asked for, or all.
fn metrics(options: &Eval, denoiser: &Denoiser, net: &FeatureNet) -> Result<Vec<Metric>> {
    let Some(names) = &options.metrics else { return Ok(Metric::ALL.to_vec()) };
    if names.contains(&Metric::Accuracy) {
        ensure!(
            denoiser.config().num_classes > 0,
            "the model has no classes, so there is no class accuracy to measure"
        );
        ensure!(
            net.num_classes().is_some(),
            "the feature net was trained without labels, so it cannot measure class accuracy"
        );
    }
    Ok(names.clone())
}

/// Says what is being done, and afterwards how long it took to those who asked for more.
struct Clock<'a> {
    common: &'a Common,
    bar: indicatif::ProgressBar,
    part: Option<(&'static str, Instant)>,
}

impl Clock<'_> {
    fn next(&mut self, name: Option<&'static str>) {
        if let Some((name, started)) = self.part.take() {
            output::verbose(self.common, &format!("{name}: {:.1} s", started.elapsed().as_secs_f64()));
        }
        match name {
            // Sampling has a bar of its own.
            Some("sampling") => {}
            Some(name) => self.bar.set_message(name),
            None => self.bar.finish_and_clear(),
        }
        self.part = name.map(|name| (name, Instant::now()));
    }
}

impl Evaluated<'_> {
    /// The name of the feature net, with the start of its digest.
    fn net_name(&self) -> String {
        format!("the feature net {}", &self.net.digest()[..12])
    }

    fn json(&self, denoiser: &Denoiser) -> Result<Value> {
        let Self { options, report, .. } = self;
        let sampling = &options.sampling;
        let name = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
            value().map(|value| value.get_name().to_owned())
        };
        let timesteps = match &self.config.steps {
            TimestepSelection::All => denoiser.schedule().num_train_timesteps(),
            TimestepSelection::Spaced(steps) => *steps,
            TimestepSelection::List(list) => list.len(),
        };
        let accuracy = report.accuracy.as_ref();
        let settings = json!({
            "model": sampling.model,
            "data": options.data.to_string(),
            "seed": self.common.seed,
            "sampler": name(&|| sampling.sampler.to_possible_value()),
            "variance": sampling.variance(),
            "eta": sampling.eta,
            "steps": timesteps,
            "timesteps": sampling.timesteps,
            "guidance_scale": self.config.guidance.scale(),
            "guidance_interval": sampling.guidance_interval.map(|interval| [interval.0, interval.1]),
            "classes": sampling.classes.as_ref().map(|list| &list.0),
            "feature_net": self.net_name(),
            "features_sha256": self.net.digest(),
            "class_accuracy": accuracy.map(|found| found.generated.overall),
            "class_accuracy_by_class": accuracy.map(|found| &found.generated.by_class),
            "real_accuracy": accuracy.and_then(|found| Some(found.floor.as_ref()?.overall)),
        });
        let (Value::Object(mut all), Value::Object(metrics)) = (settings, serde_json::to_value(report)?)
        else {
            bail!("a report is an object");
        };
        all.extend(metrics);
        Ok(Value::Object(all))
    }
}
