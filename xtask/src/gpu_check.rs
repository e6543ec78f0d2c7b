//! `cargo xtask gpu-check`: checks the code for CUDA, most of it without a GPU.
//!
//! `--lint` and `--trace` use a stand-in for NVIDIA's compiler and a pretend driver (`interop/cuda`), and need only a C
//! compiler. Without an option the job compiles and links the program with NVIDIA's own toolkit. `--run` uses a GPU.

mod build;
mod compare;
mod images;
mod native;
mod pretend;
mod run;
mod trace;
mod traces;

use std::path::PathBuf;

use anyhow::Result;

use crate::process;
use crate::workspace::Workspace;

/// Build ddpm-cli for CUDA with NVIDIA's toolkit, from packages of pip, in runs/gpu-check; or one of the other checks.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Check the lints of the code for CUDA and cuDNN, without a toolkit.
    #[arg(long, group = "check")]
    lint: bool,
    /// Sample and train on a pretend GPU, and check the calls of its driver: their threads, streams, number, and what is
    /// read back. Needs Linux and a C compiler.
    #[arg(long, group = "check")]
    trace: bool,
    /// Compare a GPU with the CPU, measure its speed beside PyTorch, and write results/gpu.md. Exit code 2 without a GPU.
    #[arg(long, group = "check")]
    run: bool,
    /// The Python interpreter, with the packages of interop/cuda/requirements.txt [default: a virtual environment in
    /// runs/gpu-check/venv, which the first call creates]
    #[arg(long, value_name = "PATH", conflicts_with_all = ["lint", "trace"])]
    python: Option<PathBuf>,
    /// The Python interpreter of PyTorch, with the packages of xtask/peer/requirements.txt [default: a virtual environment in
    /// runs/peer-venv, which the first call creates]
    #[arg(long, value_name = "PATH", requires = "run")]
    peer_python: Option<PathBuf>,
}

/// Runs the check of an option, or the build.
pub(crate) fn run(arguments: &Arguments, workspace: &Workspace) -> Result<()> {
    if arguments.lint {
        return process::run(&mut pretend::lint_command(workspace));
    }
    if arguments.trace {
        return traces::run(workspace);
    }
    let python = arguments.python.as_deref();
    if arguments.run {
        return run::run(workspace, python, arguments.peer_python.as_deref());
    }
    let built = build::build(workspace, python)?;
    process::print(&built.describe(workspace)?)
}

#[cfg(test)]
mod tests;
