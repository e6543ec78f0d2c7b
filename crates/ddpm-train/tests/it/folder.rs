//! Folders that already have content, and folders that another run is using.

use std::fs;

use candle_core::Device;
use ddpm_data::Splits;
use ddpm_train::{Error, Event, Start, TrainConfig, run};
use tempfile::tempdir;

use crate::{
    Observed, bits, config, is_step, labelled, names, records, splits, train, train_until, unlabelled,
};

#[test]
fn a_fresh_run_makes_its_folder() {
    let folder = tempdir().unwrap();
    let runs = folder.path().join("new/runs/mine");
    train(&config(), &runs, Start::Fresh).unwrap();
    assert_eq!(names(&runs), [".lock", "checkpoints", "metrics.jsonl"]);
}

#[test]
fn a_fresh_run_does_not_touch_an_older_one() {
    let folder = tempdir().unwrap();
    train(&config(), folder.path(), Start::Fresh).unwrap();
    let log = || fs::read(folder.path().join("metrics.jsonl")).unwrap();
    let before = log();
    let error = train(&config(), folder.path(), Start::Fresh).unwrap_err();
    assert!(matches!(&error, Error::Occupied { path } if path == folder.path()), "{error}");
    assert!(error.to_string().contains("resume") && error.to_string().contains("overwrite"), "{error}");
    assert_eq!(log(), before);
    assert_eq!(names(&folder.path().join("checkpoints")), ["step-00000020", "step-00000030"]);
}

#[test]
fn a_run_without_a_checkpoint_occupies_its_folder_too() {
    let folder = tempdir().unwrap();
    train_until(&config(), folder.path(), Start::Fresh, |event| is_step(event, 5));
    let error = train(&config(), folder.path(), Start::Fresh).unwrap_err();
    assert!(matches!(error, Error::Occupied { .. }), "{error}");
    let error = train(&config(), folder.path(), Start::Resume).unwrap_err();
    assert!(matches!(error, Error::NoCheckpoint { damaged: 0, .. }), "{error}");
    train(&config(), folder.path(), Start::Overwrite).unwrap();
}

#[test]
fn overwriting_leaves_nothing_of_the_older_run() {
    let (folder, fresh) = (tempdir().unwrap(), tempdir().unwrap());
    train(&config(), folder.path(), Start::Fresh).unwrap();
    for name in ["model", "previews"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("loss.svg"), "of the older run").unwrap();
    let shorter = TrainConfig { epochs: 1, ..config() };
    let outcome = train(&shorter, folder.path(), Start::Overwrite).unwrap();
    let expected = train(&shorter, fresh.path(), Start::Fresh).unwrap();
    assert_eq!(bits(outcome.denoiser.weights()), bits(expected.denoiser.weights()));
    assert_eq!(names(&folder.path().join("checkpoints")), ["step-00000010"]);
    assert_eq!(records(folder.path()).len(), records(fresh.path()).len());
    assert_eq!(names(folder.path()), names(fresh.path()));
}

#[test]
fn overwriting_a_folder_that_holds_no_run_keeps_what_is_there() {
    let folder = tempdir().unwrap();
    fs::create_dir(folder.path().join("model")).unwrap();
    fs::write(folder.path().join("model/thesis.txt"), "precious").unwrap();
    train(&config(), folder.path(), Start::Overwrite).unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("model/thesis.txt")).unwrap(), "precious");
}

#[test]
fn overwriting_an_empty_folder_is_a_fresh_run() {
    let folder = tempdir().unwrap();
    train(&config(), folder.path(), Start::Overwrite).unwrap();
    assert_eq!(names(&folder.path().join("checkpoints")).len(), 2);
}

#[test]
fn a_configuration_that_is_refused_overwrites_nothing() {
    let folder = tempdir().unwrap();
    train(&config(), folder.path(), Start::Fresh).unwrap();
    let wrong = TrainConfig { learning_rate: -1.0, ..config() };
    assert!(matches!(train(&wrong, folder.path(), Start::Overwrite), Err(Error::OutOfRange { .. })));
    assert_eq!(names(&folder.path().join("checkpoints")), ["step-00000020", "step-00000030"]);
}

#[test]
fn there_is_nothing_to_resume_in_an_empty_folder() {
    let folder = tempdir().unwrap();
    let error = train(&config(), folder.path(), Start::Resume).unwrap_err();
    assert!(matches!(error, Error::NoCheckpoint { damaged: 0, .. }), "{error}");
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let error = train(&config(), &folder.path().join("file/run"), Start::Fresh).unwrap_err();
    assert!(matches!(error, Error::Files(_)), "{error}");
    assert!(error.to_string().contains("file/run"), "{error}");
}

/// A second run is refused with every `Start`, and does not affect the first one.
#[test]
fn two_runs_cannot_share_a_folder() {
    let (folder, alone) = (tempdir().unwrap(), tempdir().unwrap());
    let observe = |event: Event<'_>| -> Observed {
        if is_step(&event, 15) {
            for start in [Start::Fresh, Start::Overwrite, Start::Resume] {
                let error = train(&config(), folder.path(), start).unwrap_err();
                assert!(matches!(&error, Error::Locked { path } if path == folder.path()), "{error}");
            }
        }
        Ok(())
    };
    let outcome = run(&config(), splits(), folder.path(), Start::Fresh, &Device::Cpu, observe).unwrap();
    let expected = train(&config(), alone.path(), Start::Fresh).unwrap();
    assert_eq!(bits(outcome.denoiser.weights()), bits(expected.denoiser.weights()));
    // The lock ends with the run.
    train(&config(), folder.path(), Start::Resume).unwrap();
}

#[test]
fn the_lock_ends_with_a_run_that_fails() {
    let folder = tempdir().unwrap();
    train_until(&config(), folder.path(), Start::Fresh, |event| is_step(event, 12));
    train(&config(), folder.path(), Start::Resume).unwrap();
}

#[test]
fn there_is_no_test_loss_if_only_one_part_of_the_data_has_labels() {
    for (train, test) in [(labelled(200, 0), unlabelled(40, 1)), (unlabelled(200, 0), labelled(40, 1))] {
        let (folder, config) = (tempdir().unwrap(), crate::config_for(&train));
        let splits = Splits::new("tiny", train, Some(test)).unwrap();
        let outcome = run(&config, &splits, folder.path(), Start::Fresh, &Device::Cpu, |_| Ok(())).unwrap();
        assert!(outcome.train_loss.is_some() && outcome.test_loss.is_none(), "{outcome:?}");
    }
}
