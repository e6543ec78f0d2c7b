//! The snapshots of a run that is stopped, resumed, overwritten.

use std::{fs, path::Path, time::Duration};

use candle_core::Device;
use ddpm_train::{CheckpointEvery, Error, Event, RunOptions, Start, TrainConfig, run};
use serde_json::Value;
use tempfile::tempdir;

use crate::{
    Observed, config, is_epoch, is_step, names, options,
    post_hoc_ema::{finished, snapshot, with_snapshots},
    splits, train, train_until,
};

/// All snapshots: their names, the bytes of the tensors, and the JSON without the time.
fn snapshots(folder: &Path) -> Vec<(String, Vec<u8>, Value)> {
    let folder = folder.join("snapshots");
    let read = |name: &str, file: &str| fs::read(folder.join(name).join(file)).unwrap();
    let snapshot = |name: String| {
        let (tensors, mut state) = (read(&name, "state.safetensors"), json(&read(&name, "state.json")));
        state.as_object_mut().unwrap().remove("seconds").unwrap();
        (name, tensors, state)
    };
    names(&folder).into_iter().map(snapshot).collect()
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

const STEPS: [u64; 6] = [5, 10, 15, 20, 25, 30];

#[test]
fn a_run_that_was_stopped_anywhere_has_the_same_snapshots() {
    let whole = finished();
    assert_eq!(names(&whole.path().join("snapshots")), STEPS.map(|step| format!("step-{step:08}")));
    for step in [1, 5, 6, 10, 11, 17, 20, 21, 30] {
        let folder = tempdir().unwrap();
        train_until(&with_snapshots(), folder.path(), Start::Fresh, |event| is_step(event, step));
        train_until(&with_snapshots(), folder.path(), Start::Resume, |event| is_step(event, 26));
        let again = train(&with_snapshots(), folder.path(), Start::Resume).unwrap();
        assert!(snapshots(folder.path()) == snapshots(whole.path()), "{step}");
        assert_eq!(names(folder.path()), [".lock", "checkpoints", "metrics.jsonl", "snapshots"]);
        let tensors = |folder: &Path| fs::read(folder.join("checkpoints/step-00000030/state.safetensors"));
        assert!(tensors(folder.path()).unwrap() == tensors(whole.path()).unwrap(), "{step}");
        assert_eq!(again.steps, 30);
    }
}

/// Each step has a checkpoint, and the run goes on after an older one: the steps of the newer snapshots are taken again.
#[test]
fn a_resumed_run_has_no_snapshot_of_a_later_step() {
    let each_step = |start| RunOptions {
        checkpoint_every: CheckpointEvery::Time(Duration::ZERO),
        keep: 100,
        ..options(start)
    };
    let stop_after = |folder: &Path, start, step| {
        let observe = |event: Event<'_>| -> Observed {
            if is_step(&event, step) { Err("stopped".into()) } else { Ok(()) }
        };
        run(&with_snapshots(), splits(), folder, each_step(start), &Device::Cpu, observe).unwrap_err();
        names(&folder.join("snapshots"))
    };
    let (folder, whole) = (tempdir().unwrap(), finished());
    assert_eq!(stop_after(folder.path(), Start::Fresh, 23).len(), 4);
    for step in 13..=22 {
        fs::remove_dir_all(folder.path().join(format!("checkpoints/step-{step:08}"))).unwrap();
    }
    // At its first step, the resumed run goes on after step 12.
    assert_eq!(stop_after(folder.path(), Start::Resume, 13), ["step-00000005", "step-00000010"]);
    train(&with_snapshots(), folder.path(), Start::Resume).unwrap();
    assert!(snapshots(folder.path()) == snapshots(whole.path()));
}

/// The program was killed after a checkpoint and before the snapshot of the same step.
#[test]
fn a_missing_snapshot_of_the_checkpoint_is_made_again() {
    let whole = finished();
    let (at_20, at_end) = (tempdir().unwrap(), finished());
    train_until(&with_snapshots(), at_20.path(), Start::Fresh, |event| is_epoch(event, 2));
    for (folder, step) in [(&at_20, 20), (&at_end, 30)] {
        assert!(folder.path().join(format!("checkpoints/step-{step:08}")).exists());
        fs::remove_dir_all(snapshot(folder.path(), step)).unwrap();
        train(&with_snapshots(), folder.path(), Start::Resume).unwrap();
        assert!(snapshots(folder.path()) == snapshots(whole.path()), "{step}");
    }
}

/// A first checkpoint precedes the first snapshot, so somebody removed the checkpoints: the run does not begin again.
#[test]
fn snapshots_without_checkpoints_are_kept() {
    let folder = finished();
    let before = snapshots(folder.path());
    fs::remove_dir_all(folder.path().join("checkpoints")).unwrap();
    fs::write(folder.path().join("metrics.jsonl"), "").unwrap();
    let refused = train(&config(), folder.path(), Start::Fresh);
    assert!(matches!(refused, Err(Error::Occupied { .. })));
    let refused = train(&with_snapshots(), folder.path(), Start::Resume);
    assert!(matches!(refused, Err(Error::NoCheckpoint { .. })));
    assert!(snapshots(folder.path()) == before);
}

#[test]
fn overwriting_replaces_the_snapshots_with_the_first_checkpoint() {
    let (folder, expected) = (finished(), tempdir().unwrap());
    let before = snapshots(folder.path());
    let other = TrainConfig { seed: 2, ema_snapshots: 3, ..config() };
    train_until(&other, folder.path(), Start::Overwrite, |event| is_step(event, 10));
    assert!(snapshots(folder.path()) == before);
    fs::create_dir(folder.path().join("snapshots/mine")).unwrap();
    train(&other, folder.path(), Start::Overwrite).unwrap();
    fs::remove_dir(folder.path().join("snapshots/mine")).unwrap();
    train(&other, expected.path(), Start::Fresh).unwrap();
    assert!(snapshots(folder.path()) == snapshots(expected.path()));
    // A run without snapshots removes those of the older run, too.
    train(&config(), folder.path(), Start::Overwrite).unwrap();
    assert!(names(&folder.path().join("snapshots")).is_empty());
}

#[test]
fn a_file_in_the_place_of_a_snapshot_that_no_run_wrote_is_refused_and_kept() {
    let folder = tempdir().unwrap();
    let path = snapshot(folder.path(), 10).join("weights.pt");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "mine").unwrap();
    let error = train(&with_snapshots(), folder.path(), Start::Fresh).unwrap_err();
    assert!(matches!(error, Error::Occupied { .. }), "{error}");
    let error = train(&with_snapshots(), folder.path(), Start::Overwrite).unwrap_err();
    assert!(matches!(&error, Error::Foreign { path: named } if *named == path), "{error}");
    assert_eq!(names(folder.path()), ["snapshots"]);
}
