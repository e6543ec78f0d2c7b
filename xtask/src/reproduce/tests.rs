//! Tests of the whole job, with the real `ddpm-cli` on a tiny data set.

use std::fs;

use super::*;
use crate::tests::{json, names, parse, root, started};

const FEW: Counts = Counts { generated: 129, accuracy: 10, test: 4, noise: 2 };

/// Runs `cargo xtask reproduce --source data WORDS` in `root`, after the build.
fn reproduce(root: &Path, words: &[&str]) -> Result<String> {
    let source = root.join("data");
    let arguments = parse(&[&["--source", source.to_str().unwrap()], words].concat())?;
    super::reproduce(&arguments, started(&Workspace::at(root)), FEW)
}

#[test]
fn a_run_writes_pictures_and_everything_that_was_measured() {
    let root = root(true);
    let summary = reproduce(root.path(), &["--quick", "--threads", "2"]).unwrap();
    assert_eq!(
        names(&root.path().join("runs/quick/results")),
        [
            "closest-pairs-ddpm.png",
            "closest-pairs-default.png",
            "denoising-data.gif",
            "loss-data.svg",
            "metrics.json",
            "quality-ddpm.md",
            "quality-ddpm.svg",
            "quality-default.md",
            "quality-default.svg",
            "results-data-no-noise.png",
            "results-data.png",
            "samples-data.png",
        ]
    );
    assert!(!root.path().join("results").exists(), "only MNIST has results there");

    let metrics = json(&root.path().join("runs/quick/results/metrics.json"));
    assert_eq!((&metrics["seed"], &metrics["commit"]), (&1.into(), &Value::Null));
    assert_eq!((&metrics["data"]["train"], &metrics["data"]["source"]), (&130.into(), &"data".into()));
    assert_eq!(metrics["training"]["preset"], "quick");
    assert_eq!(metrics["evaluation"]["no_guidance"]["guidance_scale"], 1.0);
    assert_eq!(metrics["evaluation"]["no_noise"]["samples"], 10);
    assert_eq!(metrics["quality"]["default"]["sampler"], "dpmpp-2m-sde");
    assert_eq!(metrics["likelihood"]["images"], 4);
    assert_eq!(metrics["classifier"]["results"][0]["num_noise"], 2);
    assert_eq!(metrics["files"].as_array().unwrap().len(), 12);
    let phases: Vec<_> = metrics["phases"].as_array().unwrap().iter().map(|it| &it["phase"]).collect();
    assert_eq!((phases.len(), phases[0], phases[1]), (14, &"data".into(), &"train the guide".into()));

    let quality = &metrics["quality"]["default"];
    let number = |pointer: &str| quality.pointer(pointer).unwrap().as_f64().unwrap();
    for part in [
        format!(
            "129 images with the default options, measured with the feature net {}: Fréchet distance {:.2} ({:.2} times the \
             distance of real test images), precision {:.3}, recall {:.3}, class accuracy {:.1} % (real test images: {:.1} %).",
            &quality["features_sha256"].as_str().unwrap()[..12],
            number("/frechet/distance"),
            number("/frechet/ratio"),
            number("/manifold/precision/mean"),
            number("/manifold/recall/mean"),
            100.0 * number("/class_accuracy"),
            100.0 * number("/real_accuracy"),
        ),
        "10 images with --noise none, measured with ".to_owned(),
        "Variational bound of 4 test images with optimal variances: ".to_owned(),
        " of 4 test images, with 2 noise samples for each image.".to_owned(),
        "runs/quick/results/\n".to_owned(),
    ] {
        assert!(summary.contains(&part), "{part} is not in:\n{summary}");
    }
}

#[test]
fn without_labels_nothing_is_measured_by_class() {
    let root = root(false);
    let summary = reproduce(root.path(), &["--quick"]).unwrap();
    let measured: Vec<_> = summary.lines().filter(|line| line.starts_with("129 images with ")).collect();
    assert!(
        measured.len() == 2
            && measured.iter().all(|line| line.contains(", recall 0.") && !line.contains("accuracy"))
    );
    let metrics = json(&root.path().join("runs/quick/results/metrics.json"));
    assert_eq!((&metrics["evaluation"], &metrics["classifier"]), (&serde_json::json!({}), &Value::Null));
    assert_eq!(metrics["quality"].as_object().unwrap().len(), 2);
    assert_eq!(metrics["likelihood"]["images"], 4);
}

#[test]
fn a_failing_command_leaves_the_old_results_and_passes_its_code_on() {
    let root = root(true);
    let results = root.path().join("runs/quick/results");
    fs::create_dir_all(&results).unwrap();
    fs::write(results.join("metrics.json"), "old").unwrap();
    // The error occurs after the phase "data".
    let error = reproduce(root.path(), &["--quick", "--resume"]).unwrap_err();
    let message = format!("{error:#}");
    assert!(message.starts_with("the phase \"train\" failed: `ddpm-cli train --preset quick "), "{message}");
    assert_eq!(process::exit_code(&error), 1.into());
    assert_eq!(names(&results), ["metrics.json"]);
    assert_eq!(fs::read_to_string(results.join("metrics.json")).unwrap(), "old");
}

#[test]
fn only_full_runs_on_mnist_replace_results_of_the_checkout() {
    let workspace = Workspace::at(Path::new("root"));
    for (words, run, results) in [
        (&[][..], "runs/reproduce", "results"),
        (&["--best"], "runs/best", "results/best"),
        (&["--quick"], "runs/quick", "runs/quick/results"),
        (&["--source", "hub"], "runs/reproduce", "results"),
        (&["--source", "hf://datasets/me/digits"], "runs/reproduce", "runs/reproduce/results"),
    ] {
        let arguments: Arguments = parse(words).unwrap();
        assert_eq!(arguments.run_folder(&workspace), Path::new("root").join(run), "{words:?}");
        assert_eq!(arguments.results_folder(&workspace), Path::new("root").join(results), "{words:?}");
    }
}

#[test]
fn install_needs_the_full_run_on_mnist() {
    assert!(parse::<Arguments>(&["--install", "--quick"]).is_err());
    let arguments = parse(&["--install", "--source", "src"]).unwrap();
    let error = run(&arguments, &Workspace::at(root(true).path())).unwrap_err().to_string();
    assert!(error.contains("--source mnist or hub"), "{error}");
}
