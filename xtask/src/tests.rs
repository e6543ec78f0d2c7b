//! Shared parts of the tests: the real `ddpm-cli`, a tiny data set, and a temporary root folder.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use serde_json::Value;
use tempfile::TempDir;

use crate::install::files;
use crate::phases::Phases;
use crate::provenance::Provenance;
use crate::start::Started;
use crate::workspace::Workspace;

const SIDE: usize = 28;
const CLASSES: usize = 10;

/// The path of `ddpm-cli`, built in the profile of this test.
///
/// `cargo test --workspace` builds it before it runs any test. If this crate is tested alone, the program may be
/// missing or older than its source; then this function builds it.
pub(crate) static CLI: LazyLock<PathBuf> = LazyLock::new(|| {
    let test = env::current_exe().unwrap();
    // .../target/PROFILE/deps/xtask-HASH
    let folder = test.ancestors().nth(2).unwrap();
    let binary = folder.join(format!("ddpm-cli{}", env::consts::EXE_SUFFIX));
    let workspace = Workspace::of_this_build().unwrap();
    if !is_fresh(&binary, workspace.root()) {
        let profile = match folder.file_name().unwrap().to_str().unwrap() {
            "debug" => "dev",
            other => other,
        };
        let status = workspace.cargo().args(["build", "-p", "ddpm-cli", "--profile", profile]).status();
        assert!(status.unwrap().success(), "ddpm-cli cannot be built");
    }
    binary
});

/// Whether the program is newer than its sources and assets. `cargo test` writes no list of them.
fn is_fresh(binary: &Path, root: &Path) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let is_source = |path: &PathBuf| {
        let below = path.strip_prefix(root).unwrap();
        let compiled = ["src", "assets", "data"];
        below.iter().any(|part| compiled.iter().any(|name| part == *name)) && !below.ends_with("tests.rs")
    };
    let mut all = files(&root.join("crates")).unwrap().into_iter().filter(is_source);
    modified(binary).is_ok_and(|built| all.all(|path| modified(&path).unwrap() <= built))
}

/// A root folder with a data set in `data`: ten classes of 28 × 28 pixels, 130 training images and as many test images,
/// enough for a Fréchet distance.
pub(crate) fn root(labelled: bool) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    fs::create_dir(&data).unwrap();
    for (split, count) in [("train", 130), ("t10k", 130)] {
        // A bright bar whose height shows the class, with a little grey noise.
        let pixel = |i: usize| {
            let (image, row) = (i.div_euclid(SIDE * SIDE), i.rem_euclid(SIDE * SIDE).div_euclid(SIDE));
            let grey = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0] & 31;
            if row.div_euclid(2) == image % CLASSES { 220 + grey } else { grey }
        };
        let pixels: Vec<u8> = (0..count * SIDE * SIDE).map(pixel).collect();
        write_idx(&data.join(format!("{split}-images-idx3-ubyte")), 0x803, &[count, SIDE, SIDE], &pixels);
        if labelled {
            let labels: Vec<u8> = (0..count).map(|image| u8::try_from(image % CLASSES).unwrap()).collect();
            write_idx(&data.join(format!("{split}-labels-idx1-ubyte")), 0x801, &[count], &labels);
        }
    }
    root
}

fn write_idx(path: &Path, magic: u32, sizes: &[usize], bytes: &[u8]) {
    let sizes = sizes.iter().map(|&size| u32::try_from(size).unwrap());
    let mut file: Vec<u8> = [magic].into_iter().chain(sizes).flat_map(u32::to_be_bytes).collect();
    file.extend(bytes);
    fs::write(path, file).unwrap();
}

/// The arguments of a job from the words of its command line.
pub(crate) fn parse<A: clap::Args>(words: &[&str]) -> clap::error::Result<A> {
    let command = A::augment_args(clap::Command::new("job").no_binary_name(true));
    A::from_arg_matches(&command.try_get_matches_from(words)?)
}

/// The state of a job after the build.
pub(crate) fn started(workspace: &Workspace) -> Started<'_> {
    Started {
        workspace,
        binary: CLI.clone(),
        provenance: Provenance::of_this_process(workspace, 1),
        phases: Phases::start(),
    }
}

/// Runs `ddpm-cli` in a folder.
pub(crate) fn ddpm(folder: &Path, line: &str) {
    let output = output(folder, line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs `ddpm-cli` in a folder, where it fails, and returns its stderr.
pub(crate) fn ddpm_error(folder: &Path, line: &str) -> String {
    let output = output(folder, line);
    assert!(!output.status.success(), "{line}");
    String::from_utf8(output.stderr).unwrap()
}

fn output(folder: &Path, line: &str) -> Output {
    Command::new(&*CLI).current_dir(folder).args(line.split(' ')).output().unwrap()
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}
