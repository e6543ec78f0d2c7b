//! `cargo xtask bench`: how fast this is, by itself and beside PyTorch.

mod python;
mod report;
mod rounds;
mod server;
#[cfg(test)]
mod tests;
mod usage;
mod whole;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::builder::RangedU64ValueParser;

use crate::phases::Phases;
use crate::process;
use crate::provenance::Provenance;
use crate::staging::Staging;
use crate::workspace::Workspace;

use report::Report;
use server::{Info, Server};
use whole::Whole;

/// Medians of fewer rounds say little.
const FEWEST_ROUNDS: u64 = 5;
/// How long both sides rest before each turn. The threads of PyTorch spin for some milliseconds after theirs.
const PAUSE: Duration = Duration::from_millis(300);
const SEED: u64 = 1;
const SCRIPTS: &str = "xtask/peer";

/// Run the benchmarks, or compare with PyTorch and write results/benchmark.md.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Do the same work here and in PyTorch, in turn, instead of running the benchmarks.
    #[arg(long)]
    peer: bool,
    /// Rounds of which medians are taken, after one that is not counted.
    #[arg(long, value_name = "N", default_value_t = 7, requires = "peer",
        value_parser = RangedU64ValueParser::<usize>::new().range(FEWEST_ROUNDS..))]
    rounds: usize,
    /// Threads of each side.
    #[arg(long, value_name = "N", default_value_t = 2, requires = "peer",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    threads: usize,
    /// Images of sampling jobs: 1000, 10000 and so on up to this number; 1000000 takes a quarter of an hour.
    #[arg(long, value_name = "N", default_value_t = 100_000, requires = "peer",
        value_parser = clap::value_parser!(u64).range(1000..))]
    images: u64,
    /// A Python that has the packages of xtask/peer/requirements.txt; without it, a virtual environment is made
    /// in runs/peer-venv.
    #[arg(long, value_name = "PATH", requires = "peer")]
    python: Option<PathBuf>,
}

/// What is compared.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) cli: PathBuf,
    /// Our side of the rounds.
    pub(crate) server: PathBuf,
    /// The Python that runs the other side.
    pub(crate) python: PathBuf,
}

/// Runs the benchmarks, or compares.
pub(crate) fn run(arguments: &Arguments, workspace: &Workspace) -> Result<()> {
    if !arguments.peer {
        let bench = ["bench", "--locked", "-p", "ddpm-model", "-p", "ddpm-train"];
        return process::run(workspace.cargo().args(bench));
    }
    let provenance = Provenance::of_this_process(workspace, SEED);
    let mut phases = Phases::start();
    let named = arguments.python.as_deref();
    let python = phases.run("Python", || python::ready(named, python::SYSTEM.as_ref(), workspace))?;
    let (cli, server) = phases.run("build", || {
        let cli = workspace.build_cli(&[])?;
        let server = build_server(workspace, &cli)?;
        Ok((cli, server))
    })?;
    let programs = Programs { cli, server, python };
    process::print(&compare(arguments, workspace, &programs, &provenance, PAUSE, phases)?)
}

/// All phases after the build; returns the report, which is also in `results/benchmark.md`.
pub(crate) fn compare(
    arguments: &Arguments,
    workspace: &Workspace,
    programs: &Programs,
    provenance: &Provenance,
    pause: Duration,
    mut phases: Phases,
) -> Result<String> {
    let (root, rounds) = (workspace.root(), arguments.rounds);
    let folder = root.join("runs/bench");
    let mut staging = Staging::new(folder.join("results.partial"))?;
    let (infos, in_turn) = phases.run("in turn", || {
        let start = |command, log| Server::start(command, &folder.join(log));
        let mut ours = start(server_command(root, programs, arguments), "ours.log")?;
        let mut peer = start(peer_command(root, programs, arguments), "peer.log")?;
        let infos = introduce(&mut ours, &mut peer, arguments.threads)?;
        let in_turn = rounds::run(&mut ours, &mut peer, rounds, pause)?;
        ours.finish()?;
        peer.finish()?;
        Ok((infos, in_turn))
    })?;
    let script = |name| python_command(root, programs, arguments, name);
    let whole = Whole { cli: &programs.cli, root, folder: &folder, threads: arguments.threads };
    let report = Report {
        provenance,
        infos: &infos,
        in_turn: &in_turn,
        cold: phases.run("whole process", || whole.cold(script("sample.py"), rounds, pause))?,
        memory: phases.run("memory of training", || whole.training_memory())?,
        scaling: phases.run("scaling", || whole.scaling(arguments.images))?,
    };
    let text = report.markdown();
    std::fs::write(staging.add("benchmark.md", "speed beside PyTorch"), &text)?;
    staging.publish(&root.join("results"))?;
    Ok(text)
}

/// Builds our side of the rounds, which cargo puts beside `cli`.
fn build_server(workspace: &Workspace, cli: &Path) -> Result<PathBuf> {
    let build = ["build", "--release", "--locked", "-p", "ddpm-train", "--example", "bench_server"];
    process::run(workspace.cargo().args(build))?;
    let name = format!("bench_server{}", env::consts::EXE_SUFFIX);
    let server = cli.with_file_name("examples").join(name);
    ensure!(server.is_file(), "cargo built bench_server, but it is not at {}", server.display());
    Ok(server)
}

fn server_command(root: &Path, programs: &Programs, arguments: &Arguments) -> Command {
    let mut command = Command::new(&programs.server);
    let threads = arguments.threads.to_string();
    command.current_dir(root).env("RAYON_NUM_THREADS", &threads).env("CANDLE_NUM_THREADS", threads);
    command
}

fn peer_command(root: &Path, programs: &Programs, arguments: &Arguments) -> Command {
    let mut command = python_command(root, programs, arguments, "peer.py");
    command.env("TORCHINDUCTOR_CACHE_DIR", root.join("runs/peer-cache"));
    // Lest glibc gives the memory of each step back to the system, which costs up to a thousand page faults.
    command.envs([("MALLOC_MMAP_THRESHOLD_", "1073741824"), ("MALLOC_TRIM_THRESHOLD_", "1073741824")]);
    command
}

fn python_command(root: &Path, programs: &Programs, arguments: &Arguments, script: &str) -> Command {
    let mut command = Command::new(&programs.python);
    let threads = arguments.threads.to_string();
    command.current_dir(root).env("OMP_NUM_THREADS", &threads);
    command.arg(Path::new(SCRIPTS).join(script)).args(["--threads", &threads]);
    command
}

/// Asks both sides what they are.
///
/// # Errors
/// One cannot be started, or the two are not of the same network and the same number of threads.
fn introduce(ours: &mut Server, peer: &mut Server, threads: usize) -> Result<[Info; 2]> {
    let infos: [Info; 2] = [ours.ask("info")?, peer.ask("info")?];
    for info in &infos {
        ensure!(
            info.threads == threads,
            "{} computes with {} threads, expected {threads}",
            info.name,
            info.threads
        );
    }
    let [ours, peer] = &infos;
    ensure!(
        ours.parameters == peer.parameters,
        "the network of {} has {} parameters, that of {} has {}",
        ours.name,
        ours.parameters,
        peer.name,
        peer.parameters
    );
    Ok(infos)
}
