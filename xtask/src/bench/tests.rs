//! The comparison from end to end, with shell scripts in place of both sides, of `ddpm-cli` and of Python.
#![cfg(unix)]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use tempfile::TempDir;

use super::rounds::{InTurn, JOBS, Outcome};
use super::server::{Info, Piece, Server};
use super::whole::{Cold, Scale, TrainingMemory};
use super::*;

#[derive(Debug, Parser)]
struct Words {
    #[command(flatten)]
    arguments: Arguments,
}

fn parse(words: &[&str]) -> Result<Arguments> {
    Ok(Words::try_parse_from([&["bench"], words].concat())?.arguments)
}

fn fake(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// A root with the requirements of the peer and both sides of the rounds.
fn root() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join(SCRIPTS)).unwrap();
    let requirements = include_str!("../../peer/requirements.txt");
    fs::write(root.path().join(SCRIPTS).join("requirements.txt"), requirements).unwrap();
    // Links, because a file that was just written may be busy when it is to be started.
    for (name, program) in [("server", "fake-bench-server"), ("python", "fake-python")] {
        std::os::unix::fs::symlink(fake(program), root.path().join(name)).unwrap();
    }
    root
}

fn compare(root: &Path, words: &[&str]) -> Result<String> {
    let (workspace, arguments) = (Workspace::at(root), parse(&[&["--peer"], words].concat())?);
    let programs =
        Programs { cli: fake("fake-ddpm-cli"), server: root.join("server"), python: root.join("python") };
    let provenance = Provenance::of_this_process(&workspace, SEED);
    super::compare(&arguments, &workspace, &programs, &provenance, Duration::ZERO, Phases::start())
}

fn ready(root: &Path, named: Option<&str>, system: &OsStr) -> Result<PathBuf> {
    let named = named.map(|name| root.join(name));
    python::ready(named.as_deref(), system, &Workspace::at(root))
}

fn lines(root: &Path, file: &str) -> Vec<String> {
    fs::read_to_string(root.join(file)).unwrap().lines().map(String::from).collect()
}

#[test]
fn the_comparison_is_written_down() {
    let root = root();
    let report = compare(root.path(), &["--rounds", "5", "--images", "20000"]).unwrap();
    assert_eq!(fs::read_to_string(root.path().join("results/benchmark.md")).unwrap(), report);
    for part in [
        "# Speed beside peer",
        "- peer 1.2.3, 2 threads on each side, f32, the network of 3,783,440 parameters",
        "- Rounds: 5, in each",
        "- Peak: 200 GFLOP/s",
        "| job | images/s | peer | ratio | target | share of the peak | peer | target | |",
        "| training, batch 128 | 6,400 | 5,120 | 1.25 (1.25–1.25) | 1.35 | 80 % | 64 % | 75 % | **missed: ratio** |",
        "| training, batch 512 | 6,400 | 5,120 | 1.25 (1.25–1.25) | 1.15 | 80 % | 64 % | 88 % | **missed: share** |",
        "| sampling 1,000 images, 20 steps | 2,500 | 2,000 | 1.25 (1.25–1.25) | 1.15 | 95 % | 76 % | 90 % | met |",
        "- training, batch 128: **compiled** (compiled 5,200; eager 5,000; autotuned failed (no compiler))",
        "would need 47 MB for weights, gradients, moments and moving average of 1,000 parameters",
        "The target is 1.2 × that + 100 MB = 156 MB.",
        "\n| 1,000 | 2,000 | 5 | ",
        "\n| 10,000 | 20,000 | 5 | ",
        "The lowest speed is 10 % of the highest (target: at least 95 %, **missed**)",
    ] {
        assert!(report.contains(part), "{part} is not in:\n{report}");
    }
    let calls = lines(root.path(), "calls");
    assert_eq!(
        calls[0],
        "sample --seed 1 --threads 2 --classes 0-9 --per-class 5 --quiet --out runs/bench/ours.png"
    );
    assert_eq!(
        calls[6],
        "train --seed 1 --threads 2 --preset quick --epochs 1 --overwrite --json --out runs/bench/train"
    );
    assert_eq!(
        calls[7],
        "sample --seed 1 --threads 2 --number 1000 --guidance 1 --format idx --json --out runs/bench/scaling"
    );
    assert_eq!(calls.len(), 6 + 1 + 2 * 5);
    let python = lines(root.path(), "python-calls");
    assert_eq!(python[0], "python xtask/peer/peer.py --threads 2");
    assert_eq!(python[1], "python xtask/peer/sample.py --threads 2 --out runs/bench/peer.png");
    assert_eq!(python.len(), 1 + 6);
    let left = fs::read_dir(root.path().join("runs/bench")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.contains("scaling") || name.contains("partial")), "{left:?}");
}

#[test]
fn a_side_that_fails_is_named_and_shown_and_the_old_results_stay() {
    for (file, text, expected) in [
        (
            "ours-dies-at",
            "gemm",
            "`server` ended instead of answering `gemm` (exit status: 3); it said:\nours starts\nout of luck",
        ),
        (
            "peer-dies-at",
            "sample-50",
            "`python xtask/peer/peer.py --threads 2` ended instead of answering `sample-50`",
        ),
        (
            "peer-train-128",
            "Traceback, most recent call last\n",
            "answered `train-128` with: Traceback, most recent call last",
        ),
        (
            "peer-train-512",
            r#"{"seconds":0,"images":1,"flops":1}"#,
            "answered `train-512` with 0 s, 1 images",
        ),
        (
            "ours-sample-1",
            r#"{"seconds":1,"images":1,"flops":1}"#,
            "the sides do not do the same in `sample-1`",
        ),
        (
            "peer-info",
            r#"{"name":"it","version":"1","threads":1,"parameters":1}"#,
            "it computes with 1 threads, expected 2",
        ),
        (
            "peer-info",
            r#"{"name":"it","version":"1","threads":2,"parameters":1}"#,
            "the network of ours has 3783440 parameters, that of it has 1",
        ),
        ("fail-at", "train", "the phase \"memory of training\" failed"),
    ] {
        let root = root();
        let results = root.path().join("results");
        fs::create_dir(&results).unwrap();
        fs::write(results.join("benchmark.md"), "old").unwrap();
        fs::write(root.path().join(file), format!("{}\n", text.trim_end())).unwrap();
        let message = format!("{:#}", compare(root.path(), &[]).unwrap_err());
        assert!(message.contains(expected), "{expected} is not in:\n{message}");
        assert_eq!(fs::read_to_string(results.join("benchmark.md")).unwrap(), "old");
    }
}

#[test]
fn a_side_that_is_not_there_is_named() {
    let root = root();
    let error = Server::start(Command::new("/nowhere/server"), &root.path().join("log")).unwrap_err();
    assert!(error.to_string().contains("cannot start `server`"), "{error}");
}

#[test]
fn a_virtual_environment_is_made_once() {
    let root = root();
    let system = fake("fake-python");
    let python = ready(root.path(), None, system.as_os_str()).unwrap();
    assert_eq!(python, root.path().join("runs/peer-venv/bin/python"));
    let install = "python -m pip install -r xtask/peer/requirements.txt";
    let calls = lines(root.path(), "python-calls");
    assert_eq!(calls[..2], ["fake-python -m venv runs/peer-venv", install]);
    assert!(calls[2].starts_with("python -c import json"), "{}", calls[2]);

    ready(root.path(), None, system.as_os_str()).unwrap();
    assert_eq!(lines(root.path(), "python-calls").len(), 4, "only the versions are looked at again");

    let requirements = root.path().join(SCRIPTS).join("requirements.txt");
    fs::write(&requirements, fs::read_to_string(&requirements).unwrap() + "\n# other versions\n").unwrap();
    ready(root.path(), None, system.as_os_str()).unwrap();
    assert_eq!(lines(root.path(), "python-calls")[5], install);
}

#[test]
fn a_failed_installation_is_not_taken_for_one() {
    let root = root();
    fs::write(root.path().join("pip-fails"), "").unwrap();
    let message = format!("{:#}", ready(root.path(), None, fake("fake-python").as_os_str()).unwrap_err());
    assert!(message.contains("--python PATH") && message.contains("`python -m pip install"), "{message}");
    fs::remove_file(root.path().join("pip-fails")).unwrap();
    ready(root.path(), None, fake("fake-python").as_os_str()).unwrap();
}

#[test]
fn a_python_without_the_packages_is_refused() {
    let root = root();
    ready(root.path(), Some("python"), "unused".as_ref()).unwrap();
    let versions = r#"{"numpy":"2.3.0","pillow":"13.0.0","safetensors":"0.8.0","torch":null}"#;
    fs::write(root.path().join("versions.json"), versions).unwrap();
    let message = ready(root.path(), Some("python"), "unused".as_ref()).unwrap_err().to_string();
    assert!(
        message.contains("does not have numpy 2.4.6 (found 2.3.0), torch 2.15.0 (not installed); `"),
        "{message}"
    );
    assert!(message.contains("-m pip install -r xtask/peer/requirements.txt`"), "{message}");
}

#[test]
fn a_missing_python_is_told() {
    let root = root();
    let message = format!("{:#}", ready(root.path(), None, "no-such-python".as_ref()).unwrap_err());
    assert!(
        message.contains("--python PATH") && message.contains("cannot start `no-such-python -m venv"),
        "{message}"
    );
    let message = format!("{:#}", ready(root.path(), Some("nowhere"), "unused".as_ref()).unwrap_err());
    assert!(message.contains("nowhere is no usable Python"), "{message}");
}

#[test]
fn options_of_the_comparison_need_it() {
    assert!(parse(&["--rounds", "9"]).is_err());
    assert!(parse(&["--peer", "--rounds", "4"]).is_err(), "too few for a median");
    assert!(parse(&["--peer", "--images", "999"]).is_err());
    assert_eq!(parse(&["--peer"]).unwrap().rounds, 7);
}

/// A report whose figures are just as good as they have to be, or a little worse.
fn report(worse: bool) -> String {
    let (less, more) = if worse { (0.99, 1.01) } else { (1.0, 1.0) };
    let piece = |images: f64, flops: f64| -> Piece {
        serde_json::from_value(serde_json::json!({ "seconds": 1.0, "images": images, "flops": flops }))
            .unwrap()
    };
    let outcome = |job: &'static rounds::Job| {
        let ours = vec![piece(1000.0 * job.ratio * less, 1e9 * job.share.unwrap_or(0.1) * less); 5];
        Outcome { job, ours, peer: vec![piece(1000.0, 1e8); 5] }
    };
    let bystanders = Some(if worse { 0.031 } else { 0.029 });
    let in_turn = InTurn { outcomes: JOBS.iter().map(outcome).collect(), peak: 1e9, bystanders };
    let info =
        |name: &str| Info { name: name.to_owned(), version: "1".to_owned(), threads: 2, parameters: 1 };
    let scale = |images: u64, speed: f64, memory: f64| {
        let peak = format!("{:.0}", memory * 1e8).parse().ok();
        Scale { images, images_per_second: vec![speed; 5], peak }
    };
    let report = Report {
        provenance: &Provenance::of_this_process(&Workspace::at(root().path()), SEED),
        infos: &[info("ddpm"), info("PyTorch")],
        in_turn: &in_turn,
        cold: Cold { ours: vec![0.3 * more; 5], peer: vec![3.0; 5] },
        // 1.2 · (20 · 1e6 + 47.04e6) + 100e6
        memory: TrainingMemory {
            peak: Some(if worse { 180_448_001 } else { 180_448_000 }),
            parameters: 1_000_000,
        },
        scaling: vec![scale(1000, 2000.0, 1.0), scale(10_000, 1900.0 * less, 1.1 * more)],
    };
    report.markdown()
}

#[test]
fn targets_are_met_exactly() {
    let text = report(false);
    assert!(!text.contains("missed") && !text.contains("too much"), "{text}");
    let text = report(true);
    assert_eq!(text.matches("**missed: ratio, share**").count(), 3, "{text}");
    assert_eq!(text.matches("**missed: ratio**").count(), 2, "{text}");
    // Both of the cold start, memory, and both of scaling.
    assert_eq!(text.matches("**missed**").count(), 5, "{text}");
    assert!(text.contains("3.1 %, **too much to trust the ratios**"), "{text}");
}

#[test]
fn what_was_not_measured_is_said() {
    let text = {
        let root = root();
        let workspace = Workspace::at(root.path());
        let info = Info { name: "PyTorch".into(), version: "1".into(), threads: 2, parameters: 1 };
        let report = Report {
            provenance: &Provenance::of_this_process(&workspace, SEED),
            infos: &[info.clone(), info],
            in_turn: &InTurn { outcomes: Vec::new(), peak: 1e9, bystanders: None },
            cold: Cold { ours: vec![0.1], peer: vec![2.0] },
            memory: TrainingMemory { peak: None, parameters: 1 },
            scaling: vec![Scale { images: 1000, images_per_second: vec![1.0], peak: None }],
        };
        report.markdown()
    };
    for part in ["pauses: not measured", "It was not measured on this system.", "| 1 | not measured |"] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}
