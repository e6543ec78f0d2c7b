//! Data sets as people have them: incomplete labels, classes without images, several sets in one folder.

use std::fs;

use ddpm_data::idx::{encode_images, encode_labels};
use tempfile::tempdir;

use crate::{SIDE, TEST, TRAIN, fail, json, labels, pixels, run, with_model, write_data, write_split};

/// The standard error of a successful run.
fn stderr(folder: &std::path::Path, args: &[&str]) -> String {
    let assert = run(folder, args);
    String::from_utf8(assert.get_output().stderr.clone()).unwrap()
}

const TRAIN_ARGS: [&str; 6] = ["train", "--data", "data", "--epochs", "1", "-q"];

#[test]
fn without_labels_training_says_that_the_model_has_no_classes() {
    let folder = tempdir().unwrap();
    write_data(folder.path(), false);
    let text = stderr(folder.path(), &TRAIN_ARGS);
    assert!(
        text.contains("the training images of data have no labels, so the model has no classes"),
        "{text}"
    );
}

#[test]
fn training_goes_on_if_only_one_split_has_labels() {
    for (missing, classes) in [("t10k", 3), ("train", 0)] {
        let folder = tempdir().unwrap();
        write_data(folder.path(), true);
        fs::remove_file(folder.path().join(format!("data/{missing}-labels-idx1-ubyte"))).unwrap();
        let assert = run(folder.path(), &[&TRAIN_ARGS[..], &["--json"]].concat());
        let text = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
        assert!(text.contains("have no labels, so there is no test loss"), "{text}");
        let outcome: serde_json::Value = serde_json::from_slice(&assert.get_output().stdout).unwrap();
        assert!(outcome["train_loss"].is_number() && outcome["test_loss"].is_null(), "{outcome}");
        let info = json(folder.path(), &["info", "--model", "runs/train/model"]);
        assert_eq!(info["denoiser"]["num_classes"], classes, "{info}");
    }
}

#[test]
fn classes_without_images_are_neither_sampled_nor_evaluated() {
    let folder = tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    for (split, count) in [("train", TRAIN), ("t10k", TEST)] {
        // The labels are 1, 3 and 5.
        let labels = labels(count).into_iter().map(|label| 2 * label + 1).collect();
        write_split(&data, split, [SIDE, SIDE], &pixels(count), Some(labels));
    }
    let found = json(folder.path(), &["data", "--data", "data"]);
    assert_eq!((&found["classes"], &found["labels"]), (&3.into(), &serde_json::json!([1, 3, 5])));
    let text = stderr(folder.path(), &TRAIN_ARGS);
    assert!(text.contains("from class 0 on, are 1, 3, 5; no image has another label"), "{text}");
    let card = fs::read_to_string(folder.path().join("runs/train/model/README.md")).unwrap();
    assert!(card.contains("| labels of the classes, from class 0 on | 1,3,5 |"), "{card}");
    run(folder.path(), &["train-features", "--data", "data", "--epochs", "2", "-o", "net", "-q"]);
    let model = ["--model", "runs/train/model"];
    let drawn =
        json(folder.path(), &[&["sample", "-o", "grid.png", "--per-class", "2"], &model[..]].concat());
    assert_eq!(drawn["images"], 6);
    let eval = ["eval", "--data", "data", "--features", "net", "-n", "30", "--metrics", "accuracy"];
    let measured = json(folder.path(), &[&eval[..], &model].concat());
    assert_eq!(measured["class_accuracy_by_class"].as_array().unwrap().len(), 3, "{measured}");
    assert!(
        measured["accuracy"]["floor"]["by_class"].as_array().unwrap().iter().all(|part| part.is_number())
    );
}

/// The classes of a model are the labels of a data set that lacks some of them.
#[test]
fn a_model_with_more_classes_than_the_data_has_labels_is_measured() {
    let folder = with_model();
    for (split, count) in [("train", TRAIN), ("t10k", TEST)] {
        let path = |kind: &str| folder.path().join(format!("data/{split}-{kind}"));
        // Every second image, with the labels 0 and 2.
        let kept = (0..count).filter(|image| image % 3 != 1);
        let images = pixels(count);
        let images: Vec<u8> =
            kept.flat_map(|image| images[image * SIDE * SIDE..][..SIDE * SIDE].to_vec()).collect();
        let labels: Vec<u8> = labels(count).into_iter().filter(|label| *label != 1).collect();
        fs::write(path("images-idx3-ubyte"), encode_images(SIDE, SIDE, &images).unwrap()).unwrap();
        fs::write(path("labels-idx1-ubyte"), encode_labels(&labels).unwrap()).unwrap();
    }
    let args = ["classify", "--model", "model", "--data", "data", "--num-noise", "20"];
    let found = json(folder.path(), &args);
    let by_class = found["results"][0]["by_class"].as_array().unwrap();
    let has_images: Vec<bool> = by_class.iter().map(|part| part.is_number()).collect();
    assert_eq!(has_images, [true, false, true], "{found}");
    assert!(!stderr(folder.path(), &args).contains("no image has another label"));
}

#[test]
fn one_of_several_data_sets_is_chosen() {
    let folder = tempdir().unwrap();
    for (name, count) in [("balanced", 4), ("digits", 6)] {
        let pixels = pixels(count);
        write_split(folder.path(), &format!("emnist-{name}-train"), [SIDE, SIDE], &pixels, None);
    }
    let error = fail(folder.path(), 1, &["data", "--data", "."]);
    assert!(error.contains("found several; choose one: ./emnist-balanced, ./emnist-digits"), "{error}");
    let found = json(folder.path(), &["data", "--data", "./emnist-digits"]);
    assert_eq!((&found["name"], &found["train"]), (&"emnist-digits".into(), &6.into()));
    let text = stderr(folder.path(), &["data", "--data", "emnist-digits"]);
    assert!(text.contains("the images of emnist-digits are transposed"), "{text}");
}

#[test]
fn names_that_people_type_are_understood_or_explained() {
    let folder = tempdir().unwrap();
    assert_eq!(json(folder.path(), &["data", "--data", "MNIST"])["train"], 60_000);
    for (data, code, part) in [
        ("https://host/datasets/some/digits/tree/main", 2, "expected hf://datasets/some/digits"),
        ("~/mnist", 1, "`~` in quotes or after `=` is not your home folder"),
        ("some/digits", 1, "hf://datasets/OWNER/NAME"),
    ] {
        let error = fail(folder.path(), code, &["data", "--data", data]);
        assert!(error.contains(part) && !error.contains("os error"), "{error}");
    }
    fs::write(folder.path().join("mnist.npz"), b"PK\x03\x04").unwrap();
    let error = fail(folder.path(), 1, &["data", "--data", "mnist.npz"]);
    assert!(error.contains("mnist.npz is a file, which is a ZIP archive"), "{error}");
}
