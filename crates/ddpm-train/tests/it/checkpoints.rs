//! Checkpoints that are damaged, from another run, or left by an interrupted save.

use std::{fs, path::Path};

use candle_core::Device;
use ddpm_data::{Dataset, Splits};
use ddpm_train::{Error, Event, Result, Start, TrainConfig, run};
use tempfile::{TempDir, tempdir};

use crate::{bits, config, images, is_epoch, labelled, labels, names, options, splits, train, train_until};

const FILES: [&str; 3] = ["manifest.json", "state.json", "state.safetensors"];

/// A folder with a run that was stopped after the second of three epochs.
fn stopped() -> TempDir {
    let folder = tempdir().unwrap();
    train_until(&config(), folder.path(), Start::Fresh, |event| is_epoch(event, 2));
    folder
}

fn checkpoint(folder: &Path, step: u64) -> std::path::PathBuf {
    folder.join(format!("checkpoints/step-{step:08}"))
}

fn flip_a_byte(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Resumes a run to its end, and returns the step of the checkpoint and the reported number of damaged checkpoints.
/// Checks that the run takes all further steps.
fn resumed_after(folder: &Path) -> Result<(u64, usize)> {
    let (mut steps, mut found) = (Vec::new(), None);
    run(&config(), splits(), folder, options(Start::Resume), &Device::Cpu, |event| {
        match event {
            Event::Resumed { step, damaged } => assert!(found.replace((step, damaged)).is_none()),
            Event::Step { step, .. } => steps.push(step),
            _ => {}
        }
        Ok(())
    })?;
    let found = found.unwrap();
    assert!(steps.iter().copied().eq(found.0 + 1..=30), "after {found:?}: {steps:?}");
    Ok(found)
}

#[test]
fn the_last_two_checkpoints_are_kept_and_each_is_complete() {
    let folder = tempdir().unwrap();
    train(&TrainConfig { epochs: 4, ..config() }, folder.path(), Start::Fresh).unwrap();
    assert_eq!(names(&folder.path().join("checkpoints")), ["step-00000030", "step-00000040"]);
    for step in [30, 40] {
        assert_eq!(names(&checkpoint(folder.path(), step)), FILES);
    }
}

/// After each kind of damage, the run resumes from the older checkpoint and ends with the same weights.
#[test]
fn a_damaged_checkpoint_is_skipped_for_the_older_one() {
    let whole_folder = tempdir().unwrap();
    let whole = bits(train(&config(), whole_folder.path(), Start::Fresh).unwrap().denoiser.weights());
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 9] = [
        ("a byte of the tensors", |c| flip_a_byte(&c.join("state.safetensors"), 5000)),
        ("a byte of the tensors' header", |c| flip_a_byte(&c.join("state.safetensors"), 0)),
        ("a byte of the state", |c| flip_a_byte(&c.join("state.json"), 12)),
        ("a byte of the manifest", |c| flip_a_byte(&c.join("manifest.json"), 30)),
        ("tensors cut off", |c| {
            let bytes = fs::read(c.join("state.safetensors")).unwrap();
            fs::write(c.join("state.safetensors"), &bytes[..bytes.len() - 100]).unwrap();
        }),
        ("an empty manifest", |c| fs::write(c.join("manifest.json"), "").unwrap()),
        ("no manifest", |c| fs::remove_file(c.join("manifest.json")).unwrap()),
        ("no tensors", |c| fs::remove_file(c.join("state.safetensors")).unwrap()),
        ("no files", |c| {
            FILES.iter().for_each(|file| fs::remove_file(c.join(file)).unwrap());
        }),
    ];
    for (what, damage) in damages {
        let folder = stopped();
        damage(&checkpoint(folder.path(), 20));
        assert_eq!(resumed_after(folder.path()).unwrap(), (10, 1), "{what}");
        // The run has rewritten the damaged checkpoint: resuming from it gives the same weights.
        assert_eq!(names(&folder.path().join("checkpoints")), ["step-00000020", "step-00000030"], "{what}");
        fs::remove_dir_all(checkpoint(folder.path(), 30)).unwrap();
        let again = train(&config(), folder.path(), Start::Resume).unwrap();
        assert!(bits(again.denoiser.weights()) == whole, "{what}");
    }
}

#[test]
fn if_all_checkpoints_are_damaged_the_error_has_their_number_and_they_stay() {
    let folder = stopped();
    for step in [10, 20] {
        flip_a_byte(&checkpoint(folder.path(), step).join("state.safetensors"), 999);
    }
    let error = resumed_after(folder.path()).unwrap_err();
    assert!(matches!(&error, Error::NoCheckpoint { damaged: 2, .. }), "{error}");
    assert!(error.to_string().contains("checkpoints") && error.to_string().contains("2 damaged"), "{error}");
    assert_eq!(names(&folder.path().join("checkpoints")), ["step-00000010", "step-00000020"]);
}

/// Such a checkpoint may be valid: resuming from an older one could discard a good epoch.
#[test]
#[cfg(unix)]
fn a_checkpoint_that_cannot_be_read_is_an_error_and_stays() {
    for file in FILES {
        let folder = stopped();
        let path = checkpoint(folder.path(), 20).join(file);
        let original = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let is_named = |error: Error| {
            let Error::Files(ddpm_files::Error::Read { path: named, .. }) = &error else { panic!("{error}") };
            assert_eq!(*named, path);
        };
        is_named(resumed_after(folder.path()).unwrap_err());
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink(&path, &path).unwrap();
        is_named(resumed_after(folder.path()).unwrap_err());
        fs::remove_file(&path).unwrap();
        fs::write(&path, original).unwrap();
        assert_eq!(resumed_after(folder.path()).unwrap(), (20, 0), "{file}");
    }
}

/// Copies the checkpoint of step 10 to another name.
fn copy_as(folder: &Path, name: &str) {
    let copy = folder.join("checkpoints").join(name);
    fs::create_dir(&copy).unwrap();
    for file in FILES {
        fs::copy(checkpoint(folder, 10).join(file), copy.join(file)).unwrap();
    }
}

#[test]
fn a_folder_of_an_interrupted_save_is_not_a_checkpoint() {
    let folder = stopped();
    // Complete checkpoints that were not renamed.
    for name in [".tmp-a1b2c3", "step-00000030.tmp", "step-00000030.old"] {
        copy_as(folder.path(), name);
    }
    assert_eq!(resumed_after(folder.path()).unwrap(), (20, 0));
}

/// Otherwise each would occupy the disk space of a checkpoint for ever.
#[test]
fn a_folder_of_an_interrupted_save_is_removed_when_the_run_resumes() {
    let folder = stopped();
    copy_as(folder.path(), ".tmp-a1b2c3");
    fs::write(folder.path().join("checkpoints/notes.txt"), "mine").unwrap();
    resumed_after(folder.path()).unwrap();
    let left = names(&folder.path().join("checkpoints"));
    assert_eq!(left, ["notes.txt", "step-00000020", "step-00000030"]);
}

/// The differing option and the message of the error when a run is resumed with another configuration.
fn other_config(change: impl FnOnce(&mut TrainConfig)) -> (String, String) {
    let folder = stopped();
    let mut config = config();
    change(&mut config);
    let error = train(&config, folder.path(), Start::Resume).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("step-00000020"), "{text}");
    assert_eq!(names(&folder.path().join("checkpoints")), ["step-00000010", "step-00000020"]);
    match error {
        Error::OtherConfig { key, .. } => (key, text),
        other => panic!("{other}"),
    }
}

#[test]
fn a_checkpoint_of_another_configuration_is_refused_by_the_name_of_the_option() {
    let (key, text) = other_config(|c| c.learning_rate = 1e-3);
    assert_eq!(key, "learning_rate");
    assert!(text.contains("0.005") && text.contains("0.001"), "{text}");
    assert_eq!(other_config(|c| c.seed = 2).0, "seed");
    assert_eq!(other_config(|c| c.epochs = 4).0, "epochs");
    assert_eq!(other_config(|c| c.batch_size = 10).0, "batch_size");
    assert_eq!(other_config(|c| c.loss = ddpm_core::LossWeighting::MinSnr).0, "loss");
    assert_eq!(other_config(|c| c.adamw.beta1 = 0.8).0, "adamw");
    assert_eq!(other_config(|c| c.schedule.beta_end = 0.6).0, "schedule");
    let (key, text) = other_config(|c| {
        c.denoiser.network = ddpm_model::Network::Mlp { width: 17, hidden: 24, blocks: 1, embedding: 8 };
    });
    assert_eq!(key, "denoiser");
    assert!(text.contains("17") && text.contains("16"), "{text}");
}

fn resume_with(train: Dataset) -> Result<()> {
    let folder = stopped();
    let splits = Splits::new("tiny", train, None).unwrap();
    run(&config(), &splits, folder.path(), options(Start::Resume), &Device::Cpu, |_| Ok(())).map(|_| ())
}

#[test]
fn a_checkpoint_of_other_images_is_refused() {
    let error = resume_with(labelled(200, 1)).unwrap_err();
    assert!(matches!(&error, Error::OtherConfig { key, .. } if key.contains("training images")), "{error}");
    assert!(error.to_string().contains(labelled(200, 0).images_sha256()), "{error}");
}

#[test]
fn a_checkpoint_of_other_labels_is_refused() {
    let mut labels = labels(200);
    labels.values.swap(0, 1);
    let error = resume_with(Dataset::new("tiny", images(200, 0), Some(labels)).unwrap());
    let error = error.expect_err("the labels differ from those of the checkpoint");
    assert!(matches!(&error, Error::OtherConfig { key, .. } if key.contains("label")), "{error}");
}
