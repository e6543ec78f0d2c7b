//! Folders that already have content, and folders that another run is using.

use std::{fs, path::Path};

use candle_core::Device;
use ddpm_data::Splits;
use ddpm_train::{Error, Event, Start, TrainConfig, logged_epochs, run};
use tempfile::tempdir;

use crate::{
    Observed, bits, config, is_step, labelled, names, options, records, splits, train, train_until,
    unlabelled,
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
    assert!(error.to_string().contains("resume") && !error.to_string().contains("overwrite"), "{error}");
    assert_eq!(log(), before);
    assert_eq!(names(&folder.path().join("checkpoints")), ["step-00000020", "step-00000030"]);
}

/// A run that was killed before its first checkpoint. Every `Start` begins again: none refers to another one.
#[test]
fn a_run_without_a_checkpoint_begins_again() {
    let whole = tempdir().unwrap();
    let expected = bits(train(&config(), whole.path(), Start::Fresh).unwrap().denoiser.weights());
    for start in [Start::Fresh, Start::Resume, Start::Overwrite] {
        let folder = tempdir().unwrap();
        train_until(&config(), folder.path(), Start::Fresh, |event| is_step(event, 5));
        let again = train(&config(), folder.path(), start).unwrap();
        assert!(bits(again.denoiser.weights()) == expected, "{start:?}");
        assert_eq!(records(folder.path()).len(), records(whole.path()).len(), "{start:?}");
    }
}

/// The program was killed, or the disk was full, while it wrote the first line of the log.
#[test]
fn a_log_that_ends_inside_its_first_line_is_replaced() {
    let (whole, folder) = (tempdir().unwrap(), tempdir().unwrap());
    train(&config(), whole.path(), Start::Fresh).unwrap();
    let log = fs::read_to_string(whole.path().join("metrics.jsonl")).unwrap();
    let line = log.lines().next().unwrap();
    let path = folder.path().join("metrics.jsonl");
    for length in 0..=line.len() {
        fs::write(&path, &line[..length]).unwrap();
        assert_eq!(logged_epochs(folder.path()).unwrap(), 0, "{length}");
    }
    for start in [Start::Fresh, Start::Resume, Start::Overwrite] {
        let folder = tempdir().unwrap();
        fs::write(folder.path().join("metrics.jsonl"), &line[..line.len() - 1]).unwrap();
        train(&config(), folder.path(), start).unwrap();
        assert_eq!(records(folder.path()).len(), log.lines().count(), "{start:?}");
    }
}

/// The checkpoints were deleted to save space.
#[test]
fn the_log_of_finished_epochs_is_not_replaced_without_overwriting() {
    let folder = tempdir().unwrap();
    train(&config(), folder.path(), Start::Fresh).unwrap();
    fs::remove_dir_all(folder.path().join("checkpoints")).unwrap();
    assert!(matches!(train(&config(), folder.path(), Start::Fresh), Err(Error::Occupied { .. })));
    assert!(matches!(train(&config(), folder.path(), Start::Resume), Err(Error::NoCheckpoint { .. })));
    assert!(records(folder.path()).len() > 2);
    train(&config(), folder.path(), Start::Overwrite).unwrap();
}

#[test]
fn overwriting_leaves_nothing_of_the_older_run() {
    let (folder, fresh) = (tempdir().unwrap(), tempdir().unwrap());
    train(&config(), folder.path(), Start::Fresh).unwrap();
    let shorter = TrainConfig { epochs: 1, ..config() };
    let outcome = train(&shorter, folder.path(), Start::Overwrite).unwrap();
    let expected = train(&shorter, fresh.path(), Start::Fresh).unwrap();
    assert_eq!(bits(outcome.denoiser.weights()), bits(expected.denoiser.weights()));
    assert_eq!(names(&folder.path().join("checkpoints")), ["step-00000010"]);
    assert_eq!(records(folder.path()).len(), records(fresh.path()).len());
    assert_eq!(names(folder.path()), names(fresh.path()));
}

/// All files of a folder and their content.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut contents = Vec::new();
    for name in names(folder) {
        let path = folder.join(&name);
        if path.is_dir() {
            contents.extend(contents_below(&name, &path));
        } else {
            contents.push((name, fs::read(path).unwrap()));
        }
    }
    contents
}

fn contents_below(name: &str, path: &Path) -> impl Iterator<Item = (String, Vec<u8>)> {
    contents(path).into_iter().map(move |(below, bytes)| (format!("{name}/{below}"), bytes))
}

#[test]
fn before_its_first_checkpoint_an_overwriting_run_changes_nothing_of_the_older_one() {
    let folder = tempdir().unwrap();
    train(&config(), folder.path(), Start::Fresh).unwrap();
    let before = contents(folder.path());
    let shorter = TrainConfig { epochs: 1, ..config() };
    train_until(&shorter, folder.path(), Start::Overwrite, |event| is_step(event, 10));
    assert!(contents(folder.path()) == before);
    // The older run can still be resumed.
    train(&config(), folder.path(), Start::Resume).unwrap();
}

/// Folders of a project with the same names, and what a user added to a run.
#[test]
fn overwriting_keeps_what_no_run_wrote() {
    let folder = tempdir().unwrap();
    train(&config(), folder.path(), Start::Fresh).unwrap();
    let mine = [
        "checkpoints/epoch=3.ckpt",
        "checkpoints/step-best/state.json",
        "checkpoints/step-00000020-copy/state.json",
        "checkpoints/step-7/weights.pt",
        "model/net.py",
        "previews/holiday.png",
        "previews/epoch-001.png",
        "loss.svg",
        "notes.txt",
    ];
    for file in mine {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file).unwrap();
    }
    let shorter = TrainConfig { epochs: 1, ..config() };
    train(&shorter, folder.path(), Start::Overwrite).unwrap();
    for file in mine {
        assert_eq!(fs::read_to_string(folder.path().join(file)).unwrap(), file);
    }
    assert!(!folder.path().join("checkpoints/step-00000020").exists());
}

#[test]
fn files_with_the_names_of_a_run_that_no_run_wrote_are_refused_and_kept() {
    for file in ["metrics.jsonl", "checkpoints/step-00000010/weights.pt"] {
        for start in [Start::Fresh, Start::Overwrite] {
            let folder = tempdir().unwrap();
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "{\"loss\": 1}\n").unwrap();
            let error = train(&config(), folder.path(), start).unwrap_err();
            match start {
                Start::Fresh if file.starts_with("checkpoints") => {
                    assert!(matches!(error, Error::Occupied { .. }), "{error}");
                }
                _ => assert!(matches!(&error, Error::Foreign { path: named } if *named == path), "{error}"),
            }
            assert!(!error.to_string().contains("overwrite"), "{error}");
            assert_eq!(contents(folder.path()), [(file.to_owned(), b"{\"loss\": 1}\n".to_vec())]);
        }
    }
}

#[test]
#[cfg(unix)]
fn the_lock_file_is_never_truncated_even_through_a_link() {
    let folder = tempdir().unwrap();
    let run = folder.path().join("run");
    fs::create_dir(&run).unwrap();
    fs::write(folder.path().join("thesis"), "precious").unwrap();
    std::os::unix::fs::symlink("../thesis", run.join(".lock")).unwrap();
    train(&config(), &run, Start::Fresh).unwrap();
    train(&config(), &run, Start::Fresh).unwrap_err();
    assert_eq!(fs::read_to_string(folder.path().join("thesis")).unwrap(), "precious");
}

#[test]
fn temporary_files_of_a_killed_run_are_removed() {
    let folder = tempdir().unwrap();
    train(&config(), folder.path(), Start::Fresh).unwrap();
    for name in [
        ".tmp-a1b2c3",
        "previews/.tmp-a1b2c3",
        "tensorboard/.tmp-a1b2c3",
        "checkpoints/.tmp-a1b2c3/state.json",
        ".tmp-newlog",
    ] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    train(&config(), folder.path(), Start::Resume).unwrap();
    assert_eq!(names(folder.path()), [".lock", "checkpoints", "metrics.jsonl", "previews", "tensorboard"]);
    assert_eq!(names(&folder.path().join("checkpoints")).len(), 2);
    for folder in ["previews", "tensorboard"].map(|name| folder.path().join(name)) {
        assert!(names(&folder).is_empty());
    }
}

/// In place of a checkpoint that cannot be removed: one with a folder in place of a file.
#[test]
fn an_old_checkpoint_that_cannot_be_removed_does_not_end_the_run() {
    let folder = tempdir().unwrap();
    train(&TrainConfig { epochs: 1, ..config() }, folder.path(), Start::Fresh).unwrap();
    let state = folder.path().join("checkpoints/step-00000010/state.json");
    fs::remove_file(&state).unwrap();
    fs::create_dir(&state).unwrap();
    fs::write(state.join("thesis"), "precious").unwrap();
    let longer = TrainConfig { batch_size: 10, ..config() };
    train(&longer, folder.path(), Start::Overwrite).unwrap();
    assert!(state.join("thesis").exists());
    let left = names(&folder.path().join("checkpoints"));
    assert_eq!(left, ["step-00000010", "step-00000040", "step-00000060"]);
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
    let outcome =
        run(&config(), splits(), folder.path(), options(Start::Fresh), &Device::Cpu, observe).unwrap();
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
        let outcome =
            run(&config, &splits, folder.path(), options(Start::Fresh), &Device::Cpu, |_| Ok(())).unwrap();
        assert!(outcome.train_loss.is_some() && outcome.test_loss.is_none(), "{outcome:?}");
    }
}
