//! `train --config` and `train --print-config`.

use std::fs;

use crate::{WEIGHTS, fail, json, run, stdout, with_model};

const TRAIN: [&str; 6] = ["train", "--data", "data", "-q", "--batch-size", "16"];

#[test]
fn a_run_is_repeated_from_its_own_configuration() {
    let folder = with_model();
    let train = |more: &[&str]| run(folder.path(), &[&TRAIN[..], more].concat());
    train(&["--preset", "guide", "--epochs", "1", "--seed", "5", "--loss", "v_prediction", "-o", "a"]);
    train(&["--config", "a/config.toml", "-o", "b"]);
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(read(&format!("a/model/{WEIGHTS}")) == read(&format!("b/model/{WEIGHTS}")));
    assert_eq!(read("a/config.toml"), read("b/config.toml"));
    // The file also names the data set.
    run(folder.path(), &["train", "--config", "a/config.toml", "-q", "-o", "d"]);
    assert!(read(&format!("a/model/{WEIGHTS}")) == read(&format!("d/model/{WEIGHTS}")));
    // Options of the command line come last, also the seed.
    train(&["--config", "a/config.toml", "--seed", "6", "--set", "ema_decay=0.5", "-o", "c"]);
    let text = String::from_utf8(read("c/config.toml")).unwrap();
    let changed = String::from_utf8(read("a/config.toml")).unwrap();
    let changed =
        changed.replace("\nseed = 5\n", "\nseed = 6\n").replace("ema_decay = 0.999", "ema_decay = 0.5");
    assert_eq!(text, changed.replacen("seed = 5", "seed = 6", 1));
}

#[test]
fn a_printed_preset_is_a_file_for_config_and_a_file_may_name_its_preset() {
    let folder = with_model();
    for preset in ["best", "standard", "original", "quick", "guide"] {
        let text = stdout(&run(folder.path(), &["train", "--print-config", preset]));
        assert!(text.contains("# The number of passes over the training images\nepochs = "), "{text}");
        fs::write(folder.path().join(format!("{preset}.toml")), text).unwrap();
    }
    let losses = |more: &[&str]| {
        let train = [&TRAIN[..], &["--epochs", "1", "--overwrite", "-o", "run"], more].concat();
        let result = json(folder.path(), &train);
        (result["train_loss"].clone(), result["preset"].clone())
    };
    let (guide, preset) = losses(&["--preset", "guide"]);
    assert_eq!(preset, "guide");
    assert_eq!(losses(&["--config", "guide.toml"]), (guide.clone(), "standard".into()));
    fs::write(folder.path().join("short.toml"), "preset = \"guide\"\n[denoiser.network]\nblocks = 2\n")
        .unwrap();
    let (deeper, preset) = losses(&["--config", "short.toml"]);
    assert!(deeper != guide && preset == "guide");
    fs::write(
        folder.path().join("other.toml"),
        "[denoiser]\nnetwork = { type = \"mlp\", width = 8, hidden = 8, blocks = 1, embedding = 4 }\n",
    )
    .unwrap();
    assert!(losses(&["--config", "other.toml"]).0 != deeper);
}

#[test]
fn wrong_files_are_named_with_key_and_nearest_option() {
    let folder = with_model();
    for (text, parts) in [
        (
            "learning_rates = 1e-3",
            &["there is no option `learning_rates`; did you mean `learning_rate`?"][..],
        ),
        ("[denoiser.network]\nhiden = 3", &["`denoiser.network.hiden`", "did you mean `hidden`?"]),
        ("epochs = \"many\"", &["invalid type: string \"many\", expected u64"]),
        ("preset = \"bset\"", &["preset is \"bset\", expected one of best, standard"]),
        ("data = 3", &["data is 3, expected the name of a data set"]),
        ("epochs = ", &["not TOML"]),
        ("epochs = 0", &["`epochs` is 0, expected 1 to 1000000"]),
        ("[denoiser]\nrows = 9", &["8×8", "9"]),
    ] {
        fs::write(folder.path().join("wrong.toml"), text).unwrap();
        let error = fail(folder.path(), 1, &[&TRAIN[..], &["--config", "wrong.toml", "-o", "run"]].concat());
        for part in parts {
            assert!(error.contains(part), "{text}: {error}");
        }
    }
    let error = fail(folder.path(), 1, &[&TRAIN[..], &["--config", "none.toml"]].concat());
    assert!(error.contains("none.toml: cannot read the configuration"), "{error}");
    assert!(!folder.path().join("run").exists());
}
