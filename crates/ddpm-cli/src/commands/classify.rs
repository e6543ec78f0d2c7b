//! `ddpm-cli classify`: classifies test images with the diffusion model.

use std::fmt::Write;

use anyhow::{Context, Result};
use ddpm_eval::{Classification, ClassifyConfig, classify};
use serde_json::json;

use crate::{
    args::{Classify, Common, TestImages},
    data, model, output, progress,
};

pub(crate) fn run(options: &Classify, common: &Common) -> Result<()> {
    let TestImages { model, data: source, num_images } = &options.of;
    let denoiser = model::load(model, &common.device.open()?)?;
    let splits = data::load_for(source, &denoiser)?;
    let test = splits.test().with_context(|| format!("{} has no test images to classify", splits.name()))?;
    let config = ClassifyConfig {
        num_images: *num_images,
        num_noise: options.num_noise.clone(),
        weighting: options.weighting,
        seed: common.seed,
    };
    let results = classify(&denoiser, test, &config, progress::images(common)?)?;
    let images = test.len().min(*num_images);
    let json = json!({
        "model": model,
        "seed": common.seed,
        "images": images,
        "weighting": output::name(&options.weighting),
        "results": results,
    });
    output::result(common, &json, &table(options, common, images, &results)?)
}

/// The result as Markdown, with the command that reproduces it.
fn table(options: &Classify, common: &Common, images: usize, results: &[Classification]) -> Result<String> {
    let TestImages { model, data, .. } = &options.of;
    let (seed, weighting) = (common.seed, output::name(&options.weighting));
    let mut text = format!(
        "`ddpm-cli classify --model {model} --data {data} --num-images {images} --num-noise {} \
         --weighting {weighting} --seed {seed}`, version {}\n\nThe diffusion classifier on {images} test images\n\n",
        output::list(&options.num_noise),
        env!("CARGO_PKG_VERSION"),
    );
    writeln!(text, "| noise samples | accuracy | standard error | lowest accuracy of a class |")?;
    writeln!(text, "| --- | --- | --- | --- |")?;
    for Classification { num_noise, accuracy } in results {
        let known = accuracy.by_class.iter().enumerate().filter_map(|(class, part)| Some((class, (*part)?)));
        let lowest = known.min_by(|a, b| a.1.total_cmp(&b.1));
        let lowest = lowest.map_or_else(String::new, |(class, part)| format!("{class}: {part:.3}"));
        let (overall, error) = (accuracy.overall, accuracy.standard_error);
        // One image has no standard error.
        let error = if error.is_finite() { format!("{error:.4}") } else { "–".to_owned() };
        writeln!(text, "| {num_noise} | {overall:.4} | {error} | {lowest} |")?;
    }
    Ok(text)
}
