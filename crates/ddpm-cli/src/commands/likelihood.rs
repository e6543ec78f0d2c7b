//! `ddpm-cli likelihood`: the variational bound of test images.

use std::fmt::Write;

use anyhow::Result;
use ddpm_core::likelihood::{Bound, MeanAndError};
use ddpm_eval::{LikelihoodConfig, LikelihoodReport, likelihood};

use crate::{
    args::{Common, TestImages},
    data, model, output, progress,
};

pub(crate) fn run(options: &TestImages, common: &Common) -> Result<()> {
    let denoiser = model::load(&options.model, &common.device.open()?)?;
    let splits = data::load_for(&options.data, &denoiser)?;
    let config = LikelihoodConfig { num_images: options.num_images, seed: common.seed };
    let report = likelihood(&denoiser, &splits, config, progress::images(common)?)?;
    let mut json = serde_json::to_value(&report)?;
    json["model"] = options.model.as_str().into();
    json["seed"] = common.seed.into();
    output::result(common, &json, &(head(options, common, &report) + &table(&report)?))
}

/// The command that reproduces the results, and the version of the program.
fn head(options: &TestImages, common: &Common, report: &LikelihoodReport) -> String {
    let TestImages { model, data, num_images } = options;
    let (version, seed) = (env!("CARGO_PKG_VERSION"), common.seed);
    format!(
        "`ddpm-cli likelihood --model {model} --data {data} --num-images {num_images} --seed {seed}`, version \
         {version}. Variances and timesteps are fitted on {} training images.\n\n",
        report.training_images
    )
}

/// The largest number of timesteps that a table shows one by one. A longer schedule has as many rows, of several timesteps
/// each; `--json` has all of them.
const ROWS: usize = 50;

/// The result as Markdown.
fn table(report: &LikelihoodReport) -> Result<String> {
    let bounds = [&report.bound.fixed_small, &report.bound.fixed_large, &report.bound.optimal];
    let cell = |estimate: MeanAndError| {
        let (low, high) = estimate.interval();
        let half = (high - low) / 2.0;
        // One image has no interval.
        let half = if half.is_finite() { format!("{half:.5}") } else { "–".to_owned() };
        format!("{:.5} ± {half}", estimate.mean)
    };
    let row = |name: &str, pick: &dyn Fn(&Bound) -> MeanAndError| {
        let cells: Vec<String> = bounds.iter().map(|bound| cell(pick(bound))).collect();
        format!("| {name} | {} |", cells.join(" | "))
    };
    let mut text = format!(
        "Bits per dimension, mean of {} test images ± 95 % interval, by reverse-step variance\n\n",
        report.images
    );
    writeln!(text, "| term | fixed_small | fixed_large | optimal |")?;
    writeln!(text, "| --- | --- | --- | --- |")?;
    writeln!(text, "{}", row("prior", &|bound| bound.prior_bits_per_dim))?;
    let steps = &bounds[0].steps;
    let width = steps.len().div_ceil(ROWS).max(1);
    for (index, part) in std::iter::zip((0..).step_by(width), steps.chunks(width)) {
        match part {
            [step] => {
                let decoder = if step.t == 0.0 { ", decoder" } else { "" };
                let name = format!("t = {}{decoder}", step.t);
                writeln!(text, "{}", row(&name, &|bound| bound.steps[index].bits_per_dim))?;
            }
            several => {
                let sum = |bound: &&Bound| -> String {
                    let steps = &bound.steps[index..][..several.len()];
                    format!("{:.5}", steps.iter().map(|step| step.bits_per_dim.mean).sum::<f64>())
                };
                let cells: Vec<String> = bounds.iter().map(sum).collect();
                let (first, last) = (several[0].t, several[several.len() - 1].t);
                writeln!(text, "| t = {first} to {last}, sum | {} |", cells.join(" | "))?;
            }
        }
    }
    writeln!(text, "{}", row("**bound**", &|bound| bound.total_bits_per_dim))?;
    writeln!(text, "\nRate and distortion with the optimal variances\n")?;
    writeln!(text, "| t | rate, bits per dimension | distortion, root mean square in grey levels |")?;
    writeln!(text, "| --- | --- | --- |")?;
    for point in report.rate_distortion.iter().step_by(width) {
        writeln!(text, "| {} | {:.4} | {:.1} |", point.t, point.rate_bits_per_dim, point.distortion_rmse)?;
    }
    if width == 1 {
        let variances = report.optimal_variances.iter().map(|variance| format!("{variance:.3e}"));
        let variances = output::list(variances);
        writeln!(text, "\nThe optimal variances, for `sample --variance`\n\n```text\n{variances}\n```")?;
    } else {
        writeln!(
            text,
            "\n`--json` prints the terms, rates and optimal variances of all {} timesteps.",
            steps.len()
        )?;
    }
    writeln!(text, "\nThe timesteps with the lowest bound on training images, with optimal variances\n")?;
    writeln!(text, "| steps | bound | timesteps, for `sample --timesteps` |")?;
    writeln!(text, "| --- | --- | --- |")?;
    for best in &report.best_timesteps {
        let list = output::list(&best.timesteps);
        writeln!(text, "| {} | {:.4} | {list} |", best.timesteps.len(), best.bits_per_dim)?;
    }
    Ok(text)
}
