//! Jobs of this workspace that need more than one command.
//!
//! `cargo xtask reproduce` trains and measures a model and writes `results/`. `cargo xtask experiment` measures a table
//! that a file in `experiments/` describes. `cargo xtask bench` measures speed, alone or beside PyTorch.
//! `cargo xtask fuzz` runs parsers under libFuzzer. `cargo xtask torture` measures the reliability. `cargo xtask interop`
//! checks the files against other programs. `cargo xtask shards` runs the job files of `deploy/`, and
//! `cargo xtask scaling` trains and samples with several processes. `cargo xtask page` uses the page of `serve` in a
//! browser. `cargo xtask gpu-check` checks the code for CUDA, with and without a GPU. `cargo xtask dist` makes an archive.
//! `cargo xtask release-check` checks the crates as others get them. `cargo xtask ci` runs every check. Each job is one
//! file or folder. The jobs start release builds of other crates for all work with tensors.

mod bench;
mod ci;
mod ddpm;
mod dist;
mod experiment;
mod fuzz;
mod gpu_check;
mod install;
mod interop;
mod machine;
mod page;
mod phases;
mod printed;
mod process;
mod provenance;
mod python;
mod release;
mod reproduce;
mod rows;
mod scaling;
mod shards;
mod source;
mod staging;
mod start;
mod torture;
mod workspace;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use workspace::Workspace;

/// The jobs of this workspace: reproduce the results, experiment, measure speed and reliability, check the files against
/// other programs, run the checks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    job: Job,
}

#[derive(Debug, Subcommand)]
enum Job {
    Reproduce(reproduce::Arguments),
    Experiment(experiment::Arguments),
    Bench(bench::Arguments),
    Fuzz(fuzz::Arguments),
    Dist(dist::Arguments),
    Torture(torture::Arguments),
    Interop(interop::Arguments),
    Page(page::Arguments),
    Scaling(scaling::Arguments),
    Shards(shards::Arguments),
    ReleaseCheck(release::Arguments),
    GpuCheck(gpu_check::Arguments),
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
        Job::Experiment(arguments) => experiment::run(arguments, &workspace),
        Job::Bench(arguments) => bench::run(arguments, &workspace),
        Job::Dist(arguments) => dist::run(arguments, &workspace),
        Job::Fuzz(arguments) => fuzz::run(arguments, &workspace),
        Job::Torture(arguments) => torture::run(arguments, &workspace),
        Job::Interop(arguments) => interop::run(arguments, &workspace),
        Job::Page(arguments) => page::run(arguments, &workspace),
        Job::Scaling(arguments) => scaling::run(arguments, &workspace),
        Job::Shards(arguments) => shards::run(arguments, &workspace),
        Job::ReleaseCheck(arguments) => release::run(arguments, &workspace),
        Job::GpuCheck(arguments) => gpu_check::run(arguments, &workspace),
        Job::Ci(arguments) => ci::run(arguments, &workspace),
    }
}
