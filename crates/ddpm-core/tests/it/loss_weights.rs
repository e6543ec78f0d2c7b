//! The loss weights: their closed forms, and the weighted errors of a network.

use candle_core::{DType, Device, Tensor};
use ddpm_core::{
    CounterRng, LossWeighting, NoiseSchedule, NoiseScheduleConfig,
    PredictionType::{self, Epsilon, Sample, VPrediction},
    Purpose,
};

use crate::velocity;

const LOSSES: [LossWeighting; 5] = [
    LossWeighting::Epsilon,
    LossWeighting::Sample,
    LossWeighting::VPrediction,
    LossWeighting::MinSnr,
    LossWeighting::ClampedSnr,
];
const OUTPUTS: [PredictionType; 3] = [Epsilon, Sample, VPrediction];

fn schedule() -> NoiseSchedule {
    NoiseSchedule::new(&NoiseScheduleConfig::mnist20()).unwrap()
}

/// ᾱ of every timestep, computed from the definition: 20 betas from 0.001 to 0.7.
fn alphas_cumprod() -> Vec<f64> {
    let mut product = 1.0;
    let mut next = |t: i32| {
        product *= 1.0 - (0.001 + 0.699 * f64::from(t) / 19.0);
        product
    };
    (0..20).map(&mut next).collect()
}

fn assert_close(found: f64, expected: f64, what: &str) {
    assert!((found / expected - 1.0).abs() < 1e-9, "{what}: {found}, expected {expected}");
}

/// With SNR = ᾱ/(1−ᾱ), SNR + 1 = 1/(1−ᾱ).
#[test]
fn weights_are_their_closed_forms() {
    type Form = fn(f64) -> f64;
    let snr: Form = |a| a / (1.0 - a);
    let min_snr: Form = |a| (a / (1.0 - a)).min(5.0);
    let clamped_snr: Form = |a| (a / (1.0 - a)).clamp(1.0, 5.0);
    let table: [(LossWeighting, PredictionType, Form); 15] = [
        (LossWeighting::Epsilon, Epsilon, |_| 1.0),
        (LossWeighting::Epsilon, Sample, snr),
        (LossWeighting::Epsilon, VPrediction, |a| a),
        (LossWeighting::Sample, Epsilon, |a| (1.0 - a) / a),
        (LossWeighting::Sample, Sample, |_| 1.0),
        (LossWeighting::Sample, VPrediction, |a| 1.0 - a),
        (LossWeighting::VPrediction, Epsilon, |a| 1.0 / a),
        (LossWeighting::VPrediction, Sample, |a| 1.0 / (1.0 - a)),
        (LossWeighting::VPrediction, VPrediction, |_| 1.0),
        (LossWeighting::MinSnr, Epsilon, |a| (5.0 * (1.0 - a) / a).min(1.0)),
        (LossWeighting::MinSnr, Sample, min_snr),
        (LossWeighting::MinSnr, VPrediction, |a| (5.0 * (1.0 - a)).min(a)),
        (LossWeighting::ClampedSnr, Epsilon, |a| (5.0 * (1.0 - a) / a).min(1.0).max((1.0 - a) / a)),
        (LossWeighting::ClampedSnr, Sample, clamped_snr),
        (LossWeighting::ClampedSnr, VPrediction, |a| (5.0 * (1.0 - a)).min(a).max(1.0 - a)),
    ];
    for (loss, output, form) in table {
        let weights = loss.weights(&schedule(), output).unwrap();
        assert_eq!(weights.len(), 20);
        for (t, (weight, alpha_cumprod)) in std::iter::zip(weights, alphas_cumprod()).enumerate() {
            assert_close(weight, form(alpha_cumprod), &format!("{loss:?} of {output:?} at t = {t}"));
        }
    }
}

#[test]
fn min_snr_meets_both_of_its_branches() {
    let weights = LossWeighting::MinSnr.weights(&schedule(), Sample).unwrap();
    assert_eq!(weights[0], 5.0);
    assert!(weights[19] < 1e-4, "{}", weights[19]);
}

#[test]
fn clamped_snr_meets_its_three_branches() {
    let weights = LossWeighting::ClampedSnr.weights(&schedule(), Sample).unwrap();
    assert_eq!((weights[0], weights[19]), (5.0, 1.0));
    assert!(weights.iter().any(|&weight| weight > 1.0 && weight < 5.0), "{weights:?}");
}

fn normal(index: u64, pixels: usize) -> Tensor {
    let rng = CounterRng::new(3);
    rng.normal(Purpose::EVALUATION, &[index], 0, &[pixels], DType::F64, &Device::Cpu).unwrap()
}

fn mean_square(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).unwrap().sqr().unwrap().mean_all().unwrap().to_scalar().unwrap()
}

/// The purpose of the weights: for any parameterization the weighted error of the output is the unweighted error of the
/// quantity of the loss.
#[test]
fn the_weighted_error_of_an_output_is_the_error_in_the_space_of_the_loss() {
    let schedule = schedule();
    let (x_start, eps) = (normal(0, 50), normal(1, 50));
    for (loss, space) in [
        (LossWeighting::Epsilon, Epsilon),
        (LossWeighting::Sample, Sample),
        (LossWeighting::VPrediction, VPrediction),
    ] {
        for output in OUTPUTS {
            let weights = loss.weights(&schedule, output).unwrap();
            for (t, weight) in weights.iter().enumerate() {
                let x_t = schedule.q_sample(&x_start, &[t], &eps).unwrap();
                let truth = |kind| match kind {
                    Epsilon => eps.clone(),
                    Sample => x_start.clone(),
                    VPrediction => velocity(&schedule, &x_start, &[t], &eps),
                    other => panic!("no closed form of {other:?}"),
                };
                let raw = (truth(output) + (normal(2, 50) * 0.1).unwrap()).unwrap();
                let seen = schedule.convert(output, space, &raw, &x_t, &[t]).unwrap();
                let weighted = weight * mean_square(&raw, &truth(output));
                let what = format!("{loss:?} of {output:?} at t = {t}");
                assert_close(weighted, mean_square(&seen, &truth(space)), &what);
            }
        }
    }
}

#[test]
fn a_perfect_prediction_has_no_error_in_any_space() {
    let schedule = schedule();
    let (x_start, eps) = (normal(0, 50), normal(1, 50));
    let x_t = schedule.q_sample(&x_start, &[7], &eps).unwrap();
    let seen = schedule.convert(Sample, Epsilon, &x_start, &x_t, &[7]).unwrap();
    assert!(mean_square(&seen, &eps) < 1e-20);
}

#[test]
fn names_in_files_are_those_of_the_command_line() {
    let names = LOSSES.map(|loss| serde_json::to_string(&loss).unwrap());
    assert_eq!(names, ["\"epsilon\"", "\"sample\"", "\"v_prediction\"", "\"min_snr\"", "\"clamped_snr\""]);
}
