//! Data sets without labels, and models without classes.

use std::{fs, path::Path};

use safetensors::SafeTensors;

use crate::{UNLABELLED, fail, json, run, with_model, with_unlabelled_model};

#[test]
fn data_without_labels_has_no_classes() {
    let folder = with_unlabelled_model();
    let data = json(folder.path(), &["data", "--data", "data", "-o", "data.png"]);
    assert!(data["classes"].is_null() && data["train_labels_sha256"].is_null());
    assert_eq!(data["train"], 96);
    // Fifty images, eight in a row.
    let picture = image::open(folder.path().join("data.png")).unwrap();
    assert_eq!((picture.width(), picture.height()), (24 + 8 * 88 + 7 * 4, 24 + 7 * 88 + 6 * 4));
}

#[test]
fn a_model_without_classes_is_trained_and_sampled_to_a_plain_grid() {
    let folder = with_unlabelled_model();
    let info = json(folder.path(), &["info", "--model", "model"]);
    assert_eq!(info["denoiser"]["num_classes"], 0);
    let result = json(folder.path(), &["sample", "--model", "model", "-o", "grid.png"]);
    assert_eq!(result["images"], 50);
    let picture = image::open(folder.path().join("grid.png")).unwrap().into_luma8();
    assert_eq!(picture.dimensions(), (24 + 8 * 88 + 7 * 4, 24 + 7 * 88 + 6 * 4));
    // The first tile starts at the upper margin, where a label would otherwise be.
    let sample = ["sample", "--model", "model", "-n", "1", "--format", "idx", "-o", "first"];
    run(folder.path(), &sample);
    let first = fs::read(folder.path().join("first-images-idx3-ubyte")).unwrap();
    let shown = |x: u32, y: u32| picture.get_pixel(12 + 11 * x, 12 + 11 * y).0[0];
    assert!(
        (0..8).flat_map(|y| (0..8).map(move |x| (x, y))).map(|(x, y)| shown(x, y)).eq(first[16..].to_vec())
    );
    // There is no 51st image.
    let last = |x: u32, y: u32| picture.get_pixel(12 + 2 * 92 + x, 12 + 6 * 92 + y).0[0];
    assert!((0..88).all(|x| (0..88).all(|y| last(x, y) == 255)));
}

#[test]
fn its_model_card_does_not_mention_classes() {
    let card = &UNLABELLED.files[Path::new("model/README.md")];
    let card = String::from_utf8(card.clone()).unwrap();
    assert!(!card.contains("class-conditional") && !card.contains("0 classes"), "{card}");
}

#[test]
fn its_files_have_no_labels() {
    let folder = with_unlabelled_model();
    let sample = ["sample", "--model", "model", "-n", "3", "--format"];
    let result = json(folder.path(), &[&sample[..], &["idx", "-o", "out"]].concat());
    assert_eq!(result["files"], serde_json::json!(["out-images-idx3-ubyte", "out-recipe.json"]));
    assert!(!folder.path().join("out-labels-idx1-ubyte").exists());
    run(folder.path(), &[&sample[..], &["safetensors", "-o", "out.safetensors"]].concat());
    let bytes = fs::read(folder.path().join("out.safetensors")).unwrap();
    assert_eq!(SafeTensors::deserialize(&bytes).unwrap().names(), ["images"]);
    run(folder.path(), &[&sample[..], &["gif", "-o", "out.gif"]].concat());
    assert_eq!(image::open(folder.path().join("out.gif")).unwrap().width(), 24 + 2 * 56 + 4);
}

#[test]
fn guidance_needs_classes() {
    let folder = with_unlabelled_model();
    let error = fail(folder.path(), 1, &["sample", "--model", "model", "--guidance-scale", "2"]);
    assert!(error.contains("guidance 2") && error.contains("no classes"), "{error}");
}

#[test]
fn classes_are_refused_for_a_model_without_classes() {
    let folder = with_unlabelled_model();
    let error = fail(folder.path(), 1, &["sample", "--model", "model", "--classes", "1"]);
    assert!(error.contains("no classes"), "{error}");
}

/// The checkpoint names the training data; a labelled set is different data.
#[test]
fn a_run_without_labels_is_not_resumed_with_labels() {
    let (folder, labelled) = (with_unlabelled_model(), with_model());
    let args = ["train", "--epochs", "1", "--batch-size", "96", "--out-dir", "run", "-q"];
    run(folder.path(), &[&args[..], &["--data", "data"]].concat());
    let other = labelled.path().join("data").display().to_string();
    let error = fail(folder.path(), 1, &[&args[..], &["--resume", "--data", &other]].concat());
    assert!(error.contains("training labels") && error.contains("none"), "{error}");
}
