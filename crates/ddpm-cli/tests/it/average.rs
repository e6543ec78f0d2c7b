//! `average`: models of other lengths of the weights' average.

use std::fs;

use ddpm_model::{ModelFiles, read_model};
use tempfile::{TempDir, tempdir};

use crate::{WEIGHTS, fail, json, keys, names, run, stdout, write_data};

/// A folder with a run of 24 steps and 6 snapshots.
fn with_snapshots() -> TempDir {
    let folder = tempdir().unwrap();
    write_data(folder.path(), true);
    let args = ["train", "--data", "data", "--epochs", "4", "--batch-size", "16", "--out-dir", "run", "-q"];
    run(folder.path(), &[&args[..], &["--network", "mlp", "--set", "ema_snapshots=6"]].concat());
    folder
}

#[test]
fn a_model_of_any_length_is_made_from_a_run() {
    let folder = with_snapshots();
    assert_eq!(names(&folder.path().join("run/snapshots")).len(), 6);
    let before = fs::read(folder.path().join("run/model").join(WEIGHTS)).unwrap();
    let average = |length, out| ["average", "run", "--sigma-rel", length, "-o", out];
    let found = json(folder.path(), &average("0.08", "long"));
    assert_eq!(keys(&found), ["error", "model", "parameters", "sigma_rel", "snapshots", "step"]);
    assert_eq!(
        (&found["sigma_rel"], &found["step"], &found["snapshots"]),
        (&0.08.into(), &24.into(), &6.into())
    );
    assert!(found["error"].as_f64().is_some_and(|error| (0.0..0.06).contains(&error)), "{found}");
    assert_eq!(found["model"], "long");
    let text = stdout(&run(folder.path(), &average("0.05", "short")));
    assert!(text.starts_with("short: the average of relative length 0.05 up to step 24, from 6 "), "{text}");

    let model = |name: &str| read_model(&folder.path().join(name), &candle_core::Device::Cpu).unwrap();
    let (long, trained) = (model("long"), model("run/model"));
    assert_eq!(long.config(), trained.config());
    assert_eq!(long.schedule_config(), trained.schedule_config());
    let weights = |name: &str| fs::read(folder.path().join(name).join(WEIGHTS)).unwrap();
    assert!(weights("long") != weights("short") && weights("long") != weights("run/model"));
    assert!(weights("run/model") == before);
    let card = fs::read_to_string(folder.path().join("long/README.md")).unwrap();
    assert!(card.contains("The weights are the average of relative length 0.08"), "{card}");
    assert!(card.contains("| seed | 1 |") && card.contains("8×8 pixels"), "{card}");

    run(folder.path(), &[&average("0.08", "half")[..], &["--dtype", "f16"]].concat());
    assert!(weights("half").len() * 10 < weights("long").len() * 6);
    run(folder.path(), &["sample", "--model", "half", "-n", "2", "-o", "two.png", "-q"]);
    // An average within the training, which replaces the model in its folder.
    run(folder.path(), &[&average("0.08", "half")[..], &["--step", "12"]].concat());
    assert_eq!(weights("half").len(), weights("long").len());
    assert!(weights("half") != weights("long"));
    assert!(ModelFiles::REQUIRED.iter().all(|file| folder.path().join("half").join(file).exists()));
}

#[test]
fn an_average_that_cannot_be_had_is_refused() {
    let folder = with_snapshots();
    let refused = |more: &[&str]| fail(folder.path(), 1, &[&["average", "run", "-o", "out"], more].concat());
    let error = refused(&["--sigma-rel", "0.5"]);
    assert!(error.contains("sigma_rel is 0.5, expected 0.0"), "{error}");
    assert!(error.contains("the lengths that 6 snapshots can represent"), "{error}");
    let error = refused(&["--sigma-rel", "0.1", "--step", "13"]);
    assert!(error.contains("the step of a snapshot, such as 12 or 16"), "{error}");
    let error = fail(folder.path(), 1, &["average", "data", "--sigma-rel", "0.1", "-o", "out"]);
    assert!(error.contains("data/snapshots: no snapshots") && error.contains("ema_snapshots"), "{error}");
    assert!(!folder.path().join("out").exists());
    let error = fail(folder.path(), 1, &["average", "run", "--sigma-rel", "0.1", "-o", "data"]);
    assert!(error.contains("data: cannot write: exists and holds no model"), "{error}");
    let error = fail(folder.path(), 2, &["average", "run", "-o", "out"]);
    assert!(error.contains("--sigma-rel"), "{error}");
}

#[test]
fn a_number_of_snapshots_outside_its_range_is_refused() {
    let folder = tempdir().unwrap();
    write_data(folder.path(), true);
    let args = ["train", "--data", "data", "--batch-size", "16", "--out-dir", "run", "--set"];
    let error = fail(folder.path(), 1, &[&args[..], &["ema_snapshots=1000"]].concat());
    assert!(error.contains("`ema_snapshots` is 1000, expected 0 to 256"), "{error}");
}
