//! `cargo xtask experiment NAME`: measures the table that `experiments/NAME.toml` describes.

mod file;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use ddpm_files::{sha256_of_file, write_atomic};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::ddpm::Ddpm;
use crate::phases::{Phase, Phases, in_words};
use crate::printed::Printed;
use crate::process;
use crate::provenance::Provenance;
use crate::staging::Staging;
use crate::start::Started;
use crate::workspace::Workspace;

use file::{Experiment, Row, TRAIN, fill, is_plain};

/// Measure the rows of a table that experiments/NAME.toml describes, and write results/NAME.md and NAME.json.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// The name of a file in experiments/, without .toml.
    name: String,
    /// Measure only this row; may be repeated. The results go to runs/experiments/NAME/results/.
    #[arg(long = "row", value_name = "ROW")]
    rows: Vec<String>,
    /// Keep the rows that an interrupted run finished with the same program and arguments.
    #[arg(long)]
    resume: bool,
    /// The training time of each row in minutes, instead of the value in the file.
    #[arg(long, value_name = "M")]
    minutes: Option<f64>,
    /// The seed of training, sampling and evaluation.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// The number of threads [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// The outputs of the commands of a row, by the name of the measurement.
type Outputs = BTreeMap<String, Printed>;

/// A row with its outputs, one element for each round.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    row: &'a Row,
    rounds: Vec<Outputs>,
}

/// The content of `NAME.json`.
#[derive(Debug, Serialize)]
struct Results<'a> {
    #[serde(flatten)]
    provenance: &'a Provenance,
    minutes: Option<f64>,
    rows: &'a [Outcome<'a>],
    phases: &'a [Phase],
    total_seconds: f64,
}

/// A finished row on disk, for `--resume`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Finished {
    /// Everything that determines the outputs; see [`Runner::key`].
    key: Value,
    outputs: Outputs,
}

/// Reads the experiment, builds `ddpm-cli` and measures.
pub(crate) fn run(arguments: &Arguments, workspace: &Workspace) -> Result<()> {
    let experiment = read(arguments, workspace)?;
    process::print(&measure(arguments, &experiment, Started::with_build(workspace, arguments.seed, &[])?)?)
}

/// Reads the experiment and applies the arguments to it.
///
/// # Errors
/// The file is invalid, or the arguments do not fit it.
fn read(arguments: &Arguments, workspace: &Workspace) -> Result<Experiment> {
    let name = &arguments.name;
    ensure!(is_plain(name), "\"{name}\" is not the name of an experiment; see the files in experiments/");
    let path = workspace.root().join("experiments").join(format!("{name}.toml"));
    let mut experiment = Experiment::read(&path)?;
    for name_of_row in &arguments.rows {
        if !experiment.rows.iter().any(|row| row.name == *name_of_row) {
            let names: Vec<_> = experiment.rows.iter().map(|row| row.name.as_str()).collect();
            bail!("--row {name_of_row}: {name} has no such row, expected one of {}", names.join(", "));
        }
    }
    experiment.rows.retain(|row| arguments.rows.is_empty() || arguments.rows.contains(&row.name));
    if let Some(minutes) = arguments.minutes {
        ensure!(experiment.minutes.is_some(), "--minutes: {name} does not train for a given time");
        ensure!(minutes.is_finite() && minutes > 0.0, "--minutes is {minutes}, expected a number above 0");
        experiment.minutes = Some(minutes);
    }
    Ok(experiment)
}

/// Runs all phases after the build and returns a summary for the user.
fn measure(arguments: &Arguments, experiment: &Experiment, started: Started<'_>) -> Result<String> {
    let Started { workspace, binary, provenance, mut phases } = started;
    let (root, name) = (workspace.root(), &arguments.name);
    let runner = Runner {
        experiment,
        ddpm: Ddpm { binary: &binary, root, seed: arguments.seed, threads: arguments.threads },
        program: sha256_of_file(&binary)?,
        folder: root.join("runs/experiments").join(name),
    };
    if !arguments.resume {
        runner.forget()?;
    }

    let mut outcomes: Vec<_> =
        experiment.rows.iter().map(|row| Outcome { row, rounds: Vec::new() }).collect();
    for round in 0..experiment.rounds {
        for Outcome { row, rounds } in &mut outcomes {
            let outputs = runner.row(row, round, &mut phases)?;
            // Checks the pointers of the columns now, so that a wrong one is an error before the last row has run.
            for column in &experiment.columns {
                column.cell(row, std::slice::from_ref(&outputs))?;
            }
            rounds.push(outputs);
        }
    }

    let mut staging = Staging::new(runner.folder.join("results.partial"))?;
    let total_seconds = phases.total_seconds();
    let table = table::markdown(experiment, &outcomes, &provenance, total_seconds)?;
    fs::write(staging.add(&format!("{name}.md"), "the table"), &table)?;
    let results = Results {
        provenance: &provenance,
        minutes: experiment.minutes,
        rows: &outcomes,
        phases: phases.done(),
        total_seconds,
    };
    let json = serde_json::to_string(&results)? + "\n";
    fs::write(staging.add(&format!("{name}.json"), "everything that the commands printed"), json)?;
    let all = root.join("results");
    let results = if arguments.rows.is_empty() { all } else { runner.folder.join("results") };
    staging.publish(&results)?;
    Ok(format!("{table}\nDone in {}: {}/{name}.md", in_words(total_seconds), runner.ddpm.path(&results)))
}

/// Runs the commands of rows.
struct Runner<'a> {
    experiment: &'a Experiment,
    ddpm: Ddpm<'a>,
    /// SHA-256 of `ddpm-cli`.
    program: String,
    /// The folder of models and finished rows.
    folder: PathBuf,
}

impl Runner<'_> {
    /// Deletes the outputs of the rows that runs before have finished.
    fn forget(&self) -> Result<()> {
        for row in &self.experiment.rows {
            for round in 0..self.experiment.rounds {
                let finished = self.finished(row, round);
                if finished.exists() {
                    fs::remove_file(&finished)
                        .with_context(|| format!("cannot remove {}", finished.display()))?;
                }
            }
        }
        Ok(())
    }

    /// Trains and measures a row, or reads its outputs if a run before has finished it.
    fn row(&self, row: &Row, round: usize, phases: &mut Phases) -> Result<Outputs> {
        let (path, key) = (self.finished(row, round), self.key(row));
        if let Ok(text) = fs::read_to_string(&path)
            && let Ok(finished) = serde_json::from_str::<Finished>(&text)
            && finished.key == key
        {
            process::say(&format!("== {} is already finished", row.name));
            return Ok(finished.outputs);
        }
        let mut outputs = Outputs::new();
        let mut of_model = String::new();
        if let Some(words) = &row.train {
            let folder = self.folder.join("models").join(&row.name);
            let training = self.train(&row.name, words, &folder, phases)?;
            outputs.insert(TRAIN.to_owned(), training);
            of_model = format!(" --model {}", self.ddpm.path(&folder.join("model")));
        }
        for measurement in &self.experiment.measure {
            let name = &measurement.name;
            let more = row.arguments.get(name);
            if more.is_none() && measurement.optional {
                continue;
            }
            let command = &measurement.command;
            let line = format!("{command}{of_model} {}", more.map_or("", String::as_str));
            let line = fill(&line, |name, pointer| match outputs.get(name) {
                Some(printed) => printed.argument(pointer),
                None => bail!("{{{name}:{pointer}}}: this row has no measurement {name}"),
            });
            let line = line.with_context(|| format!("{name} of row \"{}\"", row.name))?;
            // These commands have no option --data.
            let without = ["sample", "fit-plan"].iter().any(|name| command.starts_with(name));
            let data = ["--data", &self.experiment.data];
            let data = if without { &[][..] } else { &data };
            let printed = phases.run(&format!("{name} of {}", row.name), || self.ddpm.call(&line, data))?;
            outputs.insert(name.clone(), printed);
        }
        let finished = Finished { key, outputs };
        write_atomic(&path, &serde_json::to_vec(&finished)?)?;
        Ok(finished.outputs)
    }

    /// Trains with the arguments of the row, for the training time of the experiment if it has one.
    fn train(&self, name: &str, words: &str, folder: &Path, phases: &mut Phases) -> Result<Printed> {
        let train = |epochs: Option<f64>, folder: &Path| {
            let epochs = epochs.map_or(String::new(), |epochs| format!(" --epochs {epochs}"));
            let line = format!("train {words}{epochs} --overwrite -o {}", self.ddpm.path(folder));
            self.ddpm.call(&line, &["--data", &self.experiment.data])
        };
        let mut epochs = None;
        if let Some(minutes) = self.experiment.minutes {
            let scratch = self.folder.join("one-epoch");
            let one = phases.run(&format!("train {name}, one epoch"), || train(Some(1.0), &scratch))?;
            let number = |pointer| one.number(pointer)?.with_context(|| format!("{pointer} is null"));
            let estimate = minutes * 60.0 * number("/images_per_second")? / number("/images")?;
            epochs = Some(estimate.round().max(1.0));
        }
        phases.run(&format!("train {name}"), || train(epochs, folder))
    }

    /// Everything that determines the outputs of a row, except the speed of the machine.
    fn key(&self, row: &Row) -> Value {
        let Experiment { data, minutes, measure, .. } = self.experiment;
        let Ddpm { seed, threads, .. } = self.ddpm;
        json!({
            "program": self.program, "seed": seed, "threads": threads, "data": data, "minutes": minutes,
            "measure": measure, "row": row,
        })
    }

    fn finished(&self, row: &Row, round: usize) -> PathBuf {
        self.folder.join("rows").join(format!("{}-{}.json", row.name, round + 1))
    }
}
