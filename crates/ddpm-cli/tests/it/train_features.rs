//! `train-features`: a feature net for a data set.

use std::fs;

use tempfile::tempdir;

use crate::{CLASSES, TEST, TRAIN, fail, json, keys, names, run, stdout, write_data};

const FEATURES: [&str; 5] = ["train-features", "--data", "data", "-o", "net"];

#[test]
fn a_net_of_classes_is_trained_and_described() {
    let folder = tempdir().unwrap();
    write_data(folder.path(), true);
    let args = [&FEATURES[..], &["--epochs", "60"]].concat();
    let result = json(folder.path(), &args);
    let expected = [
        "accuracy",
        "accuracy_by_class",
        "classes",
        "data",
        "epochs",
        "features",
        "images",
        "seconds",
        "seed",
        "sha256",
        "split",
    ];
    assert_eq!(keys(&result), expected);
    assert_eq!((&result["classes"], &result["images"]), (&CLASSES.into(), &TEST.into()));
    assert_eq!(
        (&result["split"], &result["epochs"], &result["seed"]),
        (&"test".into(), &60.into(), &1.into())
    );
    assert_eq!(result["accuracy"], 1.0, "bars at three heights are told apart");
    let net = folder.path().join("net");
    assert_eq!(names(&net), ["README.md", "config.json", "features.safetensors"]);
    let card = fs::read_to_string(net.join("README.md")).unwrap();
    let digest = result["sha256"].as_str().unwrap();
    for part in [digest, "the 3 classes", "| accuracy on the test images | 1.0000 |", "--epochs 60 --seed 1`"]
    {
        assert!(card.contains(part), "{part}: {card}");
    }
    // The same net replaces the first one, on any number of threads. Another seed gives another net.
    let again = json(folder.path(), &[&args[..], &["--threads", "1"]].concat());
    assert_eq!(again["sha256"], digest);
    let other = json(folder.path(), &[&args[..], &["--seed", "2"]].concat());
    assert_ne!(other["sha256"], digest);
}

#[test]
fn the_text_has_each_class() {
    let folder = tempdir().unwrap();
    write_data(folder.path(), true);
    let result = json(folder.path(), &FEATURES);
    let text = stdout(&run(folder.path(), &FEATURES));
    let accuracy = format!("accuracy {:.4} on 24 test images", result["accuracy"].as_f64().unwrap());
    assert!(text.contains(&accuracy) && text.contains(result["sha256"].as_str().unwrap()), "{text}");
    assert_eq!(text.matches("\n  class ").count(), CLASSES, "{text}");
    assert_eq!(result["epochs"], 10, "as the help says");
}

#[test]
fn without_labels_there_are_flips() {
    let folder = tempdir().unwrap();
    write_data(folder.path(), false);
    let result = json(folder.path(), &FEATURES);
    assert!(result["classes"].is_null());
    assert_eq!(result["accuracy_by_class"].as_array().unwrap().len(), 4);
    let card = fs::read_to_string(folder.path().join("net/README.md")).unwrap();
    assert!(card.contains("four flips") && card.contains("| flip left to right |"), "{card}");
}

#[test]
fn without_a_test_set_the_training_images_are_measured_and_named_so() {
    let folder = tempdir().unwrap();
    write_data(folder.path(), true);
    for file in ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"] {
        fs::remove_file(folder.path().join("data").join(file)).unwrap();
    }
    let result = json(folder.path(), &[&FEATURES[..], &["--epochs", "1"]].concat());
    assert_eq!((&result["split"], &result["images"]), (&"training".into(), &TRAIN.into()));
}

#[test]
fn a_folder_that_holds_something_else_is_left_alone() {
    let folder = tempdir().unwrap();
    write_data(folder.path(), true);
    let error = fail(folder.path(), 1, &["train-features", "--data", "data", "-o", "data"]);
    assert!(error.contains("data: cannot write: exists and holds no feature net"), "{error}");
    assert_eq!(names(&folder.path().join("data")).len(), 4);
    fail(folder.path(), 2, &[&FEATURES[..], &["--epochs", "0"]].concat());
}
