//! Integration tests of `ddpm-cli`: each test runs the program.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod average;
mod bench;
mod built_in;
mod classify;
mod config_file;
mod data_as_found;
mod degenerate;
mod doctor;
mod documented;
mod evaluation;
mod exchange;
mod fit_plan;
mod formats;
mod help;
mod hub;
mod images;
mod long_schedule;
mod merge;
mod other_data;
mod output;
mod pictures;
mod recipe;
mod refusals;
mod report;
mod reproducible;
mod resume;
#[cfg(feature = "serve")]
mod serve;
mod shards;
mod shell;
mod tensorboard;
mod train_features;
mod training;
mod unlabelled;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use assert_cmd::{Command, assert::Assert, cargo::cargo_bin};
use ddpm_data::idx::{encode_images, encode_labels};
use serde_json::Value;
use tempfile::{TempDir, tempdir};

const SIDE: usize = 8;
const CLASSES: usize = 3;
const TRAIN: usize = 96;
const TEST: usize = 24;
const WEIGHTS: &str = "denoiser/diffusion_pytorch_model.safetensors";

/// The program in a folder, without the environment variables that change its result and without a network.
fn ddpm(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(cargo_bin!("ddpm-cli"));
    for name in ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS", "HF_ENDPOINT", "HF_TOKEN"] {
        command.env_remove(name);
    }
    command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", folder.join("no-hub"));
    command.current_dir(folder).args(args);
    command
}

/// Runs the program, which must succeed.
fn run(folder: &Path, args: &[&str]) -> Assert {
    ddpm(folder, args).assert().success()
}

/// Runs the program, which must fail with this exit code and print nothing on standard output. Returns its standard
/// error.
fn fail(folder: &Path, code: i32, args: &[&str]) -> String {
    let assert = ddpm(folder, args).assert();
    let error = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert_eq!(assert.get_output().status.code(), Some(code), "{args:?}: {error}");
    assert!(assert.get_output().stdout.is_empty(), "{args:?}");
    error
}

/// The standard output of a run.
fn stdout(assert: &Assert) -> String {
    String::from_utf8(assert.get_output().stdout.clone()).unwrap()
}

/// The one JSON object that a command prints with `--json`.
fn json(folder: &Path, args: &[&str]) -> Value {
    let text = stdout(&run(folder, &[args, &["--json"]].concat()));
    assert_eq!(text.lines().count(), 1, "{text}");
    let value: Value = serde_json::from_str(&text).unwrap();
    assert!(value.is_object(), "{text}");
    value
}

/// The keys of a JSON object, sorted.
fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// Images of three classes: a bright bar at one of three heights, with a little grey noise.
fn pixels(count: usize) -> Vec<u8> {
    let pixel = |i: usize| {
        let (image, row) = (i.div_euclid(SIDE * SIDE), i.rem_euclid(SIDE * SIDE).div_euclid(SIDE));
        let grey = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0] & 31;
        if row.div_euclid(3) == image % CLASSES { 220 + grey } else { grey }
    };
    (0..count * SIDE * SIDE).map(pixel).collect()
}

fn labels(count: usize) -> Vec<u8> {
    (0..count).map(|image| u8::try_from(image % CLASSES).unwrap()).collect()
}

/// A data set in the folder `data`: 96 images to train on and 24 to test on.
fn write_data(folder: &Path, labelled: bool) {
    let data = folder.join("data");
    fs::create_dir(&data).unwrap();
    for (split, count) in [("train", TRAIN), ("t10k", TEST)] {
        write_split(&data, split, [SIDE, SIDE], &pixels(count), labelled.then(|| labels(count)));
    }
}

/// Writes the files of a split, with labels if they are given.
fn write_split(data: &Path, split: &str, [rows, cols]: [usize; 2], pixels: &[u8], labels: Option<Vec<u8>>) {
    let path = |kind: &str| data.join(format!("{split}-{kind}"));
    fs::write(path("images-idx3-ubyte"), encode_images(rows, cols, pixels).unwrap()).unwrap();
    if let Some(labels) = labels {
        fs::write(path("labels-idx1-ubyte"), encode_labels(&labels).unwrap()).unwrap();
    }
}

/// A finished run of two epochs, kept in memory so that no file remains on disk.
struct Trained {
    /// Every file except the checkpoints, by its path in the run folder.
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// A feature net.
    net: BTreeMap<PathBuf, Vec<u8>>,
    stdout: String,
    stderr: String,
}

static LABELLED: LazyLock<Trained> = LazyLock::new(|| Trained::new(true));
static UNLABELLED: LazyLock<Trained> = LazyLock::new(|| Trained::new(false));

impl Trained {
    fn new(labelled: bool) -> Self {
        let folder = tempdir().unwrap();
        write_data(folder.path(), labelled);
        let assert = run(
            folder.path(),
            &["train", "--data", "data", "--epochs", "2", "--batch-size", "16", "--out-dir", "run", "--json"],
        );
        run(folder.path(), &["train-features", "--data", "data", "--epochs", "40", "-o", "net", "-q"]);
        let (mut files, mut net) = (BTreeMap::new(), BTreeMap::new());
        collect(&folder.path().join("run"), Path::new(""), &mut files);
        collect(folder.path(), Path::new("net"), &mut net);
        let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
        Self { files, net, stdout: stdout(&assert), stderr }
    }

    /// A folder that holds the data set as `data`, the trained model as `model` and a feature net as `net`.
    fn folder(&self, labelled: bool) -> TempDir {
        let folder = tempdir().unwrap();
        write_data(folder.path(), labelled);
        for (path, bytes) in self.files.iter().chain(&self.net) {
            if path.starts_with("model") || path.starts_with("net") {
                let path = folder.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
        }
        folder
    }
}

fn collect(root: &Path, below: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for name in names(&root.join(below)) {
        let path = below.join(name);
        if root.join(&path).is_dir() {
            if !path.starts_with("checkpoints") {
                collect(root, &path, files);
            }
        } else {
            files.insert(path.clone(), fs::read(root.join(path)).unwrap());
        }
    }
}

/// A folder with the labelled data set as `data`, a model trained on it as `model`, and a feature net trained on it as
/// `net`.
fn with_model() -> TempDir {
    LABELLED.folder(true)
}

/// The same with the unlabelled data set.
fn with_unlabelled_model() -> TempDir {
    UNLABELLED.folder(false)
}
