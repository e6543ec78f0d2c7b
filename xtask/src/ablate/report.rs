//! The tables of an ablation, as Markdown.

use super::{Ablation, LIKELIHOOD_IMAGES, Row};
use crate::figures::{Distance, Estimate, MEASURED, Manifold, cell};

/// Writes an ablation down for people: where it comes from, how to read it, a table of each kind.
pub(super) fn markdown(ablation: &Ablation<'_>) -> String {
    let mut sections = vec![heading(ablation)];
    if !ablation.training.is_empty() {
        sections.push(training(ablation));
    }
    if !ablation.sampling.is_empty() {
        sections.push(sampling(&ablation.sampling));
    }
    sections.join("\n\n") + "\n"
}

fn heading(ablation: &Ablation<'_>) -> String {
    format!(
        "# One choice changed at a time\n\n{}\n\n\
         Figures are of {MEASURED} generated images. *Fréchet* is their Fréchet distance from the training images \
         and *nearest* their mean distance to the nearest training image, each as a multiple of that of real test \
         images. The rows are of one seed: small differences between them mean little. All measurements are in \
         `ablation.json`.",
        ablation.provenance.markdown(ablation.total_seconds)
    )
}

fn training(ablation: &Ablation<'_>) -> String {
    let heads = ["name", "arguments"].into_iter().chain(TRAINED).chain(MEASURES).chain(["bits"]);
    let rows = ablation.training.iter().map(|row| {
        let cells = [code(row.name), arguments(row)].into_iter();
        cells.chain(trained(row)).chain(measures(row)).chain([bits(row)]).collect()
    });
    format!(
        "## Training\n\nEach model was trained for about {} min: the epochs are those that one epoch foretold, so \
         they depend on the machine and on what else it did. *Held-out losses* can be compared only between rows \
         of the same loss. *Bits* is the variational bound of {LIKELIHOOD_IMAGES} test images in bits per \
         dimension ± standard error, with the optimal variance of each step.\n\n{}",
        ablation.minutes,
        table(&heads.collect::<Vec<_>>(), rows)
    )
}

fn sampling(rows: &[Row]) -> String {
    let heads = ["name", "arguments"].into_iter().chain(MEASURES);
    let rows =
        rows.iter().map(|row| [code(row.name), arguments(row)].into_iter().chain(measures(row)).collect());
    format!(
        "## Sampling\n\nWays of sampling from the built-in model.\n\n{}",
        table(&heads.collect::<Vec<_>>(), rows)
    )
}

const TRAINED: [&str; 3] = ["minutes", "epochs", "held-out loss"];

fn trained(row: &Row) -> [String; 3] {
    let training = row.training.as_ref();
    [
        cell(training.map(|training| training.seconds / 60.0), 1),
        training.map_or("–".to_owned(), |training| training.epochs.to_string()),
        cell(training.and_then(|training| training.test_loss), 4),
    ]
}

const MEASURES: [&str; 5] = ["Fréchet", "precision", "recall", "class accuracy", "nearest"];

fn measures(row: &Row) -> [String; 5] {
    let figures = &row.evaluation;
    let ratio = |distance: &Option<Distance>| distance.as_ref().and_then(|distance| distance.ratio);
    let part = |of: fn(&Manifold) -> &Estimate| figures.manifold.as_ref().and_then(|found| of(found).mean);
    [
        cell(ratio(&figures.frechet), 2),
        cell(part(|manifold| &manifold.precision), 3),
        cell(part(|manifold| &manifold.recall), 3),
        cell(figures.class_accuracy, 3),
        cell(ratio(&figures.memorisation), 2),
    ]
}

fn bits(row: &Row) -> String {
    row.likelihood.as_ref().map_or("–".to_owned(), |likelihood| {
        let Estimate { mean, standard_error } = &likelihood.bound.optimal.total_bits_per_dim;
        format!("{} ± {}", cell(*mean, 3), cell(*standard_error, 3))
    })
}

/// What is handed to `ddpm-cli`, beside what all rows share.
fn arguments(row: &Row) -> String {
    let train = row.train.as_ref().map(|words| code(&format!("train {}", words.join(" "))));
    let eval = code(format!("eval {}", row.eval.join(" ")).trim_end());
    train.into_iter().chain([eval]).collect::<Vec<_>>().join(", ")
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// A table whose first two columns are text and whose others are numbers.
fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
    let heads: Vec<String> = heads.iter().map(|&head| head.to_owned()).collect();
    let rule: Vec<String> =
        (0..heads.len()).map(|column| if column < 2 { "---" } else { "---:" }.to_owned()).collect();
    [line(&heads), line(&rule)]
        .into_iter()
        .chain(rows.map(|cells| line(&cells)))
        .collect::<Vec<_>>()
        .join("\n")
}
