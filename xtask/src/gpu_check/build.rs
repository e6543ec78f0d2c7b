//! A release build of `ddpm-cli` for CUDA, with NVIDIA's toolkit from packages of pip.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

use super::native::{DRIVER, functions, missing, shared_library};
use crate::process;
use crate::python::Environment;
use crate::workspace::Workspace;

/// The folder of the build, below the root.
const FOLDER: &str = "runs/gpu-check";

/// The compute capability of the kernels, unless `CUDA_COMPUTE_CAP` is set. Kernels for 8.0 run on later GPUs too, which
/// compile them when they are loaded; the build would restrict those for 9.0 and later to one architecture.
const COMPUTE_CAP: &str = "80";

/// A program for CUDA.
pub(super) struct Built {
    pub(super) binary: PathBuf,
}

/// Installs the toolkit, and builds the program with it.
pub(super) fn build(workspace: &Workspace, python: Option<&Path>) -> Result<Built> {
    check_programs(python)?;
    let root = workspace.root();
    let environment =
        Environment { root, requirements: "interop/cuda/requirements.txt", folder: "runs/gpu-check/venv" };
    let python = environment.interpreter(python)?;
    let toolkit = toolkit(&python)?;
    let libraries = toolkit.join("lib");
    link_names(&libraries)?;
    // No package has the driver's library. 34 is CUDA_ERROR_STUB_LIBRARY.
    let stub = missing("", &functions(workspace, DRIVER)?, "return 34;");
    shared_library(&stub, "libcuda.so.1", &libraries.join("stubs/libcuda.so"))?;

    let mut cargo = workspace.cargo();
    let line = format!(
        "rustc --release --locked -p ddpm-cli --bin ddpm-cli --features cuda --target-dir {FOLDER}/target -- -C"
    );
    // The program finds NVIDIA's libraries there, and the driver's on the machine.
    let search = format!("link-arg=-Wl,-rpath,{}", libraries.display());
    cargo.args(line.split(' ')).arg(search).envs(environment_of(&toolkit)?);
    if env::var_os("CUDA_COMPUTE_CAP").is_none() {
        cargo.env("CUDA_COMPUTE_CAP", COMPUTE_CAP);
    }
    process::run(&mut cargo)?;
    let name = format!("ddpm-cli{}", env::consts::EXE_SUFFIX);
    let binary = root.join(FOLDER).join("target/release").join(name);
    ensure!(binary.is_file(), "cargo built ddpm-cli, but it is not at {}", binary.display());
    Ok(Built { binary })
}

/// The variables with which the build scripts find the toolkit.
fn environment_of(toolkit: &Path) -> Result<[(&'static str, std::ffi::OsString); 4]> {
    let before = env::var_os("PATH").unwrap_or_default();
    let path = [toolkit.join("bin")].into_iter().chain(env::split_paths(&before));
    let path =
        env::join_paths(path).context("the path of the workspace has a colon, which PATH cannot hold")?;
    let home = || toolkit.as_os_str().to_owned();
    Ok([
        ("PATH", path),
        ("CUDA_HOME", home()),
        ("CUDA_PATH", home()),
        ("NVCC", toolkit.join("bin/nvcc").into()),
    ])
}

/// Names what is missing before anything is downloaded.
fn check_programs(python: Option<&Path>) -> Result<()> {
    ensure!(
        env::consts::OS == "linux",
        "the packages of the toolkit are used on Linux only, and this is {}; install the CUDA toolkit, and build with \
         `cargo build --release -p ddpm-cli --features cuda`",
        env::consts::OS
    );
    let mut needed = vec![("c++", "--version", "a C++ compiler, with which NVIDIA's compiler works")];
    if python.is_none() {
        needed.push((
            "python3",
            "-m venv --help",
            "Python 3 with its module venv, which installs the toolkit",
        ));
    }
    for (program, arguments, purpose) in needed {
        require(program, arguments).with_context(|| format!("`{program}` is missing: install {purpose}"))?;
    }
    Ok(())
}

fn require(program: &str, arguments: &str) -> Result<()> {
    let mut command = Command::new(program);
    process::run(command.args(arguments.split(' ')).stdout(Stdio::null()).stderr(Stdio::null()))
}

/// The folder of the toolkit among the packages of an interpreter.
fn toolkit(python: &Path) -> Result<PathBuf> {
    let print = "import sysconfig; print(sysconfig.get_path('purelib'))";
    let packages = process::run_for_stdout(Command::new(python).args(["-c", print]))?;
    let toolkit = Path::new(packages.trim()).join("nvidia/cu13");
    if !toolkit.join("bin/nvcc").is_file() {
        bail!(
            "{} has no bin/nvcc; expected the packages of interop/cuda/requirements.txt",
            toolkit.display()
        );
    }
    Ok(toolkit)
}

/// Adds the names by which the linker looks for libraries: the packages have those with a version only.
fn link_names(libraries: &Path) -> Result<()> {
    let read = || format!("cannot read {}", libraries.display());
    for entry in fs::read_dir(libraries).with_context(read)? {
        let path = entry.with_context(read)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some((plain, _)) = name.split_once(".so.") else { continue };
        let link = libraries.join(format!("{plain}.so"));
        if !link.exists() {
            fs::hard_link(&path, &link).with_context(|| format!("cannot create {}", link.display()))?;
        }
    }
    Ok(())
}

impl Built {
    /// What was built, and how to start it.
    pub(super) fn describe(&self, workspace: &Workspace) -> Result<String> {
        let bytes = fs::metadata(&self.binary)?.len();
        let binary = self.binary.strip_prefix(workspace.root()).unwrap_or(&self.binary).display();
        Ok(format!(
            "Built {binary} ({} MB) with NVIDIA's compiler and libraries of interop/cuda/requirements.txt, and linked it \
             with a stub of the driver. Nothing ran on a GPU. Where there is one, try\n\n\
             {binary} sample --device cuda\ncargo xtask gpu-check --run",
            bytes.div_euclid(1_000_000)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_missing_is_named() {
        require("true", "--version").unwrap();
        let error = require("no-such-compiler", "--version").unwrap_err().to_string();
        assert!(error.contains("cannot start `no-such-compiler --version`"), "{error}");
        assert!(require("false", "x").is_err());
    }

    #[test]
    fn the_linker_finds_libraries_without_their_version() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["libcublas.so.13", "libcurand.so.10", "notes.txt"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        for _ in 0..2 {
            link_names(folder.path()).unwrap();
            assert_eq!(fs::read_to_string(folder.path().join("libcublas.so")).unwrap(), "libcublas.so.13");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 5);
    }
}
