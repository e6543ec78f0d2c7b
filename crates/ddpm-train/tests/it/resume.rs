//! A run that was stopped and resumed gives the same files as an uninterrupted run.

use std::{fs, path::Path};

use candle_core::Device;
use ddpm_train::{AdamWConfig, Event, Outcome, Start, TrainConfig, run};
use serde_json::Value;
use tempfile::tempdir;

use crate::{Observed, bits, config, is_epoch, is_step, names, records, splits, train, train_until};

fn without_times(json: &[u8]) -> Value {
    let mut value: Value = serde_json::from_slice(json).unwrap();
    let object = value.as_object_mut().unwrap();
    assert!(object.remove("seconds").is_some_and(|seconds| seconds.as_f64() > Some(0.0)));
    object.remove("images_per_second");
    value
}

/// The lines of the log, without the times.
fn log(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| without_times(line.as_bytes())).collect()
}

/// All checkpoints by name: the bytes of the tensors, and the JSON without the times.
fn checkpoints(folder: &Path) -> Vec<(String, Vec<u8>, Value)> {
    let folder = folder.join("checkpoints");
    let read = |name: &str, file: &str| fs::read(folder.join(name).join(file)).unwrap();
    names(&folder)
        .into_iter()
        .map(|name| {
            let (tensors, state) = (read(&name, "state.safetensors"), read(&name, "state.json"));
            (name, tensors, without_times(&state))
        })
        .collect()
}

fn assert_same(folder: &Path, outcome: &Outcome, whole_folder: &Path, whole: &Outcome) {
    assert_eq!(bits(outcome.denoiser.weights()), bits(whole.denoiser.weights()));
    assert!(checkpoints(folder) == checkpoints(whole_folder));
    assert_eq!(log(folder), log(whole_folder));
    assert_eq!((outcome.train_loss, outcome.test_loss), (whole.train_loss, whole.test_loss));
    assert_eq!((outcome.steps, outcome.images), (whole.steps, whole.images));
    assert_eq!(names(folder), names(whole_folder), "nothing temporary stays");
}

/// 66 steps in an epoch, so that the log has lines within an epoch, which a resumed run must write again.
fn small_batches() -> TrainConfig {
    TrainConfig { batch_size: 3, ..config() }
}

type Stop = fn(&Event<'_>) -> bool;

#[test]
fn a_run_that_was_stopped_anywhere_ends_with_the_same_files() {
    let cases: [(TrainConfig, &[Stop]); 2] = [
        (
            config(),
            &[
                |event| is_step(event, 11),
                |event| is_step(event, 17),
                |event| is_step(event, 20),
                |event| is_epoch(event, 2),
                |event| is_step(event, 30),
                |event| is_epoch(event, 3),
            ],
        ),
        (small_batches(), &[|event| is_step(event, 110), |event| is_step(event, 150)]),
    ];
    for (config, stops) in cases {
        check_stops(&config, stops);
    }
}

fn check_stops(config: &TrainConfig, stops: &[Stop]) {
    let whole_folder = tempdir().unwrap();
    let whole = train(config, whole_folder.path(), Start::Fresh).unwrap();
    for stop in stops {
        let folder = tempdir().unwrap();
        train_until(config, folder.path(), Start::Fresh, stop);
        let outcome = train(config, folder.path(), Start::Resume).unwrap();
        assert_same(folder.path(), &outcome, whole_folder.path(), &whole);
    }
}

#[test]
fn a_run_may_be_stopped_many_times() {
    let (folder, whole_folder) = (tempdir().unwrap(), tempdir().unwrap());
    let whole = train(&config(), whole_folder.path(), Start::Fresh).unwrap();
    train_until(&config(), folder.path(), Start::Fresh, |event| is_step(event, 19));
    train_until(&config(), folder.path(), Start::Resume, |event| is_step(event, 12));
    train_until(&config(), folder.path(), Start::Resume, |event| is_step(event, 29));
    let outcome = train(&config(), folder.path(), Start::Resume).unwrap();
    assert_same(folder.path(), &outcome, whole_folder.path(), &whole);
}

#[test]
fn a_resumed_run_continues_after_the_last_complete_epoch() {
    let folder = tempdir().unwrap();
    train_until(&config(), folder.path(), Start::Fresh, |event| is_step(event, 17));
    let mut seen = Vec::new();
    let observe = |event: Event<'_>| -> Observed {
        if let Event::Step { step, total, .. } = event {
            assert_eq!(total, 30);
            seen.push(step);
        }
        Ok(())
    };
    run(&config(), splits(), folder.path(), Start::Resume, &Device::Cpu, observe).unwrap();
    assert!(seen.iter().copied().eq(11..=30), "{seen:?}");
}

#[test]
fn a_finished_run_is_not_trained_again() {
    let folder = tempdir().unwrap();
    let first = train(&config(), folder.path(), Start::Fresh).unwrap();
    let (before, lines) = (checkpoints(folder.path()), records(folder.path()));
    let observe = |event: Event<'_>| -> Observed {
        if matches!(event, Event::Resumed { step: 30, damaged: 0 }) { Ok(()) } else { Err("trained".into()) }
    };
    let again = run(&config(), splits(), folder.path(), Start::Resume, &Device::Cpu, observe).unwrap();
    assert_eq!(bits(again.denoiser.weights()), bits(first.denoiser.weights()));
    assert_eq!((again.train_loss, again.test_loss), (first.train_loss, first.test_loss));
    assert_eq!((again.steps, again.epochs, again.images), (30, 3, 600));
    assert!(checkpoints(folder.path()) == before && records(folder.path()) == lines);
}

#[test]
fn time_is_counted_over_all_parts_of_a_run() {
    let folder = tempdir().unwrap();
    train_until(&config(), folder.path(), Start::Fresh, |event| is_epoch(event, 2));
    let before = records(folder.path()).last().map(seconds).unwrap();
    let outcome = train(&config(), folder.path(), Start::Resume).unwrap();
    let all: Vec<f64> = records(folder.path()).iter().map(seconds).collect();
    assert!(all.is_sorted(), "{all:?}");
    assert!(outcome.seconds > before, "{} after {before}", outcome.seconds);
}

fn seconds(record: &ddpm_train::Record) -> f64 {
    match *record {
        ddpm_train::Record::Train { seconds, .. } | ddpm_train::Record::Epoch { seconds, .. } => seconds,
    }
}

/// A product often needs 17 digits, and an inexact JSON parser would read another number.
#[test]
fn a_run_recognises_its_own_configuration_whatever_its_digits() {
    let adamw = AdamWConfig { eps: 1e-8 / 3.0, weight_decay: 0.1 * 0.07, ..AdamWConfig::default() };
    let learning_rate = 53.0 * 0.0007 / 3.0;
    let config = TrainConfig { learning_rate, adamw, epochs: 1, batch_size: 200, ..config() };
    let folder = tempdir().unwrap();
    train(&config, folder.path(), Start::Fresh).unwrap();
    train(&config, folder.path(), Start::Resume).unwrap();
}
