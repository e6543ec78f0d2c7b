//! `cargo xtask bench`: runs the benchmarks of this workspace, or compares with PyTorch.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use clap::builder::RangedU64ValueParser;

use crate::process;
use crate::provenance::Provenance;
use crate::python::Environment;
use crate::workspace::Workspace;

/// Run the benchmarks, or compare with PyTorch and write results/benchmark.md.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Compare with PyTorch (xtask/peer) instead of running the benchmarks.
    #[arg(long)]
    peer: bool,
    /// The number of rounds, 5 or more, over which medians are taken, after one warm-up round.
    #[arg(long, value_name = "N", default_value_t = 7, requires = "peer",
        value_parser = RangedU64ValueParser::<usize>::new().range(5..))]
    rounds: usize,
    /// The number of threads of each side.
    #[arg(long, value_name = "N", default_value_t = 2, requires = "peer",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    threads: usize,
    /// The Python interpreter, with the packages of xtask/peer/requirements.txt [default: a virtual environment in
    /// runs/peer-venv, which the first call creates]
    #[arg(long, value_name = "PATH", requires = "peer")]
    python: Option<PathBuf>,
}

/// Runs the benchmarks, or starts the comparison in `xtask/peer/bench.py`.
pub(crate) fn run(arguments: &Arguments, workspace: &Workspace) -> Result<()> {
    if !arguments.peer {
        return process::run(workspace.cargo().args("bench --locked -p ddpm-model -p ddpm-train".split(' ')));
    }
    let Provenance { command, version, commit, machine, .. } = Provenance::of_this_process(workspace, 1);
    let commit = commit.as_deref().unwrap_or("unknown");
    let origin =
        format!("- Command: `{command}`\n- Version: {version}, commit {commit}\n- Machine: {machine}");
    let cli = workspace.build_cli(&[])?;
    let environment = Environment {
        root: workspace.root(),
        requirements: "xtask/peer/requirements.txt",
        folder: "runs/peer-venv",
    };
    let python = environment.interpreter(arguments.python.as_deref())?;
    let (folder, out) = (workspace.root().join("runs/bench"), workspace.root().join("results/benchmark.md"));
    let mut driver = Command::new(python);
    driver.arg(workspace.root().join("xtask/peer/bench.py")).args(["--origin", &origin]);
    driver.arg("--cli").arg(cli).arg("--folder").arg(folder).arg("--out").arg(out);
    driver.args(["--threads", &arguments.threads.to_string(), "--rounds", &arguments.rounds.to_string()]);
    // Otherwise glibc returns the memory of each PyTorch step to the system, and the next step has page faults again.
    driver.envs([("MALLOC_MMAP_THRESHOLD_", "1073741824"), ("MALLOC_TRIM_THRESHOLD_", "1073741824")]);
    process::run(&mut driver)
}

#[cfg(test)]
mod tests {
    use super::Arguments;
    use crate::tests::parse;

    #[test]
    fn options_of_the_comparison_need_peer() {
        let parse = parse::<Arguments>;
        assert!(parse(&["--rounds", "9"]).is_err());
        assert!(parse(&["--peer", "--rounds", "4"]).is_err(), "too few for a median");
        assert!(parse(&["--peer", "--threads", "0"]).is_err());
        assert_eq!(parse(&["--peer"]).unwrap().rounds, 7);
    }
}
