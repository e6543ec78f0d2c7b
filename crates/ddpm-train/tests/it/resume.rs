//! A run that was stopped and resumed gives the same files as an uninterrupted run.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use candle_core::Device;
use ddpm_train::{
    AdamWConfig, CheckpointEvery, Error, Event, Outcome, Record, RunOptions, Start, TrainConfig, run,
};
use serde_json::Value;
use tempfile::tempdir;

use crate::{Observed, bits, config, is_epoch, is_step, names, options, records, splits, train, train_until};

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

/// Runs until the observer, in a step, asks for a stop. The run must then have saved that step.
fn stop_after(config: &TrainConfig, folder: &Path, options: RunOptions<'_>, number: u64) {
    let stop = AtomicBool::new(false);
    let observe = |event: Event<'_>| -> Observed {
        if is_step(&event, number) {
            stop.store(true, Ordering::Relaxed);
        }
        Ok(())
    };
    let options = RunOptions { stop: &stop, ..options };
    let error = run(config, splits(), folder, options, &Device::Cpu, observe).unwrap_err();
    assert!(matches!(error, Error::Stopped { step, .. } if step == number), "{error}");
    assert!(folder.join(format!("checkpoints/step-{number:08}")).is_dir());
    assert!(
        names(folder).iter().chain(&names(&folder.join("checkpoints"))).all(|name| !name.contains("tmp"))
    );
}

/// Stopped and resumed after each of its 66 steps and at several steps of the next epoch, a run gives the same log and the
/// same weights: nothing is lost, and the losses of an interrupted line of the log are counted once.
#[test]
fn a_run_that_is_asked_to_stop_loses_no_step() {
    let rare = |start| RunOptions { start, evaluate_every: 1, ..RunOptions::default() };
    let config = TrainConfig { epochs: 2, ..small_batches() };
    let (folder, whole_folder) = (tempdir().unwrap(), tempdir().unwrap());
    let no_event = |_: Event<'_>| -> Observed { Ok(()) };
    let whole =
        run(&config, splits(), whole_folder.path(), rare(Start::Fresh), &Device::Cpu, no_event).unwrap();
    let mut start = Start::Fresh;
    for number in (1..=66).chain([90, 100, 101, 131]) {
        stop_after(&config, folder.path(), rare(start), number);
        start = Start::Resume;
    }
    let outcome = run(&config, splits(), folder.path(), rare(start), &Device::Cpu, no_event).unwrap();
    assert_eq!(bits(outcome.denoiser.weights()), bits(whole.denoiser.weights()));
    assert_eq!(log(folder.path()), log(whole_folder.path()));
    // Here the checkpoints before the last one differ: the uninterrupted run wrote one after its first epoch.
    assert_eq!(names(&whole_folder.path().join("checkpoints")), ["step-00000066", "step-00000132"]);
    assert_eq!(names(&folder.path().join("checkpoints")), ["step-00000131", "step-00000132"]);
}

/// A stop before the first step leaves nothing to resume, and the same command may be given again.
#[test]
fn a_stop_before_the_first_step_saves_nothing() {
    let folder = tempdir().unwrap();
    let options = RunOptions { stop: &AtomicBool::new(true), ..options(Start::Fresh) };
    let error = run(&config(), splits(), folder.path(), options, &Device::Cpu, |_| Ok(())).unwrap_err();
    assert!(matches!(error, Error::Stopped { step: 0, total: 30 }), "{error}");
    train(&config(), folder.path(), Start::Fresh).unwrap();
}

/// With no time between two checkpoints there is one after each step, and a run that ends without warning loses none.
#[test]
fn checkpoints_by_time_are_written_within_an_epoch() {
    let whole_folder = tempdir().unwrap();
    let whole = train(&config(), whole_folder.path(), Start::Fresh).unwrap();
    for last in [1, 9, 10, 25] {
        let folder = tempdir().unwrap();
        let checkpoint_every = CheckpointEvery::Time(Duration::ZERO);
        let each_step = |start| RunOptions { checkpoint_every, keep: 3, ..options(start) };
        let stop = |event: Event<'_>| -> Observed {
            if is_step(&event, last + 1) { Err("killed".into()) } else { Ok(()) }
        };
        run(&config(), splits(), folder.path(), each_step(Start::Fresh), &Device::Cpu, stop).unwrap_err();
        let kept: Vec<String> =
            (last.saturating_sub(2).max(1)..=last).map(|n| format!("step-{n:08}")).collect();
        assert_eq!(names(&folder.path().join("checkpoints")), kept);
        let outcome = train(&config(), folder.path(), Start::Resume).unwrap();
        assert_eq!(bits(outcome.denoiser.weights()), bits(whole.denoiser.weights()), "after {last}");
        assert_eq!(log(folder.path()), log(whole_folder.path()), "after {last}");
    }
    let none = RunOptions { keep: 0, ..options(Start::Fresh) };
    let refused = run(&config(), splits(), whole_folder.path(), none, &Device::Cpu, |_| Ok(())).unwrap_err();
    assert!(refused.to_string().contains("checkpoints to keep is 0"), "{refused}");
}

/// Evaluations are at least `evaluate_every` steps apart, whatever the length of an epoch; the last epoch has one.
#[test]
fn short_epochs_are_evaluated_less_often() {
    let folder = tempdir().unwrap();
    let config = TrainConfig { epochs: 7, ..config() };
    let options = RunOptions { evaluate_every: 25, ..options(Start::Fresh) };
    let mut evaluated = Vec::new();
    let observe = |event: Event<'_>| -> Observed {
        if let Event::Epoch { record: Record::Epoch { epoch, test_loss, .. }, denoiser } = event {
            assert_eq!(test_loss.is_some(), denoiser.is_some());
            evaluated.extend(denoiser.map(|_| *epoch));
        }
        Ok(())
    };
    let outcome = run(&config, splits(), folder.path(), options, &Device::Cpu, observe).unwrap();
    assert_eq!(evaluated, [3, 5, 7]);
    assert!(outcome.test_loss.is_some() && records(folder.path()).len() == 14);
}

/// A finished run goes on as a new run from its weights. The log names them, and resuming needs the same ones.
#[test]
fn a_run_from_the_weights_of_another_names_them() {
    let (first_folder, folder) = (tempdir().unwrap(), tempdir().unwrap());
    let first = train(&config(), first_folder.path(), Start::Fresh).unwrap();
    let from = |start, denoiser| RunOptions { initial: Some(("runs/first", denoiser)), ..options(start) };
    let (stop, mut losses) = (AtomicBool::new(false), Vec::new());
    let observe = |event: Event<'_>| -> Observed {
        if let Event::Epoch { record: &Record::Epoch { train_loss, .. }, .. } = event {
            stop.store(true, Ordering::Relaxed);
            losses.push(train_loss);
        }
        Ok(())
    };
    let stopped = RunOptions { stop: &stop, ..from(Start::Fresh, &first.denoiser) };
    run(&config(), splits(), folder.path(), stopped, &Device::Cpu, observe).unwrap_err();
    let Some(Record::Start { initial, sha256 }) = records(folder.path()).into_iter().next() else {
        panic!("{:?}", records(folder.path()))
    };
    assert_eq!((initial.as_str(), sha256.len()), ("runs/first", 64));
    // The trained weights are far ahead of random ones.
    let Record::Epoch { train_loss, .. } = records(first_folder.path())[1] else { panic!("no epoch") };
    assert!(losses[0] < train_loss / 2.0, "{losses:?} {train_loss}");
    let missing = train(&config(), folder.path(), Start::Resume).unwrap_err().to_string();
    assert!(missing.contains("`initial weights (SHA-256)`") && missing.contains("now none"), "{missing}");
    let resumed = from(Start::Resume, &first.denoiser);
    let outcome = run(&config(), splits(), folder.path(), resumed, &Device::Cpu, |_| Ok(())).unwrap();
    assert!(bits(outcome.denoiser.weights()) != bits(first.denoiser.weights()));
    let starts = records(folder.path()).iter().filter(|r| matches!(r, Record::Start { .. })).count();
    assert_eq!(starts, 1);
    let mut other = config();
    other.denoiser.network = crate::small_plain();
    let wrong = from(Start::Fresh, &first.denoiser);
    let refused = run(&other, splits(), &folder.path().join("other"), wrong, &Device::Cpu, |_| Ok(()));
    assert!(refused.unwrap_err().to_string().contains("the architecture of the initial network"));
    assert!(!folder.path().join("other").exists());
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
    run(&config(), splits(), folder.path(), options(Start::Resume), &Device::Cpu, observe).unwrap();
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
    let again =
        run(&config(), splits(), folder.path(), options(Start::Resume), &Device::Cpu, observe).unwrap();
    assert_eq!(bits(again.denoiser.weights()), bits(first.denoiser.weights()));
    assert_eq!((again.train_loss, again.test_loss), (first.train_loss, first.test_loss));
    assert_eq!((again.steps, again.epochs, again.images), (30, 3, 600));
    assert!(checkpoints(folder.path()) == before && records(folder.path()) == lines);
}

#[test]
fn time_is_counted_over_all_parts_of_a_run() {
    let folder = tempdir().unwrap();
    train_until(&config(), folder.path(), Start::Fresh, |event| is_epoch(event, 2));
    let before = records(folder.path()).last().map(Record::seconds).unwrap();
    let outcome = train(&config(), folder.path(), Start::Resume).unwrap();
    let all: Vec<f64> = records(folder.path()).iter().map(Record::seconds).collect();
    assert!(all.is_sorted(), "{all:?}");
    assert!(outcome.seconds > before, "{} after {before}", outcome.seconds);
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
