//! The format of `experiments/NAME.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// The name by which columns refer to the output of `train`.
pub(super) const TRAIN: &str = "train";

/// An experiment: the description of a table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Experiment {
    pub(super) title: String,
    /// An explanation of the table, in Markdown.
    pub(super) text: String,
    /// The data set, the value of `--data`.
    #[serde(default = "mnist")]
    pub(super) data: String,
    /// The number of rounds, 1 to 100. Each round runs all rows, and the table shows medians over the rounds. A table
    /// that compares times needs more than 1.
    #[serde(default = "once")]
    pub(super) rounds: usize,
    /// The training time of each row in minutes; the number of epochs is computed from the time of one epoch. If
    /// `None`, the arguments of `train` determine the number of epochs.
    pub(super) minutes: Option<f64>,
    /// The commands that run for each row after its training, in this order.
    pub(super) measure: Vec<Measurement>,
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
    /// Whether it runs only for rows that have a key with its name; the value may be empty.
    #[serde(default)]
    pub(super) optional: bool,
}

/// A column of numbers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Column {
    pub(super) heading: String,
    /// `/train`, or `/` and the name of a measurement, followed by a JSON pointer into the output of the command.
    pub(super) pointer: String,
    /// The pointer of the standard error, shown after ±.
    pub(super) error: Option<String>,
    /// The pointer of the same number for real test images, shown in a last row.
    pub(super) floor: Option<String>,
    pub(super) divide_by: Option<Divisor>,
    /// Digits after the decimal point.
    pub(super) digits: usize,
    /// Whether the number is a share between 0 and 1, shown in per cent.
    #[serde(default)]
    pub(super) percent: bool,
}

/// The divisor of a column's number: a constant, or the number at a pointer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum Divisor {
    Number(f64),
    Pointer(String),
}

/// A row of the table: a model, and arguments of the commands that measure it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) name: String,
    /// Arguments of `train`; if `None`, the row measures the built-in model.
    pub(super) train: Option<String>,
    /// Further arguments of measurements, by the name of the measurement. `{NAME:/POINTER}` is replaced by the value at
    /// that pointer in the output of the measurement NAME of this row.
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
    /// The file cannot be read, a key is missing, unknown or of another type, or keys contradict each other. The error
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
                ensure!(
                    is_plain(name),
                    "{key}: the name \"{name}\" has other characters than letters, digits, - and _"
                );
                ensure!(seen.insert(name.clone()), "{key}: the name \"{name}\" occurs twice");
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
    /// All pointers of the column with their keys.
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

/// Splits a column's pointer into the name of a measurement and the pointer into its output.
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

/// Whether a name can be part of a file name: ASCII letters, digits, `-` and `_`, with a letter or digit first.
pub(super) fn is_plain(name: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(inside)
}
