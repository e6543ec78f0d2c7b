//! The order of checkpoints, and the order of writing the log and a checkpoint.

use ddpm_data::{Dataset, Images};
use ddpm_model::{DenoiserConfig, Network, encode_json};
use tempfile::tempdir;

use super::*;
use crate::{Preset, TrainConfig, run::Sum, state_folder::STATE};

fn data() -> Dataset {
    let pixels = (0..8 * 16).collect();
    Dataset::new("tiny", Images::new("images", 4, 4, pixels).unwrap(), None).unwrap()
}

fn config(data: &Dataset) -> TrainConfig {
    let preset = TrainConfig::preset(Preset::Quick, data);
    let network = Network::Plain { width: 8, layers: 1, embedding: 8 };
    TrainConfig { batch_size: 4, denoiser: DenoiserConfig { network, ..preset.denoiser }, ..preset }
}

fn progress(config: TrainConfig) -> Progress {
    let (since_log, since_epoch) = (Sum::default(), Sum::default());
    let (images_sha256, labels_sha256) = (String::new(), None);
    let (step, seconds, world_size, initial_sha256) = (0, 0.0, 1, None);
    Progress {
        step,
        seconds,
        world_size,
        images_sha256,
        labels_sha256,
        initial_sha256,
        config,
        since_log,
        since_epoch,
    }
}

#[test]
fn checkpoints_are_in_the_order_of_their_steps() {
    let folder = tempdir().unwrap();
    let steps = ["step-00000009", "step-00000010", "step-99999999", "step-100000000", "step-2000000000"];
    let others = [
        "step-",
        "step-+1",
        "step-1",
        "step-000000011",
        "step-1.old-a1b2c3",
        ".tmp-a1b2c3",
        "mine",
        "step-best",
        "step-00000010-copy",
        "step-99999999999999999999",
    ];
    for name in steps.iter().rev().chain(&others) {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink("mine", folder.path().join("step-00000012")).unwrap();
    fs::write(folder.path().join("step-00000011"), "no folder").unwrap();
    assert_eq!(list(folder.path()).unwrap(), steps.map(|name| folder.path().join(name)));
}

#[test]
fn a_folder_of_checkpoints_that_cannot_be_read_is_an_error() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("checkpoints");
    assert!(list(&path).unwrap().is_empty());
    fs::write(&path, "").unwrap();
    assert!(matches!(list(&path), Err(Error::Io { path: named, .. }) if named == path));
}

/// `/dev/null` accepts every line but cannot be synced.
#[test]
#[cfg(target_os = "linux")]
fn a_checkpoint_does_not_go_beyond_a_log_that_is_not_on_the_disk() {
    let (folder, data) = (tempdir().unwrap(), data());
    let config = config(&data);
    let trainer = Trainer::new(&config, &data, &Device::Cpu).unwrap();
    let (checkpoints, path) = (folder.path().join("checkpoints"), folder.path().join("metrics.jsonl"));
    let mut log = Log::open(&path, 0).unwrap();
    save(&checkpoints, &mut log, &trainer, &progress(config.clone()), 2, &[]).unwrap();
    let mut log = log.with_file(fs::OpenOptions::new().append(true).open("/dev/null").unwrap());
    let later = Progress { step: 1, ..progress(config) };
    let error = save(&checkpoints, &mut log, &trainer, &later, 2, &[]).unwrap_err();
    assert!(matches!(&error, Error::Io { path: named, .. } if *named == path), "{error}");
    assert_eq!(list(&checkpoints).unwrap(), [checkpoints.join("step-00000000")]);
}

/// A product often needs 17 digits, and an inexact JSON parser would read another number.
#[test]
fn a_configuration_is_the_same_after_json_whatever_its_digits() {
    for number in 1..60 {
        let learning_rate = f64::from(number) * 0.0007 / 3.0;
        let now = progress(TrainConfig { learning_rate, ..config(&data()) });
        let saved = serde_json::from_slice(&encode_json(Path::new(STATE), &now).unwrap()).unwrap();
        check_same(Path::new(STATE), &saved, &now).unwrap();
    }
}
