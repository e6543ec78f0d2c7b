//! The job from end to end, with a stand-in for `ddpm-cli` that is a shell script.
#![cfg(unix)]

use std::collections::BTreeSet;
use std::fs;

use super::*;
use crate::tests::{calls, folder, json, names, xtask};

#[test]
fn every_row_is_measured_and_tabled() {
    let root = folder();
    let summary = xtask(root.path(), &["ablate", "--minutes", "4", "--threads", "2"]).unwrap();

    let results = root.path().join("results");
    assert_eq!(names(&results), ["ablation.json", "ablation.md"]);
    let text = fs::read_to_string(results.join("ablation.md")).unwrap();
    assert!(summary.starts_with(&text) && summary.ends_with(": results/ablation.md"), "{summary}");
    for part in [
        "- Seed: 1\n",
        "trained for about 4 min",
        "| `baseline` | `train --preset reproduce`, `eval --guidance 1` | 1.0 | 1 | 0.4000 | 10.25 | 0.971 | 0.269 \
         | 0.900 | 0.84 | 3.500 ± 0.020 |\n",
        "| `whole-image` | `train --preset reproduce --network mlp`, `eval --guidance 1` |",
        "| `original` | `train --preset original --output epsilon --loss epsilon`, `eval --guidance 1` |",
        "| `noise-optimal` | `eval --variances 0.25,0.125` | 10.25 |",
        "| `noise-none` | `eval --noise none` | 10.25 | 0.971 | 0.269 | 0.990 | 0.84 |\n",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    // Of each table, all lines have as many cells.
    for table in text.split("\n\n").filter(|section| section.starts_with('|')) {
        let widths: BTreeSet<_> = table.trim().lines().map(|line| line.matches(" | ").count()).collect();
        assert_eq!(widths.len(), 1, "{table}");
    }

    let json = json(&results.join("ablation.json"));
    let (training, sampling) = (json["training"].as_array().unwrap(), json["sampling"].as_array().unwrap());
    assert_eq!((training.len(), sampling.len()), (TRAINING.len(), SAMPLING.len()));
    assert_eq!(training[0]["evaluation"]["frechet"]["floor"]["distance"], 1.6);
    assert_eq!(json["minutes"], 4.0);
}

#[test]
fn a_model_is_trained_for_as_many_epochs_as_one_foretells() {
    let root = folder();
    // 5000.4 images a second are 20 epochs of 60000 images in four minutes.
    xtask(root.path(), &["ablate", "--minutes", "4", "--only", "loss-v", "--seed", "3"]).unwrap();
    let train = |folder: &str, epochs: u32| {
        format!(
            "train --data mnist --preset reproduce --out runs/ablate/{folder} --seed 3 --loss v_prediction \
             --overwrite --epochs {epochs} --json"
        )
    };
    let eval = "eval --model runs/ablate/loss-v/model --data mnist";
    assert_eq!(
        calls(root.path()),
        [
            train("scratch", 1),
            train("loss-v", 20),
            format!("{eval} --likelihood --images 1000 --seed 3 --json"),
            format!(
                "{eval} --samples 10000 --metrics frechet,manifold,accuracy,memorisation --guidance 1 --seed 3 --json"
            ),
        ]
    );
    assert_eq!(names(&root.path().join("runs/ablate/results")), ["ablation.json", "ablation.md"]);
    assert!(!root.path().join("results").exists(), "a part does not take the place of the whole");
}

#[test]
fn there_is_at_least_one_epoch() {
    let root = folder();
    xtask(root.path(), &["ablate", "--minutes", "0.01", "--only", "baseline"]).unwrap();
    assert!(calls(root.path())[1].contains("--out runs/ablate/baseline --seed 1 --overwrite --epochs 1 "));
}

#[test]
fn the_built_in_model_is_only_sampled() {
    let root = folder();
    let report = xtask(root.path(), &["ablate", "--only", "unipc,interval-5-13"]).unwrap();
    let measure = "eval --data mnist --samples 10000 --metrics frechet,manifold,accuracy,memorisation";
    assert_eq!(
        calls(root.path()),
        [
            format!("{measure} --guidance-interval 5-13 --seed 1 --json"),
            format!("{measure} --sampler unipc --seed 1 --json"),
        ],
        "in the order of the table"
    );
    assert!(!report.contains("## Training"), "{report}");
}

#[test]
fn an_interruption_keeps_the_rows_that_are_done() {
    let root = folder();
    let at = "train --data mnist --preset reproduce --out runs/ablate/patch-7 ";
    fs::write(root.path().join("fail-at"), at).unwrap();
    let error = xtask(root.path(), &["ablate"]).unwrap_err();
    assert!(error.to_string().starts_with("the phase \"train patch-7\""), "{error:#}");
    assert!(!root.path().join("results").exists());

    let done = root.path().join("runs/ablate/results.partial");
    let rows = |folder: &Path| {
        let json = json(&folder.join("ablation.json"));
        let rows =
            json["training"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned());
        rows.collect::<Vec<_>>()
    };
    assert_eq!(
        rows(&done),
        [
            "baseline",
            "whole-image",
            "original-x0",
            "original",
            "loss-sample",
            "loss-v",
            "loss-min-snr",
            "importance-sampling",
            "shift-1",
            "cosine",
            "wider-patches",
        ]
    );
    assert!(fs::read_to_string(done.join("ablation.md")).unwrap().contains("| `cosine` |"));

    fs::remove_file(root.path().join("fail-at")).unwrap();
    xtask(root.path(), &["ablate", "--only", "patch-7"]).unwrap();
    assert_eq!(rows(&root.path().join("runs/ablate/results")), ["patch-7"]);
    assert_eq!(rows(&done).len(), 11, "a part leaves them alone");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let root = folder();
    let refused =
        |words: &[&str]| xtask(root.path(), &[&["ablate"], words].concat()).unwrap_err().to_string();
    assert!(refused(&["--only", "no-such-row"]).contains("baseline"));
    for wrong in ["0", "-1", "nan", "inf", "x"] {
        assert!(refused(&[&format!("--minutes={wrong}")]).contains("a number above 0"), "{wrong}");
    }
    assert!(!root.path().join("calls").exists());
}

#[test]
fn names_are_unique_and_fit_for_folders() {
    let all: BTreeSet<_> = variants::names().collect();
    assert_eq!(all.len(), TRAINING.len() + SAMPLING.len());
    assert!(!all.contains("scratch") && !all.contains("results"));
}
