//! `train` and `data`: their output and their files.

use std::{fs, path::Path};

use candle_core::Device;
use ddpm_model::read_model;
use ddpm_train::Record;
use serde_json::Value;

use crate::{CLASSES, LABELLED, TEST, TRAIN, fail, json, keys, names, run, stdout, with_model};

#[test]
fn data_describes_a_data_set() {
    let folder = with_model();
    let data = json(folder.path(), &["data", "--data", "data"]);
    let expected = [
        "classes",
        "cols",
        "labels",
        "mean",
        "name",
        "revision",
        "rows",
        "source",
        "std",
        "test",
        "test_images_sha256",
        "test_labels_sha256",
        "train",
        "train_images_sha256",
        "train_labels_sha256",
    ];
    assert_eq!(keys(&data), expected);
    assert_eq!((&data["train"], &data["test"]), (&TRAIN.into(), &TEST.into()));
    assert_eq!((&data["rows"], &data["cols"], &data["classes"]), (&8.into(), &8.into(), &CLASSES.into()));
    assert_eq!(
        (&data["name"], &data["source"], &data["revision"]),
        (&"data".into(), &"data".into(), &Value::Null)
    );
    assert_eq!(data["train_images_sha256"].as_str().map(str::len), Some(64));
    let mean = data["mean"].as_f64().unwrap();
    assert!((-0.35..-0.25).contains(&mean), "a third of the pixels is bright: {mean}");
    let text = stdout(&run(folder.path(), &["data", "--data", "data"]));
    assert!(
        text.contains("train_images_sha256") && text.contains("classes") && text.contains("96"),
        "{text}"
    );
}

#[test]
fn data_knows_the_built_in_mnist() {
    let folder = tempfile::tempdir().unwrap();
    let data = json(folder.path(), &["data"]);
    assert_eq!(
        (&data["train"], &data["test"], &data["classes"]),
        (&60_000.into(), &10_000.into(), &10.into())
    );
    assert!(names(folder.path()).is_empty());
}

#[test]
fn train_prints_its_result_as_one_json_object() {
    assert_eq!(LABELLED.stdout.lines().count(), 1, "{}", LABELLED.stdout);
    let result: Value = serde_json::from_str(&LABELLED.stdout).unwrap();
    let expected = [
        "batch_size",
        "epochs",
        "images",
        "images_per_second",
        "model",
        "parameters",
        "preset",
        "seconds",
        "seed",
        "steps",
        "test_loss",
        "train_loss",
        "world_size",
    ];
    assert_eq!(keys(&result), expected);
    assert_eq!(
        (&result["epochs"], &result["steps"], &result["images"]),
        (&2.into(), &12.into(), &192.into())
    );
    assert_eq!((&result["seed"], &result["preset"]), (&1.into(), &"standard".into()));
    assert_eq!(Path::new(result["model"].as_str().unwrap()), Path::new("run").join("model"));
    assert!(result["train_loss"].as_f64().unwrap() > 0.0 && result["test_loss"].as_f64().unwrap() > 0.0);
    // Without a terminal there is an event for each evaluation, and no bar.
    let event: Value = serde_json::from_str(&LABELLED.stderr).unwrap();
    assert_eq!((&event["event"], &event["epoch"], &event["step"]), (&"epoch".into(), &2.into(), &12.into()));
    assert_eq!((&event["train_loss"], &event["test_loss"]), (&result["train_loss"], &result["test_loss"]));
}

#[test]
fn without_json_an_evaluation_is_a_line_of_text_and_quiet_prints_nothing() {
    let folder = with_model();
    let train =
        ["train", "--data", "data", "--epochs", "1", "--batch-size", "16", "--overwrite", "-o", "run"];
    let stderr = |more: &[&str]| {
        let assert = run(folder.path(), &[&train[..], more].concat());
        String::from_utf8(assert.get_output().stderr.clone()).unwrap()
    };
    let text = stderr(&[]);
    assert!(text.starts_with("epoch 1: loss ") && text.lines().count() == 1, "{text}");
    assert_eq!(stderr(&["-q"]), "");
    assert_eq!(stderr(&["-q", "--json"]), "");
}

#[test]
fn train_writes_a_model_a_log_and_previews() {
    let files: Vec<String> =
        LABELLED.files.keys().map(|path| path.to_str().unwrap().replace('\\', "/")).collect();
    let expected = [
        ".lock",
        "config.toml",
        "loss.svg",
        "metrics.jsonl",
        "model/README.md",
        "model/denoiser/config.json",
        "model/denoiser/diffusion_pytorch_model.safetensors",
        "model/model_index.json",
        "model/scheduler/scheduler_config.json",
        "previews/epoch-002.png",
        "tensorboard/events.out.tfevents.00000000",
    ];
    assert_eq!(files, expected);
    let file = |name: &str| &LABELLED.files[Path::new(name)];
    let log = String::from_utf8(file("metrics.jsonl").clone()).unwrap();
    let records: Vec<Record> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.iter().map(Record::step).collect::<Vec<_>>(), [6, 6, 12, 12]);
    assert!(image::load_from_memory(file("previews/epoch-002.png")).unwrap().width() > 200);
    let card = String::from_utf8(file("model/README.md").clone()).unwrap();
    assert!(card.contains("8×8") && card.contains("3 classes") && card.contains("96"), "{card}");
}

/// The plot is 880 pixels wide; the axis of epochs extends from 14 + 76 to 880 − 28.
#[test]
fn the_loss_curve_has_the_points_of_the_log() {
    let file = |name: &str| String::from_utf8(LABELLED.files[Path::new(name)].clone()).unwrap();
    let (svg, log) = (file("loss.svg"), file("metrics.jsonl"));
    assert!(svg.contains("Training on data"));
    let mut tested = Vec::new();
    for line in log.lines() {
        if let Record::Epoch { test_loss: Some(loss), .. } = serde_json::from_str(line).unwrap() {
            tested.push(loss);
        }
    }
    let number = |line: &str, name: &str| -> i32 {
        let (_, rest) = line.split_once(&format!(" {name}=\"")).unwrap();
        rest.split_once('"').unwrap().0.parse().unwrap()
    };
    let points: Vec<[i32; 2]> = svg
        .lines()
        .filter(|line| line.starts_with("<circle"))
        .map(|line| [number(line, "cx"), number(line, "cy")])
        .collect();
    assert_eq!((points.len(), tested.len()), (1, 1), "one for each evaluation: {svg}");
    assert!((points[0][0] - 852).abs() <= 1, "{points:?}");
    let trained = svg.lines().find(|line| line.starts_with("<polyline") && line.contains("#7499BE")).unwrap();
    let (_, line) = trained.split_once("points=\"").unwrap();
    assert_eq!(line.split_once('"').unwrap().0.split_whitespace().count(), 2, "{trained}");
}

#[test]
fn the_model_can_be_read_and_its_description_fits_the_result() {
    let folder = with_model();
    let denoiser = read_model(&folder.path().join("model"), &Device::Cpu).unwrap();
    let config = denoiser.config();
    assert_eq!((config.rows, config.cols, config.num_classes), (8, 8, CLASSES));
    let result: Value = serde_json::from_str(&LABELLED.stdout).unwrap();
    assert_eq!(result["parameters"], config.parameter_count());
    let info = json(folder.path(), &["info", "--model", "model"]);
    let expected = [
        "denoiser",
        "device",
        "features",
        "guide",
        "model",
        "model_sha256",
        "parameters",
        "schedule",
        "version",
    ];
    assert_eq!(keys(&info), expected);
    assert_eq!(info["model_sha256"], denoiser.sha256().unwrap());
    assert_eq!(info["parameters"], config.parameter_count());
    assert_eq!(info["denoiser"], serde_json::to_value(config).unwrap());
    assert_eq!(info["schedule"]["num_train_timesteps"], 20);
    let text = stdout(&run(folder.path(), &["info", "--model", "model"]));
    assert!(text.contains("8×8 pixels, 3 classes") && text.contains("20 timesteps"), "{text}");
}

/// The configuration that `--verbose` prints, from a run that fails before its first step.
fn configured(options: &[&str]) -> String {
    let folder = with_model();
    // The folder is occupied. The program prints the configuration before it checks the folder.
    fs::create_dir_all(folder.path().join("run/checkpoints/step-00000001")).unwrap();
    fail(folder.path(), 1, &[&["train", "--data", "data", "--out-dir", "run", "-v"], options].concat())
}

#[test]
fn options_of_train_change_the_preset() {
    let options = ["--preset", "quick", "--epochs", "7", "--batch-size", "9", "--learning-rate", "0.25"];
    let text =
        configured(&[&options[..], &["--loss", "min_snr", "--parameterization", "v_prediction"]].concat());
    for expected in
        ["epochs: 7", "batch_size: 9", "learning_rate: 0.25", "loss: MinSnr", "parameterization: VPrediction"]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let epochs = ["standard", "quick", "best"].map(|preset| {
        let text = configured(&["--preset", preset]);
        text.lines().find(|line| line.contains("epochs:")).unwrap().to_owned()
    });
    assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2]);
}

#[test]
fn a_network_changes_only_the_architecture_of_a_preset() {
    for preset in ["standard", "best", "original", "quick"] {
        let of_preset = configured(&["--preset", preset]);
        let choices = |text: &str| -> Vec<String> {
            let kept = ["parameterization:", "loss:", "epochs:", "ema_decay:", "learning_rate:"];
            let is_kept = |line: &&str| kept.iter().any(|name| line.trim().starts_with(name));
            text.lines().filter(is_kept).map(str::to_owned).collect()
        };
        assert_eq!(choices(&of_preset).len(), 5, "{of_preset}");
        for (network, name) in [("plain", "Plain {"), ("mlp", "Mlp {"), ("patch-mlp", "PatchMlp {")] {
            let text = configured(&["--preset", preset, "--network", network]);
            assert!(text.contains(name), "{text}");
            assert_eq!(choices(&text), choices(&of_preset), "{preset} {network}");
        }
    }
}

/// The original recipe: the plain network, ε as its output, and the squared error of ε as its loss.
#[test]
fn the_original_recipe_can_be_trained() {
    let text = configured(&["--preset", "original", "--parameterization", "epsilon", "--loss", "epsilon"]);
    for expected in ["Plain {", "loss: Epsilon", "parameterization: Epsilon"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn sixteen_bit_weights_are_half_the_size() {
    let folder = with_model();
    let args = ["train", "--data", "data", "--epochs", "1", "--batch-size", "96", "--dtype", "f16", "-q"];
    run(folder.path(), &[&args[..], &["--out-dir", "half"]].concat());
    let size = |model: &str| fs::metadata(folder.path().join(model).join(crate::WEIGHTS)).unwrap().len();
    let (full, half) = (size("model"), size("half/model"));
    assert!(half * 2 < full + full.div_euclid(100), "{half} and {full}");
    run(folder.path(), &["sample", "--model", "half/model", "-q"]);
}

#[test]
fn any_option_can_be_set_by_its_name() {
    let text = configured(&[
        "--set",
        "ema_decay=0.5",
        "--set",
        "denoiser.network.blocks=3",
        "--set",
        "loss=epsilon",
    ]);
    for expected in ["ema_decay: 0.5", "blocks: 3", "loss: Epsilon"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let original = configured(&["--preset", "original"]);
    assert!(original.contains("Plain") && original.contains("parameterization: Sample"), "{original}");
}

#[test]
fn set_overrides_other_options_and_the_last_value_counts() {
    let twice = configured(&["--epochs", "3", "--set", "epochs=4", "--set", "epochs=5"]);
    assert!(twice.contains("epochs: 5"), "{twice}");
}
