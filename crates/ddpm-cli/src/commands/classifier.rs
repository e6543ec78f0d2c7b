//! `ddpm-cli eval --classifier`.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use clap::ValueEnum;
use ddpm_data::HubConfig;
use ddpm_eval::{ClassAccuracy, DiffusionClassifier};
use serde_json::{Value, json};

use crate::{
    args::{Common, Eval},
    model, output,
};

/// Images at a time, each with every class.
const BATCH: usize = 50;

pub(crate) fn run(options: &Eval, common: &Common) -> Result<()> {
    let device = common.device.open()?;
    let denoiser = model::load(&options.sampling.model, &device)?;
    let (config, schedule) = (denoiser.config(), denoiser.schedule());
    ensure!(config.num_classes > 0, "the model has no classes, so it cannot tell images apart by them");
    let most = options.draws.iter().copied().max().unwrap_or_default();
    let classifier = DiffusionClassifier::new(schedule, config.num_classes, most, common.seed)?;
    let weights = options.weight.over_timesteps(schedule)?;

    let corpus = options.data.load(&HubConfig::from_env())?;
    let test = corpus.test().context("the data has no test images, which are to be classified")?;
    model::ensure_fits(&denoiser, test, test.name())?;
    // Evenly over the set, whose parts may differ.
    let (total, count) = (test.len(), options.images.min(test.len()));
    let indices = (0..count).map(|i| u32::try_from((i * total).div_euclid(count)));
    let indices = indices.collect::<Result<Vec<_>, _>>()?;

    let bar = output::progress(common, count as u64, "{wide_bar} {pos}/{len} images  {eta} left")?;
    let (mut images, mut labels, mut truth) = (Vec::new(), Vec::new(), Vec::new());
    let mut found = vec![Vec::with_capacity(count); options.draws.len()];
    for indices in indices.chunks(BATCH) {
        test.gather_images(indices, &mut images)?;
        test.gather_labels(indices, &mut labels)?;
        truth.extend_from_slice(&labels);
        let x_start = Tensor::from_slice(&images, (indices.len(), config.pixels()), &Device::Cpu)?;
        let addresses: Vec<u64> = indices.iter().copied().map(u64::from).collect();
        let errors = classifier.denoiser_errors(&denoiser, &x_start, &addresses)?;
        for (found, &draws) in std::iter::zip(&mut found, &options.draws) {
            found.extend(errors.classes(&weights, draws)?);
        }
        bar.inc(indices.len() as u64);
    }
    bar.finish_and_clear();

    let accuracies = found.iter().map(|found| ClassAccuracy::new(&truth, found, config.num_classes));
    let accuracies = accuracies.collect::<Result<Vec<_>, _>>()?;
    let results: Vec<_> = std::iter::zip(options.draws.iter().copied(), accuracies).collect();
    let json = json!({
        "model": options.sampling.model,
        "seed": common.seed,
        "images": count,
        "weight": weight_name(options),
        "results": results.iter().map(|(draws, accuracy)| {
            json!({
                "draws": draws,
                "accuracy": accuracy.overall,
                "standard_error": accuracy.standard_error,
                "by_class": accuracy.by_class,
            })
        }).collect::<Vec<Value>>(),
    });
    output::result(common, &json, &table(options, common, count, &results)?)
}

fn weight_name(options: &Eval) -> String {
    options.weight.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// The result as Markdown, with the command that makes it again.
fn table(
    options: &Eval,
    common: &Common,
    images: usize,
    results: &[(usize, ClassAccuracy)],
) -> Result<String> {
    let (model, data, seed, weight) =
        (&options.sampling.model, &options.data, common.seed, weight_name(options));
    let draws = output::list(results.iter().map(|(draws, _)| draws));
    let mut text = format!(
        "`ddpm-cli eval --classifier --model {model} --data {data} --images {images} --draws {draws} --weight {weight} \
         --seed {seed}`, version {}\n\nThe diffusion classifier on {images} test images\n\n",
        env!("CARGO_PKG_VERSION"),
    );
    writeln!(text, "| draws | accuracy | standard error | class with the least |")?;
    writeln!(text, "| --- | --- | --- | --- |")?;
    for (draws, accuracy) in results {
        let known = accuracy.by_class.iter().enumerate().filter_map(|(class, part)| Some((class, (*part)?)));
        let least = known.min_by(|a, b| a.1.total_cmp(&b.1));
        let least = least.map_or_else(String::new, |(class, part)| format!("{class}: {part:.3}"));
        writeln!(text, "| {draws} | {:.4} | {:.4} | {least} |", accuracy.overall, accuracy.standard_error)?;
    }
    Ok(text)
}
