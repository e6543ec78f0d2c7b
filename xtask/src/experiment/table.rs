//! The results of an experiment as Markdown.

use anyhow::{Context, Result};

use super::file::{Column, Divisor, Experiment, Row, TRAIN, split};
use super::{Outcome, Outputs};
use crate::printed::{cell, median, percent};
use crate::provenance::Provenance;

/// The document: provenance, an explanation and the table.
///
/// # Errors
/// A column's pointer does not exist in the output of a command. The error names the column, the row and the pointer.
pub(super) fn markdown(
    experiment: &Experiment,
    outcomes: &[Outcome<'_>],
    provenance: &Provenance,
    total_seconds: f64,
) -> Result<String> {
    let mut text = format!("# {}\n\n{}\n", experiment.title, provenance.markdown(total_seconds));
    if let Some(minutes) = experiment.minutes {
        text += &format!(
            "- Training of each row: about {minutes} min; the number of epochs is computed from the time of one epoch\n"
        );
    }
    for measurement in &experiment.measure {
        let some = if measurement.optional { " (some rows)" } else { "" };
        text += &format!("- `{}`: `{}`{some}\n", measurement.name, measurement.command);
    }
    if experiment.rounds > 1 {
        text += &format!("- Medians of {} rounds; each round runs all rows in order\n", experiment.rounds);
    }
    text += &format!("\n{}\n\n", experiment.text.trim());

    let headings = experiment.columns.iter().map(|column| column.heading.clone());
    let line =
        |cells: &mut dyn Iterator<Item = String>| format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "));
    text += &line(&mut ["row", "arguments"].map(String::from).into_iter().chain(headings));
    text += &format!("| --- | --- |{}\n", " ---: |".repeat(experiment.columns.len()));
    for Outcome { row, rounds } in outcomes {
        let mut cells = vec![format!("`{}`", row.name), arguments(row)];
        for column in &experiment.columns {
            cells.push(column.cell(row, rounds)?);
        }
        text += &line(&mut cells.into_iter());
    }
    if experiment.columns.iter().any(|column| column.floor.is_some()) {
        let mut cells = vec!["real test images".to_owned(), String::new()];
        for column in &experiment.columns {
            cells.push(column.floor_cell(outcomes)?);
        }
        text += &line(&mut cells.into_iter());
    }
    Ok(text)
}

/// The arguments of this row, without those that all rows share.
fn arguments(row: &Row) -> String {
    let train = row.train.iter().map(|words| (TRAIN, words));
    let all = train.chain(row.arguments.iter().map(|(name, words)| (name.as_str(), words)));
    let shown = all.map(|(name, words)| format!("`{}`", format!("{name} {words}").trim_end()));
    shown.collect::<Vec<_>>().join(", ")
}

impl Column {
    /// The cell of a row: the median over its rounds.
    pub(super) fn cell(&self, row: &Row, rounds: &[Outputs]) -> Result<String> {
        let context = || format!("column \"{}\" of row \"{}\"", self.heading, row.name);
        let value = self.median(&self.pointer, rounds).with_context(context)?;
        let Some(error) = &self.error else { return Ok(self.show(value)) };
        let error = self.median(error, rounds).with_context(context)?;
        Ok(if value.is_none() {
            self.show(None)
        } else {
            format!("{} ± {}", self.show(value), self.show(error))
        })
    }

    /// The value of real test images, from the first row that has it; it is the same in every row.
    fn floor_cell(&self, outcomes: &[Outcome<'_>]) -> Result<String> {
        let Some(pointer) = &self.floor else { return Ok(String::new()) };
        let floors = outcomes.iter().map(|Outcome { row, rounds }| {
            let context = || format!("floor of column \"{}\" of row \"{}\"", self.heading, row.name);
            self.median(pointer, rounds).with_context(context)
        });
        let floors = floors.collect::<Result<Vec<_>>>()?;
        Ok(self.show(floors.into_iter().flatten().next()))
    }

    fn show(&self, value: Option<f64>) -> String {
        if self.percent { percent(value, self.digits) } else { cell(value, self.digits) }
    }

    fn median(&self, pointer: &str, rounds: &[Outputs]) -> Result<Option<f64>> {
        let values = rounds.iter().map(|outputs| self.value(pointer, outputs)).collect::<Result<Vec<_>>>()?;
        Ok(median(values.into_iter().flatten().collect()))
    }

    fn value(&self, pointer: &str, outputs: &Outputs) -> Result<Option<f64>> {
        let Some(value) = number(pointer, outputs)? else { return Ok(None) };
        let divisor = match &self.divide_by {
            None => Some(1.0),
            Some(Divisor::Number(divisor)) => Some(*divisor),
            Some(Divisor::Pointer(pointer)) => number(pointer, outputs)?,
        };
        Ok(divisor.map(|divisor| value / divisor))
    }
}

/// The number at a column's pointer; `None` if it is null or the row does not have the measurement.
fn number(pointer: &str, outputs: &Outputs) -> Result<Option<f64>> {
    let (name, pointer) = split(pointer);
    outputs.get(name).map_or(Ok(None), |printed| printed.number(pointer))
}
