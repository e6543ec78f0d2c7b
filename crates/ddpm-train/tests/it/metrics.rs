//! The log of a run, its outcome, and its events.

use std::{fs, io::Write};

use candle_core::Device;
use ddpm_data::Splits;
use ddpm_train::{Event, Record, Start, TrainConfig, Trainer, evaluate_loss, run};
use tempfile::tempdir;

use crate::{
    Observed, config, config_for, is_epoch, is_step, labelled, options, records, splits, train, train_until,
    unlabelled,
};

/// 66 steps an epoch, so that the log has lines within an epoch.
fn small_batches() -> TrainConfig {
    TrainConfig { batch_size: 3, epochs: 2, ..config() }
}

fn assert_near(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() < 1e-6, "{found}, expected {expected}");
}

#[test]
fn lines_come_every_fifty_steps_and_at_the_end_of_each_epoch() {
    let folder = tempdir().unwrap();
    train(&small_batches(), folder.path(), Start::Fresh).unwrap();
    let kinds: Vec<_> = records(folder.path())
        .iter()
        .map(|record| (if matches!(record, Record::Train { .. }) { "train" } else { "epoch" }, record.step()))
        .collect();
    let expected =
        [("train", 50), ("train", 66), ("epoch", 66), ("train", 100), ("train", 132), ("epoch", 132)];
    assert_eq!(kinds, expected);
}

#[test]
fn each_line_has_the_progress_of_the_run() {
    let (folder, config) = (tempdir().unwrap(), small_batches());
    train(&config, folder.path(), Start::Fresh).unwrap();
    let records = records(folder.path());
    assert_eq!(records.len(), 6);
    for record in records {
        match record {
            Record::Train { step, epoch, images, learning_rate, images_per_second, seconds, .. } => {
                assert_eq!(images, 3 * step);
                assert_near(epoch, step as f64 / 66.0);
                assert_near(learning_rate, config.learning_rate_at(step - 1, 132));
                assert!(images_per_second > 0.0 && seconds > 0.0);
            }
            Record::Epoch { epoch, step, .. } => assert_eq!(step, 66 * epoch),
            Record::Start { .. } => panic!("the run has random weights"),
        }
    }
}

/// The losses in the log are the means over the losses of single steps.
#[test]
fn losses_are_means_over_the_steps() {
    let (folder, config) = (tempdir().unwrap(), small_batches());
    train(&config, folder.path(), Start::Fresh).unwrap();
    let mut trainer = Trainer::new(&config, splits().train(), &Device::Cpu).unwrap();
    let mut step = || f64::from(trainer.train_step().unwrap().to_scalar::<f32>().unwrap());
    let losses: Vec<f64> = (0..132).map(|_| step()).collect();
    let mean = |range: std::ops::Range<usize>| losses[range.clone()].iter().sum::<f64>() / range.len() as f64;
    let expected = [mean(0..50), mean(50..66), mean(0..66), mean(66..100), mean(100..132), mean(66..132)];
    let records = records(folder.path());
    assert_eq!(records.len(), expected.len());
    for (record, expected) in std::iter::zip(records, expected) {
        match record {
            Record::Train { loss, .. } => assert_near(loss, expected),
            Record::Epoch { train_loss, .. } => assert_near(train_loss, expected),
            Record::Start { .. } => panic!("the run has random weights"),
        }
    }
}

#[test]
fn losses_fall_from_epoch_to_epoch() {
    let (folder, config) = (tempdir().unwrap(), TrainConfig { epochs: 12, ..config() });
    train(&config, folder.path(), Start::Fresh).unwrap();
    let losses: Vec<(f64, f64)> = records(folder.path())
        .into_iter()
        .filter_map(|record| match record {
            Record::Epoch { train_loss, test_loss, .. } => Some((train_loss, test_loss.unwrap())),
            _ => None,
        })
        .collect();
    assert_eq!(losses.len(), 12);
    assert!(losses[11].0 < losses[0].0 / 4.0 && losses[11].1 < losses[0].1 / 4.0, "{losses:?}");
}

#[test]
fn the_outcome_has_the_losses_of_the_last_epoch() {
    let (folder, config) = (tempdir().unwrap(), config());
    let outcome = train(&config, folder.path(), Start::Fresh).unwrap();
    let records = records(folder.path());
    let Some(&Record::Epoch { train_loss, test_loss, seconds, .. }) = records.last() else {
        panic!("{records:?}");
    };
    assert_near(outcome.train_loss.unwrap(), train_loss);
    assert_near(outcome.test_loss.unwrap(), test_loss.unwrap());
    assert_near(outcome.seconds, seconds);
    assert_near(outcome.images_per_second, 600.0 / seconds);
    let found = (outcome.epochs, outcome.steps, outcome.batch_size, outcome.images);
    assert_eq!(found, (3, 30, 20, 600));
    let test = splits().test().unwrap();
    assert_near(test_loss.unwrap(), evaluate_loss(&outcome.denoiser, &config, test, 40).unwrap());
}

#[test]
fn an_observer_gets_every_step_and_epoch_with_the_content_of_the_log() {
    let folder = tempdir().unwrap();
    let (mut steps, mut epochs, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    let observe = |event: Event<'_>| -> Observed {
        match event {
            Event::Step { step, total, loss } => {
                assert_eq!(total, 132);
                assert_eq!(loss.is_some(), step >= 50, "no loss is known before the first line");
                steps.push(step);
                losses.extend(loss.filter(|_| step == 50 || step == 60));
            }
            Event::Saved { step } => assert_eq!(Some(&step), steps.last()),
            Event::Resumed { .. } => return Err("a fresh run is not resumed".into()),
            Event::Epoch { record, denoiser } => {
                assert_eq!(denoiser.unwrap().config(), &small_batches().denoiser);
                epochs.push(record.clone());
            }
        }
        Ok(())
    };
    run(&small_batches(), splits(), folder.path(), options(Start::Fresh), &Device::Cpu, observe).unwrap();
    assert!(steps.iter().copied().eq(1..=132));
    assert_eq!(losses[0], losses[1], "the loss of the last line");
    let logged = records(folder.path()).into_iter().filter(|record| matches!(record, Record::Epoch { .. }));
    assert_eq!(epochs.len(), logged.count());
}

#[test]
fn without_a_test_set_there_is_no_test_loss() {
    for data in [labelled(200, 0), unlabelled(200, 0)] {
        let (folder, config) = (tempdir().unwrap(), config_for(&data));
        let splits = Splits::new("alone", data, None).unwrap();
        let outcome =
            run(&config, &splits, folder.path(), options(Start::Fresh), &Device::Cpu, |_| Ok(())).unwrap();
        assert!(outcome.test_loss.is_none() && outcome.train_loss.is_some());
        let text = fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
        assert_eq!(text.matches("\"test_loss\":null").count(), 3, "{text}");
    }
}

#[test]
fn a_truncated_line_is_removed_when_the_run_resumes() {
    let (folder, whole) = (tempdir().unwrap(), tempdir().unwrap());
    train(&config(), whole.path(), Start::Fresh).unwrap();
    train_until(&config(), folder.path(), Start::Fresh, |event| is_epoch(event, 2));
    let log = folder.path().join("metrics.jsonl");
    let mut file = fs::OpenOptions::new().append(true).open(&log).unwrap();
    file.write_all(b"{\"kind\":\"train\",\"step\":21,\"ep").unwrap();
    drop(file);
    train(&config(), folder.path(), Start::Resume).unwrap();
    let steps = |records: Vec<Record>| records.iter().map(Record::step).collect::<Vec<_>>();
    assert_eq!(steps(records(folder.path())), steps(records(whole.path())));
}

#[test]
fn a_run_without_its_log_can_be_resumed() {
    let folder = tempdir().unwrap();
    train_until(&config(), folder.path(), Start::Fresh, |event| is_step(event, 25));
    fs::remove_file(folder.path().join("metrics.jsonl")).unwrap();
    let outcome = train(&config(), folder.path(), Start::Resume).unwrap();
    assert!(outcome.train_loss.is_some());
    assert_eq!(records(folder.path()).len(), 2);
}

/// A byte that is not text, a truncated line and a line of another program.
#[test]
fn a_run_resumes_after_damage_to_any_line_of_its_log() {
    let whole = tempdir().unwrap();
    train(&small_batches(), whole.path(), Start::Fresh).unwrap();
    let lines = records(whole.path()).len();
    for damage in [&b"\xff"[..], b"\xff\n", b"\0", b"{\"kind\":", b"{}\n", b"\n\n"] {
        for at in [0, 10, usize::MAX] {
            let folder = tempdir().unwrap();
            train_until(&small_batches(), folder.path(), Start::Fresh, |event| is_step(event, 80));
            let path = folder.path().join("metrics.jsonl");
            let mut log = fs::read(&path).unwrap();
            let at = at.min(log.len());
            log.splice(at..at, damage.iter().copied());
            fs::write(&path, log).unwrap();
            train(&small_batches(), folder.path(), Start::Resume).unwrap();
            // At most the damaged line is lost.
            assert!((lines - 1..=lines).contains(&records(folder.path()).len()), "{damage:?} at {at}");
        }
    }
}
