//! The table of a comparison, as Markdown.

use std::collections::BTreeMap;

use crate::compare::{Comparison, Outcome};
use crate::figures::{cell, percent};

/// Writes a comparison down for people: where it comes from, the table, how to read it, the images.
pub(crate) fn markdown(comparison: &Comparison<'_>) -> String {
    let sections = [heading(comparison), table(&comparison.models), reading(comparison), grids(comparison)];
    sections.join("\n\n") + "\n"
}

fn heading(comparison: &Comparison<'_>) -> String {
    format!(
        "# Networks and losses compared on {}\n\n{}\n- Training of each: {}",
        comparison.data.name,
        comparison.provenance.markdown(comparison.total_seconds),
        lengths(&comparison.models)
    )
}

/// How long the models were trained: one length, or all that occur.
fn lengths(models: &[Outcome]) -> String {
    let mut lengths: Vec<_> = models
        .iter()
        .map(|model| {
            let training = &model.training;
            let (epochs, steps, batch) = (training.epochs, training.steps, training.batch_size);
            format!("{epochs} epochs, {steps} steps of {batch} images")
        })
        .collect();
    lengths.dedup();
    lengths.join("; ")
}

fn table(models: &[Outcome]) -> String {
    let mut lines = vec![
        "| network | raw output | prediction | loss | class accuracy | without added noise | test loss | training |"
            .to_owned(),
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: |".to_owned(),
    ];
    lines.extend(models.iter().map(|model| {
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {:.0} s |",
            model.candidate.network,
            model.candidate.raw_output,
            model.candidate.prediction,
            model.candidate.loss,
            percent(model.evaluation.class_accuracy),
            percent(model.evaluation_without_noise.class_accuracy),
            cell(model.training.test_loss, 4),
            model.training.seconds
        )
    }));
    lines.join("\n")
}

/// One paragraph on how to read the table, from what is in it.
fn reading(comparison: &Comparison<'_>) -> String {
    let models = &comparison.models;
    let accuracy = |model: &Outcome| model.evaluation.class_accuracy.unwrap_or(f64::NEG_INFINITY);
    let by_accuracy = |a: &&Outcome, b: &&Outcome| accuracy(a).total_cmp(&accuracy(b));
    let (Some(best), Some(worst)) = (models.iter().max_by(by_accuracy), models.iter().min_by(by_accuracy))
    else {
        return String::new();
    };
    let evaluation = &best.evaluation;
    let mut sentences = vec![format!(
        "*Class accuracy* is the share of {} generated images that {} puts into the class that was \
         asked for, sampled with guidance {}; it is right about {} of the real images held out.",
        evaluation.samples,
        evaluation.feature_net,
        evaluation.guidance,
        percent(evaluation.real_accuracy)
    )];
    if let Some(classes) = comparison.data.classes.filter(|&classes| classes > 0) {
        sentences.push(format!("Chance is {}.", percent(Some(1.0 / f64::from(classes)))));
    }
    sentences.push(format!(
        "Here {} comes out highest ({}) and {} lowest ({}).",
        described(best),
        percent(best.evaluation.class_accuracy),
        described(worst),
        percent(worst.evaluation.class_accuracy)
    ));
    sentences.push(
        "*Raw output* is what the last layer puts out and *prediction* what it is converted to: `sample` is the \
         clean image, `epsilon` the noise, `v_prediction` a mix of both. The accuracy *without added noise* says \
         nothing about variety, which is lost without noise."
            .to_owned(),
    );
    sentences.push(comparable_losses(models));
    sentences.join(" ")
}

/// Says which test losses are on one scale: those of rows with the same loss.
fn comparable_losses(models: &[Outcome]) -> String {
    let mut rows = BTreeMap::<&str, Vec<&Outcome>>::new();
    for model in models {
        rows.entry(model.candidate.loss).or_default().push(model);
    }
    let shared: Vec<_> = rows
        .into_iter()
        .filter(|(_, rows)| rows.len() > 1)
        .map(|(loss, rows)| {
            let rows: Vec<_> = rows.into_iter().map(described).collect();
            format!("those with the loss `{loss}` can: {}", rows.join(" and "))
        })
        .collect();
    let which = if shared.is_empty() { "no two rows here can".to_owned() } else { shared.join("; ") };
    format!(
        "*Test losses* are taken in different spaces and with different weights over time, so rows with \
         different losses cannot be compared by them; {which}."
    )
}

fn grids(comparison: &Comparison<'_>) -> String {
    let grids = comparison.models.iter().map(|model| {
        let title = described(model);
        format!("## {title}\n\n![Images of {title}]({})", model.grid)
    });
    grids.collect::<Vec<_>>().join("\n\n")
}

fn described(model: &Outcome) -> String {
    let candidate = &model.candidate;
    format!(
        "`{}` with raw output `{}`, prediction `{}` and loss `{}`",
        candidate.network, candidate.raw_output, candidate.prediction, candidate.loss
    )
}
