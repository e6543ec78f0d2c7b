//! Averages whose length is chosen after training: their definition, and averages from snapshots.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use candle_core::Device;
use ddpm_train::{Error, Start, TrainConfig, Trainer, average_snapshots};
use tempfile::{TempDir, tempdir};

use crate::{bits, config, names, splits, train, values};

/// 30 steps with a snapshot after every fifth one.
pub(crate) fn with_snapshots() -> TrainConfig {
    TrainConfig { ema_snapshots: 6, ..config() }
}

/// The γ of a relative length, by bisection of its definition.
fn gamma(sigma_rel: f64) -> f64 {
    let (mut low, mut high) = (0.0_f64, 1e6);
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        let length = ((middle + 1.0) / (middle + 3.0)).sqrt() / (middle + 2.0);
        *(if length > sigma_rel { &mut low } else { &mut high }) = middle;
    }
    low
}

/// A list of numbers for each parameter.
type Parameters = BTreeMap<String, Vec<f64>>;

/// A part of the trainer's state.
fn part(trainer: &Trainer<'_>, part: &str) -> Parameters {
    let of_part = |(name, tensor): (String, _)| {
        let name = name.strip_prefix(part)?.strip_prefix('/')?.to_owned();
        Some((name, values(&tensor).into_iter().map(f64::from).collect()))
    };
    trainer.state().unwrap().into_iter().filter_map(of_part).collect()
}

/// The weights after each update of the averages: after every eighth step, and those of the snapshots.
fn trajectory(config: &TrainConfig) -> Vec<(u64, Parameters)> {
    let mut trainer = Trainer::new(config, splits().train(), &Device::Cpu).unwrap();
    let (total, mut weights) = (trainer.total_steps(), Vec::new());
    let snapshots: Vec<u64> = (1..=config.ema_snapshots as u64)
        .map(|snapshot| (snapshot * total).div_ceil(config.ema_snapshots as u64))
        .collect();
    for step in 1..=total {
        trainer.train_step().unwrap();
        if step % 8 == 0 || snapshots.contains(&step) {
            weights.push((step, part(&trainer, "weights")));
        }
    }
    weights
}

/// The average up to the last of the weights: the integral of the power function times the weights, which are held between
/// the updates.
fn direct(weights: &[(u64, Parameters)], sigma_rel: f64) -> Parameters {
    let last = weights.last().unwrap();
    let mut sums: Parameters = last.1.iter().map(|(name, v)| (name.clone(), vec![0.0; v.len()])).collect();
    let mut before = 0.0;
    for (step, weights) in weights {
        let until = (*step as f64 / last.0 as f64).powf(gamma(sigma_rel) + 1.0);
        for (name, sum) in &mut sums {
            for (sum, weight) in std::iter::zip(sum, &weights[name]) {
                *sum += (until - before) * weight;
            }
        }
        before = until;
    }
    sums
}

/// The largest difference between two lists of parameters.
fn difference(a: &Parameters, b: &Parameters) -> f64 {
    assert!(a.keys().eq(b.keys()));
    let pairs = std::iter::zip(a.values().flatten(), b.values().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn the_averages_are_those_of_their_definition() {
    let trajectory = trajectory(&with_snapshots());
    let mut trainer = Trainer::new(&with_snapshots(), splits().train(), &Device::Cpu).unwrap();
    let mut far = 0.0_f64;
    for step in 1..=30 {
        trainer.train_step().unwrap();
        let until = trajectory.iter().filter(|(update, _)| *update <= step).count();
        for (name, sigma_rel) in [("ema-0.05", 0.05), ("ema-0.10", 0.10)] {
            let found = part(&trainer, name);
            if until == 0 {
                assert!(found.values().flatten().all(|&value| value == 0.0), "before the first update");
                continue;
            }
            let expected = direct(&trajectory[..until], sigma_rel);
            let error = difference(&found, &expected);
            assert!(error < 1e-6, "{name} after step {step}: {error}");
            far = far.max(difference(&part(&trainer, "weights"), &expected));
        }
    }
    assert!(far > 0.01, "the weights move: {far}");
}

#[test]
fn without_snapshots_the_run_is_the_same() {
    let (with, without) = (tempdir().unwrap(), tempdir().unwrap());
    let ours = train(&with_snapshots(), with.path(), Start::Fresh).unwrap();
    let theirs = train(&config(), without.path(), Start::Fresh).unwrap();
    assert_eq!(bits(ours.denoiser.weights()), bits(theirs.denoiser.weights()));
    assert_eq!(names(without.path()), [".lock", "checkpoints", "metrics.jsonl"]);
    let names = |config: &TrainConfig| {
        let trainer = Trainer::new(config, splits().train(), &Device::Cpu).unwrap();
        trainer.state().unwrap().into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert!(names(&config()).iter().all(|name| !name.starts_with("ema-")));
    assert!(names(&with_snapshots()).contains(&"ema-0.05/input.weight".to_owned()));
}

/// A finished run of [`with_snapshots`].
pub(crate) fn finished() -> TempDir {
    let folder = tempdir().unwrap();
    train(&with_snapshots(), folder.path(), Start::Fresh).unwrap();
    folder
}

/// The snapshot of a step in the folder of a run.
pub(crate) fn snapshot(folder: &Path, step: u64) -> PathBuf {
    folder.join(format!("snapshots/step-{step:08}"))
}

/// The weights of a network.
fn weights(denoiser: &ddpm_model::Denoiser) -> Parameters {
    let of =
        |(name, tensor): (&String, _)| (name.clone(), values(tensor).into_iter().map(f64::from).collect());
    denoiser.weights().iter().map(of).collect()
}

/// Compares with the average over the weights of all updates, at the end of the run and in its middle. The tolerance is that
/// of f16, which keeps 11 bits, times the size of the factors. The average of another length is further away.
#[test]
fn an_average_of_any_length_is_made_from_the_snapshots() {
    // The learning rate rises until the end, so the weights move.
    let config =
        TrainConfig { epochs: 40, learning_rate: 3e-2, warmup_fraction: 0.95, ema_snapshots: 20, ..config() };
    let folder = tempdir().unwrap();
    train(&config, folder.path(), Start::Fresh).unwrap();
    let trajectory = trajectory(&config);
    for (sigma_rel, step, tolerance) in [
        (0.05, None, 1e-3),
        (0.10, None, 1e-3),
        (0.03, None, 6e-3),
        (0.07, None, 2e-3),
        (0.2, None, 4e-3),
        (0.10, Some(200), 1e-3),
        (0.06, Some(340), 2e-3),
    ] {
        let average = average_snapshots(folder.path(), sigma_rel, step).unwrap();
        let until = trajectory.iter().filter(|(update, _)| *update <= step.unwrap_or(400)).count();
        let expected = |sigma_rel| direct(&trajectory[..until], sigma_rel);
        let error = difference(&weights(&average.denoiser), &expected(sigma_rel));
        assert!(error < tolerance, "{sigma_rel} {step:?}: {error}");
        let far = difference(&expected(sigma_rel), &expected(sigma_rel * 0.7));
        assert!(far > 2.0 * tolerance, "{sigma_rel} {step:?}: {far}");
        assert_eq!((average.step, average.snapshots), (step.unwrap_or(400), 20));
        assert_eq!(average.config, config);
        assert!((0.0..=0.06).contains(&average.error));
    }
}

#[test]
fn lengths_that_cannot_be_had_are_refused_with_those_that_can() {
    let folder = finished();
    let refused = |sigma_rel, step| {
        let error = average_snapshots(folder.path(), sigma_rel, step).unwrap_err();
        assert!(matches!(error, Error::OutOfRange { .. }), "{error}");
        error.to_string()
    };
    let text = refused(0.4, None);
    let (found, expected) = text.split_once(", expected ").unwrap();
    assert_eq!(found, "sigma_rel is 0.4");
    let (range, rest) = expected.split_once(", ").unwrap();
    assert_eq!(rest, "the lengths that 6 snapshots can represent");
    let (shortest, longest) = range.split_once(" to ").unwrap();
    let [shortest, longest]: [f64; 2] = [shortest, longest].map(|limit| limit.parse().unwrap());
    assert!(shortest > 0.03 && shortest < 0.05 && longest > 0.1 && longest < 0.25, "{text}");
    for sigma_rel in [shortest, longest] {
        average_snapshots(folder.path(), sigma_rel, None).unwrap();
    }
    for sigma_rel in [shortest - 0.001, longest + 0.01, 0.288, 1e-200, 0.0, -0.1, f64::NAN, f64::INFINITY] {
        let text = refused(sigma_rel, None);
        assert!(text.contains(&format!("sigma_rel is {sigma_rel}, expected {range}")), "{text}");
    }
    assert_eq!(
        refused(0.1, Some(17)),
        "the step of an average is 17, expected the step of a snapshot, such as 15 or 20"
    );
    assert!(refused(0.1, Some(31)).ends_with("such as 30"));
}

#[test]
fn a_run_without_snapshots_and_a_damaged_one_are_named() {
    let folder = tempdir().unwrap();
    train(&config(), folder.path(), Start::Fresh).unwrap();
    let error = average_snapshots(folder.path(), 0.1, None).unwrap_err();
    assert!(matches!(&error, Error::NoSnapshot { path } if *path == folder.path().join("snapshots")));
    assert!(error.to_string().contains("`ema_snapshots`"), "{error}");
    for file in ["manifest.json", "state.json", "state.safetensors"] {
        let folder = finished();
        let path = snapshot(folder.path(), 15);
        let mut bytes = fs::read(path.join(file)).unwrap();
        let middle = bytes.len().div_euclid(2);
        bytes[middle] ^= 1;
        fs::write(path.join(file), bytes).unwrap();
        let error = average_snapshots(folder.path(), 0.1, None).unwrap_err();
        assert!(matches!(&error, Error::DamagedSnapshot { path: named } if *named == path), "{error}");
        fs::remove_dir_all(&path).unwrap();
        assert_eq!(average_snapshots(folder.path(), 0.1, None).unwrap().snapshots, 5);
    }
}

#[test]
fn snapshots_of_different_runs_are_not_mixed() {
    let (folder, other) = (finished(), tempdir().unwrap());
    train(&TrainConfig { seed: 2, ..with_snapshots() }, other.path(), Start::Fresh).unwrap();
    fs::remove_dir_all(snapshot(folder.path(), 10)).unwrap();
    fs::rename(snapshot(other.path(), 10), snapshot(folder.path(), 10)).unwrap();
    let error = average_snapshots(folder.path(), 0.1, None).unwrap_err();
    assert!(
        matches!(&error, Error::OtherConfig { key, path, .. }
        if key == "seed" && *path == snapshot(folder.path(), 10)),
        "{error}"
    );
}
