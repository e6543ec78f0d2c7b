//! `cargo xtask torture`: runs the tests of reliability in their full size and writes a table of what they found.
//!
//! A row of the table is an ordinary test, which is large if the environment variable `DDPM_TORTURE` is `full`. It prints a
//! line `torture | CLAIM | MEASURE | RESULT`.

use std::fs;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::fuzz::{self, Fuzzed};
use crate::phases::{Phase, Phases, in_words};
use crate::process;
use crate::provenance::Provenance;
use crate::rows::{self, Row, printed_rows};
use crate::staging::Staging;
use crate::workspace::Workspace;

/// Run the parsers under libFuzzer and the tests of reliability in their full size, and write results/reliability.md.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Run everything in a small size, and write to runs/torture/results.
    #[arg(long)]
    quick: bool,
}

/// The parsers that libFuzzer runs most often, since they are fast.
const FAST: [&str; 2] = ["idx-images", "idx-labels"];

/// The seed of the trainings and of the images in the tests.
const SEED: u64 = 1;

/// The tests whose lines are rows: arguments of cargo, separated by spaces. One thread, so that no test disturbs the memory
/// and the time that another one measures.
const TESTS: &str = "test --release --locked -p ddpm-cli -p ddpm-files -p ddpm-fuzz -p ddpm-kernels \
    --features ddpm-cli/hub,ddpm-fuzz/hub --lib --test seeds --test torture -- --nocapture --test-threads=1";

/// The tests of files from the Hub. Those below `hub::faults` and `hub::hostile` are counted.
const HUB_TESTS: &str =
    "test --release --locked -p ddpm-data --features hub,mnist --test it -- --nocapture hub:: parquet::";

/// The content of `reliability.json`.
#[derive(Debug, Serialize)]
struct Results<'a> {
    #[serde(flatten)]
    provenance: &'a Provenance,
    rows: &'a [Row],
    phases: &'a [Phase],
    total_seconds: f64,
}

/// Runs everything, and replaces the result files if nothing has failed.
pub(crate) fn run(arguments: &Arguments, workspace: &Workspace) -> Result<()> {
    let provenance = Provenance::of_this_process(workspace, SEED);
    let mut phases = Phases::start();
    let mut rows = phases.run("fuzz", || fuzz_rows(arguments, workspace))?;
    let found = printed_rows("torture", &phases.run("tests", || run_tests(arguments, workspace, TESTS))?);
    ensure!(!found.is_empty(), "`cargo {TESTS}` printed no line `torture | …`");
    rows.extend(found);
    let output = phases.run("tests of the Hub", || run_tests(arguments, workspace, HUB_TESTS))?;
    rows.extend(printed_rows("torture", &output));
    rows.push(hub_row(&output)?);

    let folder = workspace.root().join("runs/torture");
    let mut staging = Staging::new(folder.join("results.partial"))?;
    let total_seconds = phases.total_seconds();
    let table = markdown(&rows, &provenance, total_seconds);
    fs::write(staging.add("reliability.md", "the table"), &table)?;
    let results = Results { provenance: &provenance, rows: &rows, phases: phases.done(), total_seconds };
    fs::write(staging.add("reliability.json", "the rows"), serde_json::to_string_pretty(&results)? + "\n")?;
    let to = if arguments.quick { "runs/torture/results" } else { "results" };
    staging.publish(&workspace.root().join(to))?;
    process::print(&format!("{table}\nDone in {}: {to}/reliability.md", in_words(total_seconds)))
}

/// A row for each fuzz target.
fn fuzz_rows(arguments: &Arguments, workspace: &Workspace) -> Result<Vec<Row>> {
    let runs = |name: &str| match (arguments.quick, FAST.contains(&name)) {
        (true, _) => 20_000,
        (false, true) => 20_000_000,
        (false, false) => 2_000_000,
    };
    let fuzzed = fuzz::fuzz(&fuzz::Arguments::all(), workspace, |name| Some(runs(name)))?;
    let row = |Fuzzed { target, executions, peak_mb }: Fuzzed| {
        // A target that ended by its time limit is no result.
        ensure!(executions >= runs(&target), "{target}: {executions} executions, expected {}", runs(&target));
        Ok(Row {
            claim: "parsers".to_owned(),
            measure: format!(
                "`{target}` under libFuzzer, with overflow checks, at most 512 MB and 10 s an input"
            ),
            result: format!("{executions} executions, at most {peak_mb} MB; no panic, no hang"),
        })
    };
    fuzzed.into_iter().map(row).collect()
}

/// Runs tests and returns their output.
fn run_tests(arguments: &Arguments, workspace: &Workspace, tests: &str) -> Result<String> {
    let mut command = workspace.cargo();
    let size = if arguments.quick { "quick" } else { "full" };
    // The tests of the Hub's client use a server on this machine, which a proxy cannot reach.
    command.args(tests.split(' ')).env("DDPM_TORTURE", size).env("NO_PROXY", "127.0.0.1");
    let output = command.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "`cargo {tests}` failed:\n{text}");
    Ok(text)
}

/// The row of the tests of the Hub's client.
fn hub_row(output: &str) -> Result<Row> {
    let is_counted =
        |line: &&str| ["test hub::faults::", "test hub::hostile::"].iter().any(|test| line.starts_with(test));
    let passed = output.lines().filter(is_counted).filter(|line| line.ends_with("... ok")).count();
    ensure!(passed > 0, "no test of hub::faults or hub::hostile ran");
    Ok(Row {
        claim: "Hub faults".to_owned(),
        measure: "a server that fails after a good HEAD, sends a short, endless or wrong body, no ETag, paths, endless \
            redirects, or is slow or silent"
            .to_owned(),
        result: format!(
            "{passed} of {passed} tests: an error in bounded time, no bad file used, nothing outside of the cache, the \
             token never shown or sent to another server"
        ),
    })
}

/// The document: provenance and the table.
fn markdown(rows: &[Row], provenance: &Provenance, total_seconds: f64) -> String {
    let mut text = format!("# Reliability\n\n{}\n\n", provenance.markdown(total_seconds));
    text += "Every row is a test of the code at this commit, and every figure is from this run. A test that fails leaves no \
             table. `cargo xtask ci` runs the same tests in a smaller size.\n\n";
    text + &rows::markdown("claim", rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tests_of_faults_and_hostile_servers_are_counted() {
        let output =
            "test hub::faults::a ... ok\ntest hub::hostile::b ... ok\ntest hub::datasets::c ... ok\n";
        assert!(hub_row(output).unwrap().result.starts_with("2 of 2 tests"));
        hub_row("test hub::datasets::c ... ok\n").unwrap_err();
    }

    #[test]
    fn every_row_is_in_the_table() {
        let workspace = Workspace::of_this_build().unwrap();
        let rows = [Row { claim: "a".into(), measure: "b".into(), result: "c".into() }];
        let text = markdown(&rows, &Provenance::of_this_process(&workspace, SEED), 61.0);
        assert!(text.contains("(1 min 1 s in all)") && text.ends_with("| a | b | c |\n"), "{text}");
    }
}
