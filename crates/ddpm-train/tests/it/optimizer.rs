//! AdamW and the moving average, checked on the state before and after each step.

use std::collections::BTreeMap;

use candle_core::Device;
use ddpm_train::{AdamWConfig, TrainConfig, Trainer};

use crate::{config, splits, values};

type State = BTreeMap<String, Vec<f32>>;

fn state(trainer: &Trainer<'_>) -> State {
    trainer.state().unwrap().into_iter().map(|(name, tensor)| (name, values(&tensor))).collect()
}

/// Checks a value within the rounding error of f32 for a sum whose terms have the size `scale`.
fn assert_near(found: f32, expected: f64, scale: f64, what: &str) {
    let error = (f64::from(found) - expected).abs();
    assert!(error <= 1e-6 * scale.abs() + 1e-12, "{what}: {found}, expected {expected}");
}

/// Checks one step against the formulas of Loshchilov & Hutter 2019, algorithm 2, in f64. The gradient is computed from
/// the change of the first moment.
fn check_step(config: &TrainConfig, before: &State, after: &State, step: u64, total: u64, matrix: &str) {
    let AdamWConfig { beta1, beta2, eps, weight_decay } = config.adamw;
    let lr = config.learning_rate_at(step, total);
    let k = i32::try_from(step).unwrap() + 1;
    let decay = if matrix.ends_with(".weight") { weight_decay } else { 0.0 };
    let d = config.ema_decay.min((1.0 + step as f64) / (10.0 + step as f64));
    let part = |state: &State, part: &str| state[&format!("{part}/{matrix}")].clone();
    for i in 0..part(after, "weights").len() {
        let [w0, m0, v0, e0] =
            ["weights", "first", "second", "ema"].map(|name| f64::from(part(before, name)[i]));
        let [w1, m1, v1, e1] = ["weights", "first", "second", "ema"].map(|name| part(after, name)[i]);
        let (m, v, w) = (f64::from(m1), f64::from(v1), f64::from(w1));
        let g = (m - beta1 * m0) / (1.0 - beta1);
        // g is computed from m, which multiplies the rounding error of m by 1/(1 − β₁).
        let g_error = 1e-5 * (m.abs() + m0.abs());
        let expected = beta2 * v0 + (1.0 - beta2) * g * g;
        let scale = expected + 1e6 * (1.0 - beta2) * (2.0 * g.abs() * g_error + g_error * g_error);
        assert_near(v1, expected, scale, &format!("second moment of {matrix} after step {k}"));
        let change = lr * (m / (1.0 - beta1.powi(k))) / ((v / (1.0 - beta2.powi(k))).sqrt() + eps);
        let expected = w0 - lr * decay * w0 - change;
        assert_near(w1, expected, w0.abs() + change.abs(), &format!("{matrix} after step {k}"));
        let expected = d * e0 + (1.0 - d) * w;
        assert_near(e1, expected, e0.abs() + w.abs(), &format!("average of {matrix} after step {k}"));
    }
}

#[test]
fn every_step_is_adamw_with_a_moving_average() {
    let adamw = AdamWConfig { beta1: 0.8, beta2: 0.95, eps: 1e-6, weight_decay: 0.3 };
    let config = TrainConfig { adamw, ema_decay: 0.4, ..config() };
    let mut trainer = Trainer::new(&config, splits().train(), &Device::Cpu).unwrap();
    let (parameters, total) = (config.denoiser.parameters(), trainer.total_steps());
    let mut before = state(&trainer);
    for step in 0..12 {
        trainer.train_step().unwrap();
        let after = state(&trainer);
        for parameter in &parameters {
            check_step(&config, &before, &after, step, total, &parameter.name);
        }
        before = after;
    }
}

#[test]
fn the_average_starts_at_the_weights_and_the_moments_at_zero() {
    let trainer = Trainer::new(&config(), splits().train(), &Device::Cpu).unwrap();
    let state = state(&trainer);
    for parameter in config().denoiser.parameters() {
        let part = |part: &str| &state[&format!("{part}/{}", parameter.name)];
        assert_eq!(part("ema"), part("weights"));
        assert!(part("first").iter().chain(part("second")).all(|&x| x == 0.0));
    }
}
