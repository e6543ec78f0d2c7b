//! The jobs of this workspace that take more than one command.
//!
//! `cargo xtask reproduce` makes everything in `results/`, `cargo xtask compare` the comparison of
//! networks and losses there, `cargo xtask ablate` that of models and ways of sampling that differ in one
//! choice, `cargo xtask bench` measures speed, by itself and beside PyTorch, and `cargo xtask ci` runs every
//! check. Each job is one file or folder; all work with tensors is done by release builds of other crates,
//! which all but the last spawn.

mod ablate;
mod bench;
mod ci;
mod compare;
mod compare_report;
mod ddpm;
mod figures;
mod install;
mod machine;
mod phases;
mod process;
mod provenance;
mod reproduce;
mod source;
mod staging;
mod start;
mod workspace;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use workspace::Workspace;

/// The jobs of this workspace: reproduce the results, compare, measure, run the checks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    job: Job,
}

#[derive(Debug, Subcommand)]
enum Job {
    Reproduce(reproduce::Arguments),
    Compare(compare::Arguments),
    Ablate(ablate::Arguments),
    Bench(bench::Arguments),
    Ci(ci::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments.job) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            process::say(&format!("error: {error:#}"));
            process::exit_code(&error)
        }
    }
}

fn run(job: &Job) -> Result<()> {
    let workspace = Workspace::of_this_build()?;
    match job {
        Job::Reproduce(arguments) => reproduce::run(arguments, &workspace),
        Job::Compare(arguments) => compare::run(arguments, &workspace),
        Job::Ablate(arguments) => ablate::run(arguments, &workspace),
        Job::Bench(arguments) => bench::run(arguments, &workspace),
        Job::Ci(arguments) => ci::run(arguments, &workspace),
    }
}
