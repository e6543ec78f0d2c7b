//! `cargo xtask gpu-check --run`: a GPU beside the CPU, and its speed beside PyTorch.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use ddpm_files::write_atomic;

use super::build;
use super::compare::{self, Compared, Devices};
use crate::phases::{Phases, in_words};
use crate::process::{self, Lacking};
use crate::provenance::Provenance;
use crate::python::Environment;
use crate::rows::{Row, printed_rows};
use crate::workspace::Workspace;

/// The folder of the runs and files, below the root.
const FOLDER: &str = "runs/gpu-check/run";

/// Compares and measures, and writes the results if no difference is too large.
pub(super) fn run(workspace: &Workspace, python: Option<&Path>, peer_python: Option<&Path>) -> Result<()> {
    let gpu = gpu("nvidia-smi")?;
    let provenance = Provenance::of_this_process(workspace, 1);
    let mut phases = Phases::start();
    let built = phases.run("build", || build::build(workspace, python))?;
    let folder = workspace.root().join(FOLDER);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let devices = Devices {
        workspace,
        binary: &built.binary,
        device: "cuda",
        data: "mnist",
        folder: FOLDER,
        sampled: 50,
        measured: 2000,
        test_images: 1000,
        // 200 steps.
        batch_size: 300,
    };
    let compared = compare_all(&devices, &mut phases)?;
    let speed = phases.run("speed", || speed(workspace, &built.binary, peer_python))?;
    let text = markdown(&provenance, &phases, &gpu, &compared, &speed);
    write_atomic(&workspace.root().join("results/gpu.md"), text.as_bytes())?;
    process::print(&format!("{text}\nDone in {}: results/gpu.md", in_words(phases.total_seconds())))
}

/// All comparisons. Fails if a difference is too large, after all of them.
pub(super) fn compare_all(devices: &Devices<'_>, phases: &mut Phases) -> Result<Vec<Compared>> {
    let mut compared = phases.run("every sampler", || devices.samplers())?;
    compared.extend(phases.run("training steps", || devices.training())?);
    compared.extend(phases.run("likelihood", || devices.likelihood())?);
    compared.extend(phases.run("feature net", || devices.features())?);
    compared.extend(phases.run("half precision", || devices.half_precision())?);
    check(&compared)?;
    Ok(compared)
}

/// Names every difference that is too large.
pub(super) fn check(compared: &[Compared]) -> Result<()> {
    let wrong: Vec<_> =
        compared.iter().filter_map(|one| one.check().err()).map(|error| error.to_string()).collect();
    ensure!(
        wrong.is_empty(),
        "{} of {} comparisons failed, so results/gpu.md was not written:\n{}\n\n{}",
        wrong.len(),
        compared.len(),
        wrong.join("\n"),
        compare::markdown(compared)
    );
    Ok(())
}

/// The name of the GPU and the version of its driver, from NVIDIA's program for it.
pub(super) fn gpu(program: &str) -> Result<String> {
    let mut query = Command::new(program);
    query.args(["--query-gpu=name,driver_version", "--format=csv,noheader"]).stderr(Stdio::null());
    let shown = process::show(&query);
    let lacking = |found: &str| {
        Lacking(format!(
            "no GPU on this machine: `{shown}` {found}. --run compares an NVIDIA GPU with the CPU; `cargo xtask gpu-check`, \
             --lint and --trace need none"
        ))
    };
    let output = query.output().map_err(|error| lacking(&format!("cannot be started ({error})")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().map(str::trim).find(|line| !line.is_empty()) {
        Some(first) if output.status.success() => Ok(first.to_owned()),
        _ => Err(lacking(&format!("found none ({})", output.status)).into()),
    }
}

/// The speed of the same work here and in PyTorch, on the same GPU.
fn speed(workspace: &Workspace, binary: &Path, python: Option<&Path>) -> Result<Vec<Row>> {
    let environment = Environment {
        root: workspace.root(),
        requirements: "xtask/peer/requirements.txt",
        folder: "runs/peer-venv",
    };
    let mut driver = Command::new(environment.interpreter(python)?);
    driver
        .arg(workspace.root().join("xtask/peer/gpu.py"))
        .arg("--cli")
        .arg(binary)
        .args(["--device", "cuda"]);
    let rows = printed_rows("gpu", &process::run_for_stdout(&mut driver)?);
    ensure!(!rows.is_empty(), "`{}` printed no line `gpu | …`", process::show(&driver));
    Ok(rows)
}

/// The document.
pub(super) fn markdown(
    provenance: &Provenance,
    phases: &Phases,
    gpu: &str,
    compared: &[Compared],
    speed: &[Row],
) -> String {
    let speeds: String = speed
        .iter()
        .map(|Row { claim, measure, result }| format!("| {claim} | {measure} | {result} |\n"))
        .collect();
    format!(
        "# A GPU beside the CPU\n\n{}\n- GPU: {gpu}\n\nThe program is that of `cargo xtask gpu-check`. Each command ran on \
         both devices; if a difference is larger than its tolerance, there is no table.\n\n{}\n\
         ## Speed beside PyTorch, on the same GPU\n\nAs in [benchmark.md](benchmark.md): the same network, the fastest variant \
         of PyTorch, f32.\n\n| work | images/s | beside PyTorch |\n| --- | --- | --- |\n{speeds}",
        provenance.markdown(phases.total_seconds()),
        compare::markdown(compared),
    )
}
