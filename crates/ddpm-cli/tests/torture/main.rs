//! Tests of reliability: the program is killed, interrupted, given faulty disks and hostile files.
//!
//! Each test prints a row of the table that `cargo xtask torture` writes: `torture | CLAIM | MEASURE | RESULT`. It is small
//! unless the environment variable `DDPM_TORTURE` is `full`.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bombs;
mod disk;
mod kills;
mod long;
mod merge;
mod same_bits;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command, Output},
    sync::LazyLock,
};

use assert_cmd::cargo::cargo_bin;
use ddpm_data::idx::{encode_images, encode_labels};
use tempfile::TempDir;

const WEIGHTS: &str = "run/model/denoiser/diffusion_pytorch_model.safetensors";
const SIDE: usize = 4;
const IMAGES: usize = 32;
const STEPS: usize = 24;

/// A training of a tiny network, with a checkpoint after each step.
const TRAIN: &[&str] = &[
    "train",
    "--data",
    "data",
    "--network",
    "plain",
    "--set",
    "denoiser.network.width=4",
    "--set",
    "denoiser.network.layers=1",
    "--set",
    "denoiser.network.embedding=2",
    "--checkpoint-every",
    "0",
    "--out-dir",
];

/// The shared library `faults.c`.
static FAULTS: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (new, library) = (folder.join(format!("faults-{}.so", process::id())), folder.join("faults.so"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torture/faults.c");
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let status =
        Command::new(compiler).args(["-shared", "-fPIC", "-o"]).arg(&new).arg(source).arg("-ldl").status();
    assert!(status.unwrap().success());
    fs::rename(new, &library).unwrap();
    library
});

/// A size of a test.
fn size(full: usize, small: usize) -> usize {
    if env::var("DDPM_TORTURE").is_ok_and(|size| size == "full") { full } else { small }
}

/// Numbers below `limit` that spread evenly over it: multiples of the golden ratio.
fn spread(index: usize, limit: usize) -> usize {
    let fraction = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    usize::try_from((fraction * limit as u64) >> 32).unwrap()
}

/// A folder with a data set in `data`. It is in memory if the system has such a folder: a training syncs each checkpoint,
/// which takes long on a disk.
fn folder() -> TempDir {
    let memory = tempfile::tempdir_in("/dev/shm");
    let folder = memory.or_else(|_| tempfile::tempdir()).unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let pixels = (0..IMAGES * SIDE * SIDE).map(|i| if spread(i, 3) == i % 2 { 255 } else { 0 });
    let images = encode_images(SIDE, SIDE, &pixels.collect::<Vec<u8>>()).unwrap();
    fs::write(data.join("train-images-idx3-ubyte"), images).unwrap();
    let labels: Vec<u8> = (0..IMAGES).map(|i| u8::from(i % 2 == 1)).collect();
    fs::write(data.join("train-labels-idx1-ubyte"), encode_labels(&labels).unwrap()).unwrap();
    folder
}

/// The program in a folder. `fault` is a value of `DDPM_FAULT` in `faults.c`, or empty.
fn ddpm(folder: &Path, args: &[&str], fault: &str) -> Command {
    let mut command = Command::new(cargo_bin!("ddpm-cli"));
    command.args(args).current_dir(folder);
    for name in ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"] {
        command.env_remove(name);
    }
    if !fault.is_empty() {
        command.env("LD_PRELOAD", &*FAULTS).env("DDPM_FAULT", fault);
    }
    command
}

/// [`TRAIN`] of [`STEPS`] steps into the folder `run`, with further arguments. It writes five snapshots of averages.
fn train(folder: &Path, more: &[&str], fault: &str) -> Command {
    let own = ["run", "--batch-size", "8", "--epochs", "6", "-v", "--set", "ema_snapshots=5"];
    ddpm(folder, &[TRAIN, &own, more].concat(), fault)
}

/// The files with the results of [`train`]: the weights and the tensors of all snapshots.
fn trained(folder: &Path) -> Vec<Vec<u8>> {
    let snapshots = fs::read_dir(folder.join("run/snapshots")).unwrap();
    let mut paths: Vec<PathBuf> =
        snapshots.map(|entry| entry.unwrap().path().join("state.safetensors")).collect();
    paths.sort();
    paths.push(folder.join(WEIGHTS));
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The standard error of a program that must succeed.
fn success(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

/// What the library `faults.c` reports.
#[derive(Clone, Copy, Debug)]
struct Report {
    /// Memory in kB.
    peak: usize,
    resident: usize,
    open_files: usize,
    /// Calls that write, sync, rename or make a file.
    calls: usize,
}

/// The reports in the standard error of a program.
fn reports(stderr: &str) -> Vec<Report> {
    let report = |line: &str| {
        let mut numbers = line.strip_prefix("report ")?.split(' ').map(|number| number.parse().unwrap());
        let mut next = || numbers.next().unwrap();
        Some(Report { peak: next(), resident: next(), open_files: next(), calls: next() })
    };
    stderr.lines().filter_map(report).collect()
}

/// What [`train`] gives, and the number of its calls.
fn uninterrupted() -> &'static (Vec<Vec<u8>>, usize) {
    static RESULT: LazyLock<(Vec<Vec<u8>>, usize)> = LazyLock::new(|| {
        let folder = folder();
        let stderr = success(&mut train(folder.path(), &[], "report"));
        (trained(folder.path()), reports(&stderr).last().unwrap().calls)
    });
    &RESULT
}

/// Continues a training that was stopped, as its messages advise. Checks that its final weights and its snapshots are equal
/// to those of [`uninterrupted`], and that no temporary file is left.
fn check_resumed(folder: &Path, what: &str) {
    let resume: &[&str] = if folder.join("run/metrics.jsonl").exists() { &["--resume"] } else { &[] };
    success(&mut train(folder, resume, ""));
    assert!(trained(folder) == uninterrupted().0, "{what}");
    assert_eq!(temporary(folder), [""; 0], "{what}");
}

/// The temporary files and folders below a folder.
fn temporary(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with(".tmp-") || name.contains(".old-") {
            found.push(name);
        } else if path.is_dir() {
            found.extend(temporary(&path));
        }
    }
    found
}
