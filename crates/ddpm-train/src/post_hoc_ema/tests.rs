//! The definition of the averages, and their reconstruction along weights that are known in closed form.

use super::{
    profile::{Basis, Profile, gamma},
    *,
};

fn timetable(snapshots: u64, total: u64) -> Timetable {
    Timetable { snapshots, total }
}

fn snapshot_steps(timetable: Timetable) -> Vec<u64> {
    (1..=timetable.total).filter(|&step| timetable.has_snapshot(step)).collect()
}

fn update_steps(timetable: Timetable) -> Vec<u64> {
    (1..=timetable.total).filter(|&step| timetable.rates(step).is_some()).collect()
}

#[test]
fn snapshots_are_evenly_spaced_and_the_last_is_that_of_the_last_step() {
    assert_eq!(snapshot_steps(timetable(0, 10)), [0; 0]);
    assert_eq!(snapshot_steps(timetable(1, 10)), [10]);
    assert_eq!(snapshot_steps(timetable(4, 10)), [3, 5, 8, 10]);
    assert_eq!(snapshot_steps(timetable(10, 10)), (1..=10).collect::<Vec<_>>());
    assert_eq!(snapshot_steps(timetable(25, 3)), [1, 2, 3]);
    for (snapshots, total) in [(7, 100), (32, 5616), (256, 257)] {
        let steps = snapshot_steps(timetable(snapshots, total));
        assert_eq!((steps.len() as u64, *steps.last().unwrap()), (snapshots, total));
        let distances = steps.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(distances.clone().max().unwrap() - distances.min().unwrap() <= 1);
    }
}

#[test]
fn averages_are_updated_at_every_eighth_step_and_at_snapshots() {
    assert_eq!(update_steps(timetable(0, 30)), [0; 0]);
    assert_eq!(update_steps(timetable(3, 30)), [8, 10, 16, 20, 24, 30]);
}

/// An average in f64 by the rates, over weights that are a function of the step.
fn updated(timetable: Timetable, index: usize, weights: impl Fn(u64) -> f64) -> Vec<f64> {
    let mut average = 0.0;
    let mut at_snapshots = Vec::new();
    for step in 1..=timetable.total {
        if let Some(rates) = timetable.rates(step) {
            average += rates[index] * (weights(step) - average);
        }
        if timetable.has_snapshot(step) {
            at_snapshots.push(average);
        }
    }
    at_snapshots
}

/// ∫ p(τ) θ(τ) dτ up to the last step, for weights that are held between updates.
fn direct(timetable: Timetable, gamma: f64, weights: impl Fn(u64) -> f64) -> f64 {
    let (mut sum, mut before) = (0.0, 0.0);
    for step in update_steps(timetable) {
        let until = (step as f64 / timetable.total as f64).powf(gamma + 1.0);
        sum += (until - before) * weights(step);
        before = until;
    }
    sum
}

/// Weights that jump back and forth.
fn rough(step: u64) -> f64 {
    let bits = step.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    f64::from(bits.to_be_bytes()[0]) / 127.5 - 1.0
}

#[test]
fn an_average_is_the_integral_of_its_power_function() {
    for timetable in [timetable(3, 30), timetable(1, 8), timetable(5, 1003), timetable(9, 4)] {
        for (index, sigma_rel) in SIGMA_RELS.into_iter().enumerate() {
            let found = *updated(timetable, index, rough).last().unwrap();
            let expected = direct(timetable, gamma(sigma_rel), rough);
            assert!((found - expected).abs() < 1e-12, "{timetable:?} {sigma_rel}: {found} {expected}");
        }
    }
}

/// The average of 32 snapshots, as `average_snapshots` makes it, and its error.
fn reconstructed(timetable: Timetable, sigma_rel: f64, weights: impl Fn(u64) -> f64 + Copy) -> (f64, f64) {
    let steps = snapshot_steps(timetable);
    let profiles = |&step: &u64| SIGMA_RELS.map(|sigma_rel| Profile::new(step as f64, sigma_rel));
    let basis = Basis::new(steps.iter().flat_map(profiles).collect());
    let sum = basis.sum(Profile::new(timetable.total as f64, sigma_rel));
    let [short, long] = [0, 1].map(|index| updated(timetable, index, weights));
    let averages = short.into_iter().zip(long).flat_map(|(short, long)| [short, long]);
    (sum.factors.iter().zip(averages).map(|(factor, average)| factor * average).sum(), sum.error)
}

const LENGTHS: [f64; 7] = [0.03, 0.04, 0.06, 0.08, 0.12, 0.15, 0.2];

/// For θ(τ) = (τ/t)^p, the average is (γ+1)/(γ+1+p). Its distance from the average of the held weights is about that of
/// half an update, 4p of 64000 steps.
#[test]
fn weights_that_follow_a_power_are_averaged_as_in_closed_form() {
    let timetable = timetable(32, 64_000);
    for power in [0.0, 0.5, 1.0, 2.5] {
        for sigma_rel in LENGTHS {
            let (found, _) = reconstructed(timetable, sigma_rel, |step| (step as f64 / 64_000.0).powf(power));
            let expected = (gamma(sigma_rel) + 1.0) / (gamma(sigma_rel) + 1.0 + power);
            assert!((found - expected).abs() < 3e-4, "{power} {sigma_rel}: {found} {expected}");
        }
    }
}

/// Against the sum over all updates. By the inequality of Cauchy and Schwarz, the difference is at most the norm of the
/// difference between the power functions times the norm of the weights, here at most √t.
#[test]
fn weights_of_any_kind_are_averaged_within_the_reported_error() {
    let timetable = timetable(32, 6_400);
    type Weights = fn(u64) -> f64;
    let cases: [(&str, Weights); 3] = [
        ("rough", rough),
        ("wave", |step| (step as f64 / 150.0).sin()),
        ("jump", |step| if step < 6_000 { 0.0 } else { 1.0 }),
    ];
    for (name, weights) in cases {
        for sigma_rel in LENGTHS {
            let (found, error) = reconstructed(timetable, sigma_rel, weights);
            let gamma = gamma(sigma_rel);
            let difference = (found - direct(timetable, gamma, weights)).abs();
            let bound = error * (gamma + 1.0) / (2.0 * gamma + 1.0).sqrt();
            assert!(difference <= bound && bound < 0.05, "{name} {sigma_rel}: {difference} {bound}");
        }
    }
}
