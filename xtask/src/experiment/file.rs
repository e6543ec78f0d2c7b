//! The file of an experiment, `experiments/NAME.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// The name under which columns find what training printed.
pub(super) const TRAIN: &str = "train";

/// A table to be measured.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Experiment {
    pub(super) title: String,
    /// How to read the table, in Markdown.
    pub(super) text: String,
    /// The images, for `--data`.
    #[serde(default = "mnist")]
    pub(super) data: String,
    /// How often all rows are repeated in turn; the table shows medians. More than 1 where times are compared.
    #[serde(default = "once")]
    pub(super) rounds: usize,
    /// Minutes for which each row trains: the number of epochs follows from the time of one. If `None`, the
    /// arguments of `train` determine it.
    #[serde(default)]
    pub(super) minutes: Option<f64>,
    /// The commands run for each row after its training, in this order.
    pub(super) measure: Vec<Measurement>,
    /// Arguments of `sample`: each row gets a PNG of images.
    #[serde(default)]
    pub(super) grid: Option<String>,
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
}

/// A command that measures a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Measurement {
    pub(super) name: String,
    /// The command of `ddpm-cli` with the arguments that all rows share.
    pub(super) command: String,
    /// Whether it runs only for rows that have arguments for it, if only empty ones.
    #[serde(default)]
    pub(super) optional: bool,
}

/// A column of numbers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Column {
    pub(super) heading: String,
    /// `/train` or `/` and the name of a measurement, followed by a JSON pointer into what it prints.
    pub(super) pointer: String,
    /// The standard error, shown after ±.
    #[serde(default)]
    pub(super) error: Option<String>,
    /// The same number for real test images, shown in a last row.
    #[serde(default)]
    pub(super) floor: Option<String>,
    #[serde(default)]
    pub(super) divide_by: Option<Divisor>,
    /// Digits after the decimal point.
    pub(super) digits: usize,
    /// Whether the number is a share, to be shown in per cent.
    #[serde(default)]
    pub(super) percent: bool,
}

/// What a column's number is divided by.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum Divisor {
    Number(f64),
    Pointer(String),
}

/// A row of the table: a model and how to measure it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) name: String,
    /// Arguments of `train`; the model is the built-in one if `None`.
    #[serde(default)]
    pub(super) train: Option<String>,
    /// Further arguments of measurements, by their names. `{NAME:/POINTER}` stands for what the measurement NAME
    /// of this row printed there.
    #[serde(flatten)]
    pub(super) arguments: BTreeMap<String, String>,
}

fn mnist() -> String {
    "mnist".to_owned()
}

fn once() -> usize {
    1
}

impl Experiment {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// It cannot be read, a key is missing, unknown or of another type, or keys contradict each other. The error
    /// names the file and the key.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let experiment: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
        experiment.check().with_context(|| path.display().to_string())?;
        Ok(experiment)
    }

    fn check(&self) -> Result<()> {
        ensure!((1..=100).contains(&self.rounds), "rounds is {}, expected 1 to 100", self.rounds);
        if let Some(minutes) = self.minutes {
            ensure!(minutes.is_finite() && minutes > 0.0, "minutes is {minutes}, expected a number above 0");
        }
        for (key, is_empty) in [("rows", self.rows.is_empty()), ("columns", self.columns.is_empty())] {
            ensure!(!is_empty, "{key} is empty");
        }
        let names = |key, names: &mut dyn Iterator<Item = &String>| -> Result<BTreeSet<String>> {
            let mut seen = BTreeSet::new();
            for name in names {
                ensure!(is_plain(name), "{key}: the name \"{name}\" is not of letters, digits, - and _");
                ensure!(seen.insert(name.clone()), "{key}: the name \"{name}\" is there twice");
            }
            Ok(seen)
        };
        names("rows", &mut self.rows.iter().map(|row| &row.name))?;
        let mut known = names("measure", &mut self.measure.iter().map(|it| &it.name))?;
        for row in &self.rows {
            for (key, words) in &row.arguments {
                let list = || known.iter().cloned().collect::<Vec<_>>().join(", ");
                ensure!(
                    known.contains(key),
                    "rows: unknown key `{key}` in \"{}\", expected name, train, {}",
                    row.name,
                    list()
                );
                fill(words, |name, _| {
                    ensure!(known.contains(name), "{name} is not measured, expected one of {}", list());
                    Ok(String::new())
                })
                .with_context(|| format!("rows: {key} of \"{}\"", row.name))?;
            }
        }
        ensure!(known.insert(TRAIN.to_owned()), "measure: the name \"{TRAIN}\" is reserved for training");
        for column in &self.columns {
            for (key, pointer) in column.pointers() {
                let name = split(pointer).0;
                ensure!(
                    known.contains(name),
                    "columns: {key} of \"{}\" is {pointer}, expected / and one of {}",
                    column.heading,
                    known.iter().cloned().collect::<Vec<_>>().join(", ")
                );
            }
        }
        Ok(())
    }
}

impl Column {
    /// All pointers with their keys.
    fn pointers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let divisor = match &self.divide_by {
            Some(Divisor::Pointer(pointer)) => Some(pointer),
            Some(Divisor::Number(_)) | None => None,
        };
        let pointers = [
            ("pointer", Some(&self.pointer)),
            ("error", self.error.as_ref()),
            ("floor", self.floor.as_ref()),
            ("divide_by", divisor),
        ];
        pointers.into_iter().filter_map(|(key, pointer)| Some((key, pointer?.as_str())))
    }
}

/// The name of a measurement, and the pointer into what it printed.
pub(super) fn split(pointer: &str) -> (&str, &str) {
    let path = pointer.strip_prefix('/').unwrap_or("");
    path.split_at(path.find('/').unwrap_or(path.len()))
}

/// Replaces each `{NAME:/POINTER}` by what `find` returns for the name and the pointer.
///
/// # Errors
/// A brace is not part of such a placeholder, or `find` fails.
pub(super) fn fill(text: &str, mut find: impl FnMut(&str, &str) -> Result<String>) -> Result<String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let placeholder =
            after.split_once('}').and_then(|(inside, after)| Some((inside.split_once(':')?, after)));
        let ((name, pointer), after) =
            placeholder.with_context(|| format!("`{text}`: expected {{NAME:/POINTER}} after {{"))?;
        filled += before;
        filled += &find(name, pointer)?;
        rest = after;
    }
    Ok(filled + rest)
}

/// Whether a name can be part of a file's name: ASCII letters, digits, `-` and `_`.
pub(super) fn is_plain(name: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(inside)
}
