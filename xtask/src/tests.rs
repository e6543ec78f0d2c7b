//! The jobs from end to end, with a stand-in for `ddpm-cli` that is a shell script.
#![cfg(unix)]

use std::fs;
use std::path::Path;

use anyhow::Result;
use clap::Parser;
use serde_json::Value;
use tempfile::TempDir;

use crate::phases::Phases;
use crate::provenance::Provenance;
use crate::start::Started;
use crate::workspace::Workspace;
use crate::{Arguments, Job, ablate, compare, process, reproduce};

const FAKE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake-ddpm-cli");

/// Runs `cargo xtask WORDS` after the build in the folder `root`.
pub(crate) fn xtask(root: &Path, words: &[&str]) -> Result<String> {
    let arguments = Arguments::try_parse_from([&["xtask"], words].concat())?;
    let workspace = Workspace::at(root);
    let started = Started {
        workspace: &workspace,
        binary: FAKE.into(),
        provenance: Provenance::of_this_process(&workspace, 1),
        phases: Phases::start(),
    };
    match arguments.job {
        Job::Reproduce(it) => reproduce::reproduce(&it, started),
        Job::Compare(it) => compare::compare(&it, started),
        Job::Ablate(it) => ablate::ablate(&it, started),
        Job::Bench(_) | Job::Ci(_) => anyhow::bail!("not one of the jobs tested here"),
    }
}

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub(crate) fn calls(root: &Path) -> Vec<String> {
    fs::read_to_string(root.join("calls")).unwrap().lines().map(String::from).collect()
}

pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_full_run_writes_all_results() {
    let root = folder();
    let summary = xtask(root.path(), &["reproduce", "--threads", "2"]).unwrap();

    let results = root.path().join("results");
    let expected = [
        "closest-pairs-default.png",
        "closest-pairs-varied.png",
        "denoising-MNIST.gif",
        "loss-MNIST.svg",
        "metrics.json",
        "quality-default.md",
        "quality-default.svg",
        "quality-varied.md",
        "quality-varied.svg",
        "results-MNIST-no-noise.png",
        "results-MNIST.png",
    ];
    assert_eq!(names(&results), expected);
    let model = "--model runs/reproduce/model";
    let partial = "-o runs/reproduce/results.partial";
    assert_eq!(
        calls(root.path()),
        [
            "data --data mnist --json".to_owned(),
            "train --data mnist --preset reproduce --out runs/reproduce --seed 1 --threads 2 --dtype f16 --overwrite --json".to_owned(),
            format!("sample {model} --per-class 5 --noise posterior --format png {partial}/results-MNIST.png --seed 1 --threads 2 --json"),
            format!("sample {model} --per-class 5 --noise none --format png {partial}/results-MNIST-no-noise.png --seed 1 --threads 2 --json"),
            format!("sample {model} --per-class 5 --noise posterior --format gif {partial}/denoising-MNIST.gif --seed 1 --threads 2 --json"),
            format!("eval {model} --data mnist --samples 10000 --noise posterior -o runs/reproduce/quality/default --seed 1 --threads 2 --json"),
            format!("eval {model} --data mnist --samples 10000 --sampler dpmpp-2m -o runs/reproduce/quality/varied --seed 1 --threads 2 --json"),
            format!(
                "eval {model} --data mnist --samples 1000 --metrics accuracy --noise posterior --guidance 1 --seed 1 --threads 2 --json"
            ),
            format!("eval {model} --data mnist --samples 1000 --metrics accuracy --noise none --seed 1 --threads 2 --json"),
            format!("eval {model} --data mnist --likelihood --images 1000 --seed 1 --threads 2 --json"),
            format!("eval {model} --data mnist --classifier --images 1000 --draws 20 --seed 1 --threads 2 --json"),
        ]
    );

    let metrics = json(&results.join("metrics.json"));
    assert_eq!(metrics["seed"], 1);
    assert_eq!(metrics["commit"], Value::Null, "not in git");
    assert_eq!(metrics["machine"]["architecture"], std::env::consts::ARCH);
    assert_eq!(metrics["data"]["train"], 60000, "fields without a meaning here are kept");
    assert_eq!(metrics["training"]["parameters"], 1000);
    let evaluation = &metrics["evaluation"];
    assert_eq!(evaluation.as_object().unwrap().len(), 2);
    assert_eq!(
        (&evaluation["no_guidance"]["class_accuracy"], &evaluation["no_guidance"]["samples"]),
        (&0.9.into(), &1000.into())
    );
    assert_eq!(metrics["evaluation"]["no_noise"]["class_accuracy_by_class"][1], Value::Null);
    let phases: Vec<_> = metrics["phases"].as_array().unwrap().iter().map(|p| &p["phase"]).collect();
    assert_eq!(phases.len(), 11);
    assert_eq!(metrics["likelihood"]["bound"]["optimal"]["total_bits_per_dim"]["mean"], 3.5);
    assert_eq!(metrics["classifier"]["results"][0]["accuracy"], 0.95);
    assert_eq!((phases[0], phases[1]), (&"data".into(), &"train".into()));
    assert_eq!(metrics["files"].as_array().unwrap().len(), 11);
    let quality = &metrics["quality"];
    assert_eq!(
        (&quality["varied"]["real_accuracy"], &quality["default"]["samples"]),
        (&0.97.into(), &10000.into())
    );
    assert_eq!(quality["default"]["frechet"]["floor"]["distance"], 1.6, "and so below");

    for part in [
        "training took 1 min 2 s (5000 images/s)",
        "10000 images with --noise posterior, by the feature net 0123456789ab: Fréchet distance 16.36 (10.25 times \
         that of real test images), precision 0.971, recall 0.269, class accuracy 90.0 % (real test images: 97.0 %).",
        "10000 images with --sampler dpmpp-2m",
        "1000 images with --noise posterior --guidance 1, by the feature net 0123456789ab: class accuracy 90.0 %",
        "1000 images with --noise none, by the feature net 0123456789ab: class accuracy 99.0 %",
        "Bound of 1000 test images, bits per dimension: 3.500 ± 0.020 (standard error).",
        "Of 1000 test images it tells 95.0 % by 20 draws.",
        "results/\n",
        "loss-MNIST.svg",
    ] {
        assert!(summary.contains(part), "{part} is not in:\n{summary}");
    }
}

#[test]
fn the_built_in_model_has_results_of_its_own() {
    let root = folder();
    xtask(root.path(), &["reproduce", "--best"]).unwrap();
    assert!(calls(root.path())[1].contains("--preset best --out runs/best"));
    assert!(root.path().join("results/best/results-MNIST.png").exists());
    assert!(!root.path().join("results/metrics.json").exists());
}

#[test]
fn quick_runs_and_other_images_leave_the_results_alone() {
    let root = folder();
    let summary = xtask(root.path(), &["reproduce", "--quick", "--resume", "--seed", "3"]).unwrap();
    assert!(summary.contains("runs/quick/results/"), "{summary}");
    assert!(calls(root.path())[1].contains("--preset quick --out runs/quick --seed 3 --dtype f16 --resume"));
    fs::write(root.path().join("data.json"), r#"{"name":"my digits","classes":null}"#).unwrap();
    let summary = xtask(root.path(), &["reproduce", "--source", "hf://datasets/me/digits"]).unwrap();
    assert!(summary.contains("recall 0.269.\n") && !summary.contains("class accuracy 90.0 %"), "{summary}");
    let images = root.path().join("runs/reproduce/results");
    assert!(names(&images).contains(&"results-my-digits.png".to_owned()));
    assert!(!root.path().join("results").exists());
    let calls = calls(root.path());
    assert!(calls.iter().any(|call| call.contains("--data hf://datasets/me/digits")));
    assert!(calls.iter().any(|call| call.contains("-n 50")), "no classes to draw five of");
    let metrics = json(&images.join("metrics.json"));
    assert_eq!(metrics["evaluation"], serde_json::json!({}));
    assert_eq!(metrics["quality"]["default"]["class_accuracy"], Value::Null);
    assert_eq!(metrics["quality"]["default"]["memorisation"]["ratio"], 0.84);
    assert!(calls.iter().any(|call| call.starts_with("features ")));
}

#[test]
fn other_images_with_labels_are_judged_by_a_feature_net_of_their_own() {
    let root = folder();
    fs::write(root.path().join("data.json"), r#"{"name":"clothes","classes":10,"test":9}"#).unwrap();
    xtask(root.path(), &["reproduce", "--source", "hf://datasets/me/clothes"]).unwrap();
    let calls = calls(root.path());
    let net = "features --data hf://datasets/me/clothes -o runs/reproduce/features --seed 1 --json";
    let at = calls.iter().position(|call| call == net).unwrap();
    assert!(calls[..at].iter().all(|call| !call.starts_with("eval")));
    let (generated, real): (Vec<_>, Vec<_>) =
        calls[at + 1..].iter().partition(|call| call.contains("--features runs/reproduce/features"));
    assert_eq!((generated.len(), real.len()), (4, 2));
    let is_of_real = |call: &&String| call.contains("--likelihood") || call.contains("--classifier");
    assert!(real.iter().all(is_of_real) && !generated.iter().any(is_of_real), "{calls:?}");
}

/// So that no results tell of folders of the machine.
#[test]
fn a_folder_of_images_below_the_root_is_named_from_there() {
    let root = folder();
    let clothes = root.path().join("runs/clothes");
    fs::create_dir_all(&clothes).unwrap();
    fs::write(root.path().join("data.json"), r#"{"name":"clothes","classes":10}"#).unwrap();
    xtask(root.path(), &["reproduce", "--source", clothes.to_str().unwrap()]).unwrap();
    let sources: Vec<_> = calls(root.path()).into_iter().filter(|call| call.contains("--data")).collect();
    assert!(
        sources.len() > 3 && sources.iter().all(|call| call.contains(" --data runs/clothes ")),
        "{sources:?}"
    );
}

#[test]
fn mnist_from_the_hub_writes_the_results_too() {
    let root = folder();
    xtask(root.path(), &["reproduce", "--source", "hub"]).unwrap();
    assert!(root.path().join("results/metrics.json").exists());
    assert!(calls(root.path())[0].contains("--data hf://datasets/ylecun/mnist"));
}

#[test]
fn a_failing_run_leaves_the_old_results_and_passes_its_code_on() {
    let all = ["data", "train", "sample", "eval"];
    for (job, phases) in [("reproduce", &all[..]), ("compare", &all), ("ablate", &["train", "eval"])] {
        for phase in phases {
            let root = folder();
            fs::write(root.path().join("fail-at"), phase).unwrap();
            let results = root.path().join("results");
            fs::create_dir(&results).unwrap();
            fs::write(results.join("metrics.json"), "old").unwrap();

            let error = xtask(root.path(), &[job]).unwrap_err();

            let message = format!("{error:#}");
            assert!(message.starts_with("the phase \""), "{message}");
            assert!(message.contains(&format!("`fake-ddpm-cli {phase}")), "{message}");
            assert!(message.ends_with("exited with code 7"), "{message}");
            assert_eq!(process::exit_code(&error), 7.into());
            assert_eq!(names(&results), ["metrics.json"]);
            assert_eq!(fs::read_to_string(results.join("metrics.json")).unwrap(), "old");
        }
    }
}

#[test]
fn output_that_is_not_as_agreed_is_shown() {
    let root = folder();
    fs::write(root.path().join("data.json"), "MNIST, 60000 images").unwrap();
    let message = format!("{:#}", xtask(root.path(), &["reproduce"]).unwrap_err());
    assert!(
        message.contains("`fake-ddpm-cli data --data mnist --json` printed unexpected JSON: MNIST, 60000"),
        "{message}"
    );
}

#[test]
fn install_needs_the_full_run_on_mnist() {
    let parse = |words: &[&str]| Arguments::try_parse_from([&["xtask", "reproduce"], words].concat());
    assert!(parse(&["--install", "--quick"]).is_err());
    let Job::Reproduce(arguments) = parse(&["--install", "--source", "src"]).unwrap().job else {
        panic!("expected the job reproduce")
    };
    let error = reproduce::run(&arguments, &Workspace::at(folder().path())).unwrap_err().to_string();
    assert!(error.contains("--source mnist or hub"), "{error}");
}

#[test]
fn the_comparison_tables_every_model() {
    let root = folder();
    let report = xtask(root.path(), &["compare", "--epochs", "4"]).unwrap();
    let results = root.path().join("results");
    let models = [
        "mlp-epsilon",
        "mlp-sample",
        "mlp-v_prediction",
        "mlp-loss-min_snr",
        "mlp-loss-v_prediction",
        "mlp-loss-epsilon",
        "mlp-raw-epsilon",
        "mlp-raw-v_prediction",
        "plain-raw-epsilon",
        "plain-sample",
    ];
    assert_eq!(names(&results).len(), models.len() + 2);
    for model in models {
        assert!(results.join(format!("compare-{model}.png")).exists(), "{model}");
    }
    assert!(report.starts_with(&fs::read_to_string(results.join("compare.md")).unwrap()));
    for part in [
        "| mlp | sample | epsilon | min_snr | 90.0 % | 99.0 % | 0.4000 | 62 s |",
        "| plain | epsilon | epsilon | epsilon | 90.0 %",
        "share of 500 generated images",
        "right about 97.0 %",
        "Chance is 10.0 %.",
        "those with the loss `epsilon` can: `mlp` with raw output `sample`",
        "1 epochs, 10 steps of 128 images",
        "![Images of `plain`",
    ] {
        assert!(report.contains(part), "{part} is not in:\n{report}");
    }
    let trainings: Vec<_> = calls(root.path()).into_iter().filter(|call| call.starts_with("train")).collect();
    assert_eq!(
        trainings[3],
        "train --data mnist --preset compare --out runs/compare/mlp-loss-min_snr --seed 1 --network mlp --output sample --prediction epsilon --loss min_snr --overwrite --epochs 4 --json"
    );
    assert!(trainings[8].contains("--network plain --output epsilon --prediction epsilon --loss epsilon"));
    let json = json(&results.join("compare.json"));
    assert_eq!(json["models"][4]["loss"], "v_prediction");
    assert_eq!(json["models"][4]["evaluation_without_noise"]["class_accuracy"], 0.99);
}
