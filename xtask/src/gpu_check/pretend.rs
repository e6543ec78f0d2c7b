//! A program for CUDA that no toolkit made: with empty kernels, for a pretend driver.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use super::native::{LIBRARIES, functions, missing, shared_library};
use crate::process;
use crate::workspace::Workspace;

/// The compute capability of the stand-in's kernels. No GPU has it, so a real build in the same target folder takes none of
/// the empty kernels for its own.
const NO_GPU: &str = "81";

/// The pretend driver in the form of the linker.
const LIBRARY: &str = "libddpm-pretend-cuda.so";

/// A build of `ddpm-cli` with the features `cuda`, and the folder of the pretend driver.
pub(super) struct Pretend {
    pub(super) binary: PathBuf,
    libraries: PathBuf,
}

/// Sets the variables that make the build scripts of candle-kernels and cudarc use the stand-in.
fn with_stand_in<'a>(cargo: &'a mut Command, root: &Path) -> &'a mut Command {
    cargo
        .env("NVCC", root.join("interop/cuda/nvcc"))
        .env("CUDA_COMPUTE_CAP", NO_GPU)
        .env("CUDARC_CUDA_VERSION", "13000")
}

/// The lints of the code for CUDA. The feature cudnn includes cuda.
pub(super) fn lint_command(workspace: &Workspace) -> Command {
    let mut cargo = workspace.cargo();
    let line = "clippy -p ddpm-cli --features cudnn --all-targets --locked -- -D warnings";
    with_stand_in(cargo.args(line.split(' ')), workspace.root());
    cargo
}

impl Pretend {
    /// Builds the driver and the program in `target/pretend-cuda`, apart from the programs of other builds.
    pub(super) fn build(workspace: &Workspace) -> Result<Self> {
        ensure!(
            env::consts::OS == "linux",
            "the pretend driver is for Linux, and this is {}",
            env::consts::OS
        );
        let root = workspace.root();
        let folder = root.join("target/pretend-cuda");
        let libraries = folder.join("toolkit/lib");
        build_driver(workspace, &libraries)?;
        let mut cargo = workspace.cargo();
        // The pretend toolkit lacks the kernels for quantised tensors, which the program never calls.
        let line = "rustc --locked -p ddpm-cli --bin ddpm-cli --features cuda --target-dir target/pretend-cuda -- \
            -C link-arg=-Wl,--unresolved-symbols=ignore-all";
        with_stand_in(cargo.args(line.split(' ')), root).env("CUDA_HOME", folder.join("toolkit"));
        process::run(&mut cargo)?;
        Ok(Self { binary: folder.join("debug/ddpm-cli"), libraries })
    }

    /// A command of the program that writes the calls of the driver to `log`.
    pub(super) fn command(&self, root: &Path, line: &str, log: &Path) -> Command {
        let mut command = Command::new(&self.binary);
        command.current_dir(root).args(line.split(' ')).env("CUDA_TRACE", log);
        command.env("LD_LIBRARY_PATH", &self.libraries);
        command
    }
}

/// Compiles the pretend driver, under the names of all libraries that the program is linked with.
fn build_driver(workspace: &Workspace, folder: &Path) -> Result<()> {
    let path = workspace.root().join("interop/cuda/driver.c");
    let mut source = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    for library in LIBRARIES {
        let names = functions(workspace, library)?;
        source += &missing(&source, &names, "return pretend(\"NAME\");");
    }
    shared_library(&source, LIBRARY, &folder.join(LIBRARY))?;
    // The kernels, which are empty, would need the last two.
    for name in ["cuda", "cublas", "cublasLt", "curand", "nvrtc", "cudart", "stdc++"] {
        let copy = folder.join(format!("lib{name}.so"));
        fs::copy(folder.join(LIBRARY), &copy).with_context(|| format!("cannot write {}", copy.display()))?;
    }
    Ok(())
}
