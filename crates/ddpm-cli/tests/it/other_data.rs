//! Other data than digits, with unchanged presets: the largest images, the most classes, few pixels, and no labels.

use std::{fs, path::Path};

use tempfile::tempdir;

use crate::{json, run, write_split};

/// Images of bars. The position of the bar shows the class; its brightness varies.
fn write_data(folder: &Path, rows: usize, cols: usize, classes: usize) {
    let data = folder.join("data");
    fs::create_dir(&data).unwrap();
    let number = classes.max(1);
    for (split, count) in [("train", 4 * number.max(16)), ("t10k", 2 * number.max(16))] {
        let pixel = |at: usize| {
            let (image, place) = (at.div_euclid(rows * cols), at % (rows * cols));
            let bar = (place * number.max(2)).div_euclid(rows * cols) == image % number.max(2);
            u8::try_from(if bar { 255 - image % 7 * 9 } else { image % 3 }).unwrap()
        };
        let pixels: Vec<u8> = (0..count * rows * cols).map(pixel).collect();
        let label = |image: usize| u8::try_from(image % classes).unwrap();
        let labels = (classes > 0).then(|| (0..count).map(label).collect());
        write_split(&data, split, [rows, cols], &pixels, labels);
    }
}

/// Trains a feature net, and a model of the preset for one epoch; then samples and evaluates.
fn check(rows: usize, cols: usize, classes: usize, preset: &str) {
    let folder = tempdir().unwrap();
    write_data(folder.path(), rows, cols, classes);
    let at = format!("{rows}x{cols}, {classes} classes, {preset}");
    run(folder.path(), &["train-features", "--data", "data", "--epochs", "1", "-o", "net", "-q"]);
    let train = ["train", "--data", "data", "--preset", preset, "--epochs", "1", "--batch-size", "16"];
    run(folder.path(), &[&train[..], &["--out-dir", "run", "-q"]].concat());
    let model = ["--model", "run/model"];
    let drawn = json(folder.path(), &[&["sample", "-n", "3", "-o", "grid.png"], &model[..]].concat());
    assert_eq!(drawn["images"], 3, "{at}");
    let eval = ["eval", "--data", "data", "--features", "net", "--num-images", "70"];
    let measured = json(folder.path(), &[&eval[..], &model].concat());
    for metric in ["kernel", "manifold", "memorisation"] {
        assert!(measured[metric].is_object(), "{at}: {metric} in {measured}");
    }
    // With one class there is nothing to classify.
    assert_eq!(measured["class_accuracy"].is_number(), classes > 1, "{at}");
    let likelihood = ["likelihood", "--data", "data", "--num-images", "4"];
    let likelihood = json(folder.path(), &[&likelihood[..], &model].concat());
    let bits = likelihood["bound"]["optimal"]["total_bits_per_dim"]["mean"].as_f64().unwrap();
    assert!(bits.is_finite() && bits > 0.0, "{at}: {bits}");
}

#[test]
fn the_largest_images_without_labels() {
    check(64, 64, 0, "best");
}

#[test]
fn the_most_classes() {
    check(20, 31, 62, "best");
    check(9, 64, 62, "original");
}

#[test]
fn one_class_and_few_pixels() {
    check(28, 28, 1, "standard");
    check(1, 1, 2, "best");
    check(3, 1, 0, "quick");
}
