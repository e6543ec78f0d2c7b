//! The metrics as a Markdown table.

use std::fmt::Write;

use anyhow::Result;
use ddpm_core::likelihood::MeanAndError;
use ddpm_eval::{MetricResult, Report};

use super::{Evaluated, subject::Subject};
use crate::{commands::sampling::SamplingOption, output};

pub(super) fn markdown(evaluated: &Evaluated<'_>, sampling: &[SamplingOption]) -> Result<String> {
    let report = evaluated.report;
    let mut text = head(evaluated, sampling);
    writeln!(text, "| metric | generated images | real test images | ratio |\n| --- | --- | --- | --- |")?;
    for [metric, generated, floor, ratio] in rows(report) {
        writeln!(text, "| {metric} | {generated} | {floor} | {ratio} |")?;
    }
    text += &by_class(report);
    for sentence in sentences(report) {
        writeln!(text, "\n{sentence}")?;
    }
    Ok(text)
}

/// Sentences on images that occur more than once, and on metrics that are missing.
pub(super) fn sentences(report: &Report) -> Vec<String> {
    duplicates(report).into_iter().chain(report.missing.iter().map(ToString::to_string)).collect()
}

/// A sentence on images that occur more than once, if there are any.
fn duplicates(report: &Report) -> Option<String> {
    match (report.distinct_samples, report.samples) {
        (distinct, all) if distinct == all => None,
        (1, _) => Some("All generated images are equal.".to_owned()),
        (distinct, all) => Some(format!("Only {distinct} of the {all} generated images are different.")),
    }
}

/// The command that reproduces the metrics, and the conditions under which they are comparable.
fn head(evaluated: &Evaluated<'_>, sampling: &[SamplingOption]) -> String {
    let Evaluated { report, .. } = evaluated;
    let command = command(evaluated, sampling);
    let (version, digest) = (env!("CARGO_PKG_VERSION"), evaluated.net.digest());
    let images = match evaluated.subject {
        Subject::Model { .. } => String::new(),
        Subject::Images { images, notes } => {
            let notes: String = notes.iter().map(|note| format!(" {note}.")).collect();
            format!(" The generated images have the SHA-256 `{}`.{notes}", images.images_sha256())
        }
    };
    let Report { samples, train_images, subset_images, .. } = report;
    let floor = match report.test_images {
        Some(images) => format!("the same metrics of {images} real test images are the floor"),
        None => "there are no test images, so there is no floor".to_owned(),
    };
    format!(
        "`{command}`, version {version}.{images} The features are from the feature net with SHA-256 `{digest}`. \
         {samples} generated images are compared with {train_images} training images, or with {subset_images} of them \
         in metrics whose time grows with the square of the number of images; {floor}. ± is a standard error; it does \
         not include the variation between training sets.\n\n"
    )
}

/// The command that reproduces the evaluation.
pub(super) fn command(evaluated: &Evaluated<'_>, sampling: &[SamplingOption]) -> String {
    let options = evaluated.options;
    let mut command = format!("ddpm-cli eval {}", evaluated.subject.command(options));
    let mut add = |option: &str, value: Option<String>| {
        if let Some(value) = value {
            command += &format!(" --{option} {value}");
        }
    };
    add("features", options.features.as_ref().map(|folder| folder.display().to_string()));
    add("metrics", options.metrics.as_ref().map(|metrics| output::list(metrics.iter().map(output::name))));
    for (option, _, value) in sampling {
        add(option, value.clone());
    }
    add("seed", Some(evaluated.common.seed.to_string()));
    command
}

/// The cells of each metric: its name, the value of generated images, the value of test images, and their ratio.
pub(super) fn rows(report: &Report) -> Vec<[String; 4]> {
    let mut rows = Vec::new();
    if let Some(frechet) = &report.frechet {
        let images = frechet.generated.images;
        let name = format!("Fréchet distance, {images} images");
        rows.push(row(name, frechet, |found| Some(format!("{:.2}", found.distance))));
        if frechet.generated.limit.is_some() {
            let name = "Fréchet distance, extrapolated to ∞ images";
            let limit = row(name, frechet, |found| Some(format!("{:.2}", found.limit.as_ref()?.distance)));
            // Without a ratio: the extrapolated distance of test images can be close to 0.
            let [name, generated, floor, _] = limit;
            rows.push([name, generated, floor, String::new()]);
        }
    }
    if let Some(kernel) = &report.kernel {
        let cell = |mean: f64, error: f64| Some(format!("{mean:.3} ± {error:.3}"));
        rows.push(row("kernel distance", kernel, |found| cell(found.mean, found.standard_error)));
    }
    if let Some(manifold) = &report.manifold {
        let cell = |MeanAndError { mean, standard_error }| Some(format!("{mean:.3} ± {standard_error:.3}"));
        rows.push(row("precision, k = 3", manifold, |found| cell(found.precision)));
        rows.push(row("recall, k = 3", manifold, |found| cell(found.recall)));
        rows.push(row("density, k = 5", manifold, |found| cell(found.density)));
        rows.push(row("coverage, k = 5", manifold, |found| cell(found.coverage)));
    }
    if let Some(accuracy) = &report.accuracy {
        rows.push(row("class accuracy", accuracy, |found| {
            let error = found.standard_error;
            // One image has no standard error.
            let error = if error.is_finite() { format!("{error:.4}") } else { "–".to_owned() };
            Some(format!("{:.4} ± {error}", found.overall))
        }));
    }
    if let Some(diversity) = &report.diversity {
        let within = if diversity.generated.by_class.is_empty() { "" } else { " within a class" };
        let name = format!("diversity{within}, in units of training images");
        rows.push(row(name, diversity, |found| Some(format!("{:.3}", found.overall?))));
    }
    if let Some(memorisation) = &report.memorisation {
        let name = "mean distance to the nearest training image, grey levels";
        rows.push(row(name, memorisation, |found| Some(format!("{:.2}", found.distance))));
    }
    rows
}

fn row<T>(
    name: impl Into<String>,
    metric: &MetricResult<T>,
    cell: impl Fn(&T) -> Option<String>,
) -> [String; 4] {
    let none = || "–".to_owned();
    [
        name.into(),
        cell(&metric.generated).unwrap_or_else(none),
        metric.floor.as_ref().and_then(&cell).unwrap_or_else(none),
        metric.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
    ]
}

/// A table of accuracy and diversity of each class that was generated; empty without classes.
fn by_class(report: &Report) -> String {
    let mut columns: Vec<(&str, &[Option<f64>])> = Vec::new();
    if let Some(MetricResult { generated, floor, .. }) = &report.accuracy {
        columns.push(("accuracy", &generated.by_class));
        columns.extend(floor.as_ref().map(|floor| ("of test images", floor.by_class.as_slice())));
    }
    if let Some(MetricResult { generated, floor, .. }) = &report.diversity {
        columns.push(("diversity", &generated.by_class));
        columns.extend(floor.as_ref().map(|floor| ("of test images", floor.by_class.as_slice())));
    }
    columns.retain(|(_, values)| !values.is_empty());
    // The first column is from the generated images.
    let Some((_, generated)) = columns.first() else { return String::new() };
    let line = |first: &str, cells: &mut dyn Iterator<Item = String>| {
        format!("| {first} | {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let mut text = "\n".to_owned();
    text += &line("class", &mut columns.iter().map(|(name, _)| (*name).to_owned()));
    text += &line("---", &mut columns.iter().map(|_| "---".to_owned()));
    for class in (0..generated.len()).filter(|&class| generated[class].is_some()) {
        let cell = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"));
        let mut cells = columns.iter().map(|(_, values)| cell(values.get(class).copied().flatten()));
        text += &line(&class.to_string(), &mut cells);
    }
    text
}
