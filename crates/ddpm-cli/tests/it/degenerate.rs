//! Degenerate data sets through every command: a value or a sentence, no NaN and no panic.

use std::{fs, path::Path};

use serde_json::Value;
use tempfile::tempdir;

use crate::{ddpm, fail, json, run, stdout, with_model, write_split};

const SMALL: [&str; 10] = [
    "--set",
    "denoiser.network.width=16",
    "--set",
    "denoiser.network.hidden=16",
    "--set",
    "denoiser.network.local=8",
    "--set",
    "denoiser.network.code=4",
    "--set",
    "denoiser.network.embedding=8",
];

/// A data set in the folder `data`. The grey level of a pixel is a function of its place in the split.
fn write(folder: &Path, sizes: [usize; 2], counts: [usize; 2], level: fn(usize) -> u8, classes: usize) {
    let data = folder.join("data");
    fs::create_dir(&data).unwrap();
    for (split, count) in [("train", counts[0]), ("t10k", counts[1])] {
        let pixels: Vec<u8> = (0..count * sizes[0] * sizes[1]).map(level).collect();
        let labels =
            (classes > 0).then(|| (0..count).map(|image| u8::try_from(image % classes).unwrap()).collect());
        write_split(&data, split, sizes, &pixels, labels);
    }
}

fn noise(place: usize) -> u8 {
    (place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0]
}

/// Runs a command, which must succeed or fail with a sentence. Returns its JSON, if it succeeds.
fn outcome(folder: &Path, args: &[&str]) -> Option<Value> {
    let assert = ddpm(folder, args).arg("--json").assert();
    let output = assert.get_output();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(0) => {}
        Some(1) => {
            assert!(error.contains("error: ") && !error.contains("panicked"), "{args:?}: {error}");
            return None;
        }
        code => panic!("{args:?}: {code:?}, {error}"),
    }
    let text = stdout(&assert);
    assert!(!text.contains("NaN") && !text.contains("inf"), "{args:?}: {text}");
    Some(serde_json::from_str(&text).unwrap())
}

/// Whether two generated images are of one class, and the training images of a class differ.
fn has_diversity(number: &str, level: fn(usize) -> u8, classes: usize) -> bool {
    let is_constant = (0..10).all(|place| level(place) == level(0));
    !is_constant && number.parse::<usize>().unwrap() > classes.max(1)
}

#[test]
fn every_command_gives_a_value_or_a_sentence() {
    for (sizes, counts, level, classes) in [
        ([8, 8], [200, 40], (|_| 0) as fn(usize) -> u8, 0),
        ([8, 8], [200, 40], |_| 255, 2),
        ([1, 1], [200, 40], noise, 2),
        ([1, 1], [40, 12], |_| 7, 3),
        ([64, 1], [200, 40], noise, 0),
        ([8, 8], [200, 40], noise, 1),
        ([8, 8], [1, 1], noise, 1),
        ([1, 64], [2, 2], noise, 2),
    ] {
        let folder = tempdir().unwrap();
        write(folder.path(), sizes, counts, level, classes);
        let run = |args: &[&str]| outcome(folder.path(), args);
        let model = ["--model", "runs/train/model"];
        let data = ["--data", "data"];
        let trained = run(&[&["train", "--epochs", "2"], &data[..], &SMALL].concat()).unwrap();
        assert!(trained["train_loss"].is_number() && trained["test_loss"].is_number(), "{trained}");
        assert!(run(&[&["train-features", "--epochs", "1", "-o", "net"], &data[..]].concat()).is_some());
        assert!(run(&[&["sample", "-n", "10", "-o", "grid.png"], &model[..]].concat()).is_some());
        assert!(run(&[&["data", "-o", "data.png"], &data[..]].concat()).is_some());
        for number in ["130", "20", "3", "1"] {
            let eval = ["eval", "--features", "net", "-n", number, "-o", "measured"];
            let measured = run(&[&eval[..], &model, &data].concat());
            assert_eq!(measured.is_some(), counts[0] >= 10, "{counts:?}");
            let Some(measured) = measured else { continue };
            let sentences: Vec<_> =
                measured["missing"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
            let has = |start: &str| sentences.iter().any(|sentence| sentence.starts_with(start));
            for (metric, is_measured, sentence) in [
                ("/frechet", number == "130" && counts[0] > 128, "There is no Fréchet distance, "),
                ("/kernel", number.len() > 1, "There is no kernel distance, "),
                ("/manifold", number.len() > 1, "There is no precision, recall, density or coverage, "),
                ("/class_accuracy", classes > 1, "There is no class accuracy, "),
                ("/diversity/overall", has_diversity(number, level, classes), "The diversity has no value, "),
                ("/memorisation", true, "There is no distance"),
            ] {
                let found = measured.pointer(metric).unwrap();
                assert_eq!(
                    (found.is_null(), has(sentence)),
                    (!is_measured, !is_measured),
                    "{number}: {metric} in {measured}"
                );
            }
            for file in ["quality.md", "quality.svg"] {
                let text = fs::read_to_string(folder.path().join("measured").join(file)).unwrap();
                assert!(!text.contains("NaN") && !text.contains("inf"), "{file}: {text}");
            }
        }
        let likelihood = run(&[&["likelihood", "-n", "4"], &model[..], &data].concat()).unwrap();
        assert!(likelihood["bound"]["optimal"]["total_bits_per_dim"]["mean"].is_number(), "{likelihood}");
        let classified = run(&[&["classify", "-n", "4", "--num-noise", "20"], &model[..], &data].concat());
        assert_eq!(classified.is_some(), classes > 1);
        let plot = fs::read_to_string(folder.path().join("runs/train/loss.svg")).unwrap();
        assert!(!plot.contains("NaN") && !plot.contains("inf"));
    }
}

#[test]
fn one_image_has_no_interval() {
    let folder = tempdir().unwrap();
    write(folder.path(), [8, 8], [1, 1], noise, 0);
    run(folder.path(), &[&["train", "--epochs", "1", "--data", "data", "-q"], &SMALL[..]].concat());
    let text = stdout(&run(folder.path(), &["likelihood", "--data", "data", "--model", "runs/train/model"]));
    assert!(
        text.contains("fitted on 1 training images") && text.contains("| prior | 0.00001 ± – |"),
        "{text}"
    );
    assert!(!text.contains("inf"), "{text}");
}

#[test]
fn too_few_training_images_are_found_before_sampling() {
    let folder = with_model();
    let data = folder.path().join("few");
    fs::create_dir(&data).unwrap();
    let labels = (0..9).map(|image| image % 3).collect();
    write_split(&data, "train", [8, 8], &crate::pixels(9), Some(labels));
    let args = ["eval", "--model", "model", "--data", "few", "--features", "net", "-v"];
    let error = fail(folder.path(), 1, &args);
    assert!(
        error.contains("number of images of few/train to compare with is 9, expected at least 10"),
        "{error}"
    );
    assert!(!error.contains("sampling:"), "{error}");
}

#[test]
fn a_network_without_memory_for_it_is_refused_with_its_size() {
    let folder = tempdir().unwrap();
    write(folder.path(), [8, 8], [20, 0], noise, 0);
    fs::remove_file(folder.path().join("data/t10k-images-idx3-ubyte")).unwrap();
    let network =
        ["denoiser.network.width=16384", "denoiser.network.hidden=16384", "denoiser.network.blocks=64"];
    let mut args = vec!["train", "--data", "data"];
    for option in network {
        args.extend(["--set", option]);
    }
    let error = fail(folder.path(), 1, &args);
    assert!(
        error.contains("memory for training a network of 34501409968 parameters is 642.6 GiB, expected"),
        "{error}"
    );
}

#[test]
fn a_model_of_another_kind_is_named() {
    let folder = with_model();
    let unet = folder.path().join("unet");
    fs::create_dir(&unet).unwrap();
    fs::write(unet.join("config.json"), r#"{"_class_name": "UNet2DModel", "in_channels": 3}"#).unwrap();
    let error = fail(folder.path(), 1, &["info", "--model", "unet"]);
    assert!(error.contains("`UNet2DModel`") && error.contains("this architecture is not one of"), "{error}");
    let weights = folder.path().join("model").join(crate::WEIGHTS);
    fs::write(weights, "version https://git-lfs.github.com/spec/v1\noid sha256:4\nsize 9\n").unwrap();
    let error = fail(folder.path(), 1, &["info", "--model", "model"]);
    assert!(error.contains("safetensors is a Git LFS pointer") && error.contains("git lfs pull"), "{error}");
    let found = json(folder.path(), &["info"]);
    assert_eq!(found["model"], "built-in");
}
