//! `ddpm-cli eval`.

use anyhow::{Result, ensure};
use ddpm_data::HubConfig;
use ddpm_eval::{ClassAccuracy, nearest_classes};
use serde_json::json;

use super::{job::Job, likelihood};
use crate::{
    args::{Common, Eval},
    model, output,
};

/// Real test images, at most, by which the ruler itself is measured.
const REAL: usize = 1000;
const RULER: &str = "the class of the nearest training image";

pub(crate) fn run(options: &Eval, common: &Common) -> Result<()> {
    if options.likelihood {
        return likelihood::run(options, common);
    }
    let device = common.device.open()?;
    let denoiser = model::load(&options.sampling.model, &device)?;
    let corpus = options.data.load(&HubConfig::from_env())?;
    let (config, data) = (denoiser.config(), corpus.train());
    ensure!(config.num_classes > 0, "the model has no classes, so there is no class accuracy to measure");
    model::ensure_fits(&denoiser, data, corpus.name())?;
    let sampling = options.sampling.config(common.seed, &denoiser)?;
    let job = Job::per_class(sampling, &denoiser, &options.sampling.classes(&denoiser)?, options.per_class)?;
    let expected: Vec<u8> = job.byte_labels()?.collect();
    let pixels = job.pixels(&denoiser, &job.bar(common)?)?;
    let accuracy =
        ClassAccuracy::new(&expected, &nearest_classes(data, &pixels, &device)?, config.num_classes)?;
    let real = match corpus.test().and_then(|test| Some((test, test.labels()?))) {
        Some((test, labels)) => {
            // Evenly over the set, whose parts may differ: the first half of MNIST is the harder one.
            let stride = labels.len().div_ceil(REAL).max(1);
            let images = test.images().chunks(test.image_size()).step_by(stride).collect::<Vec<_>>().concat();
            let labels: Vec<u8> = labels.iter().copied().step_by(stride).collect();
            let found = nearest_classes(data, &images, &device)?;
            Some(ClassAccuracy::new(&labels, &found, config.num_classes)?.overall)
        }
        None => None,
    };
    let json = json!({
        "model": options.sampling.model,
        "seed": common.seed,
        "guidance": job.config.guidance.scale(),
        "samples": job.len(),
        "class_accuracy": accuracy.overall,
        "class_accuracy_by_class": accuracy.by_class,
        "real_accuracy": real,
        "ruler": RULER,
    });
    let mut text = format!("class accuracy {:.3} of {} images", accuracy.overall, job.len());
    if let Some(real) = real {
        text += &format!(" (real test images: {real:.3})");
    }
    for (class, accuracy) in accuracy.by_class.iter().enumerate() {
        if let Some(accuracy) = accuracy {
            text += &format!("\n  class {class}: {accuracy:.3}");
        }
    }
    output::result(common, &json, &text)
}
