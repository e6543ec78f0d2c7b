//! `cargo xtask release-check`: checks the crates as other people get them, from their packages, and writes a table.
//!
//! `packages.rs` packs the crates and unpacks them into a workspace of their own, whose tests `package_tests.rs` runs.
//! `tools.rs` installs the programs of other people that `dependencies.rs` and `api.rs` run.

mod api;
mod dependencies;
mod package_tests;
mod packages;
mod published;
mod tools;

use anyhow::Result;
use clap::ValueEnum;
use ddpm_files::write_atomic;

use crate::machine::Machine;
use crate::phases::{Phases, in_words};
use crate::process;
use crate::rows::{self, Row};
use crate::workspace::Workspace;
use published::Published;

/// Pack the crates, build and test them from their packages, check dependencies, interfaces and features, and write
/// results/packages.md.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Run only this part, and write no table.
    #[arg(long, value_name = "PART")]
    only: Option<Part>,
}

/// The parts, in order.
#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    /// Pack the crates, check size and content of the packages, and compile them with their tests.
    Packages,
    /// Let cargo verify each package alone.
    Verify,
    /// Run the tests of the unpacked packages.
    Tests,
    /// Check licences, sources and versions of all dependencies with cargo-deny.
    Dependencies,
    /// Compare the interfaces with the last tag with cargo-semver-checks.
    Api,
    /// Compile with each feature alone with cargo-hack.
    Features,
}

/// Features that need other hardware or libraries than a compiler; no check and no documentation enables them.
const HARDWARE: [&str; 4] = ["cuda", "cudnn", "metal", "mpi"];

/// The folder of the unpacked packages and of logs, below the root.
const FOLDER: &str = "runs/release";

/// Runs all parts and writes the table, or runs the part of `--only`.
pub(crate) fn run(arguments: &Arguments, workspace: &Workspace) -> Result<()> {
    let commit = workspace.commit();
    let mut phases = Phases::start();
    let published = published::published(workspace)?;
    let is_selected = |part: Part| arguments.only.is_none_or(|only| only == part);
    let mut rows = Vec::new();
    // The tests need the packages, too.
    let packages = if is_selected(Part::Packages) || is_selected(Part::Tests) {
        phases.run("packages", || packages::pack(workspace, &published))?
    } else {
        Vec::new()
    };
    if is_selected(Part::Packages) {
        rows.push(phases.run("packages compile", || packages::compile(workspace, &published))?);
    }
    if is_selected(Part::Verify) {
        rows.push(phases.run("verification by cargo", || packages::verify(workspace, &published))?);
    }
    if is_selected(Part::Tests) {
        rows.extend(phases.run("tests of the packages", || package_tests::run(workspace, &published))?);
    }
    if is_selected(Part::Dependencies) {
        rows.extend(phases.run("dependencies", || dependencies::deny(workspace))?);
    }
    if is_selected(Part::Api) {
        rows.push(phases.run("interfaces", || api::compare(workspace, &published))?);
    }
    if is_selected(Part::Features) {
        rows.push(phases.run("each feature", || dependencies::each_feature(workspace, &published))?);
    }
    let table = [packages::markdown(&packages), rows::markdown("check", &rows)].join("\n");
    if arguments.only.is_some() {
        return process::print(&table);
    }
    let seconds = phases.total_seconds();
    let text = document(&table, commit.as_deref(), seconds);
    write_atomic(&workspace.root().join("results/packages.md"), text.as_bytes())?;
    process::print(&format!("{text}\nDone in {}: results/packages.md", in_words(seconds)))
}

fn document(table: &str, commit: Option<&str>, seconds: f64) -> String {
    format!(
        "# Packages\n\n- Command: `cargo xtask release-check` ({} in all)\n- Version: {}, commit {}\n- Machine: {}\n\n\
         The crates as other people get them: each was packed, unpacked, and compiled and tested with the other packages \
         instead of the folders of this repository. If a check fails, there is no table.\n\n{table}",
        in_words(seconds),
        env!("CARGO_PKG_VERSION"),
        commit.unwrap_or("unknown"),
        Machine::this()
    )
}

/// A row of the table of checks.
fn row(claim: &str, measure: &str, result: impl Into<String>) -> Row {
    Row { claim: claim.to_owned(), measure: measure.to_owned(), result: result.into() }
}

/// The names of the crates as options of cargo, `-p NAME` for each.
fn selection(published: &[Published]) -> impl Iterator<Item = &str> {
    published.iter().flat_map(|published| ["-p", &published.name])
}
