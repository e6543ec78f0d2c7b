//! The optimizer's gradient is the gradient of the loss that a step reports.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use ddpm_core::{LossWeighting, PredictionType};
use ddpm_model::{DenoiserConfig, Network};
use ddpm_train::{Error, TrainConfig, Trainer};

use crate::{config, small_mlp, small_plain, splits, values};

type Weights = BTreeMap<String, Vec<f32>>;

fn weights(trainer: &Trainer<'_>) -> Weights {
    let of =
        |(name, tensor): (String, Tensor)| Some((name.strip_prefix("weights/")?.to_owned(), values(&tensor)));
    trainer.state().unwrap().into_iter().filter_map(of).collect()
}

/// Takes the first step from these weights and returns its loss and the first moments, which are (1 − β₁) times the
/// gradient.
fn first_step(trainer: &mut Trainer<'_>, weights: &Weights) -> (f64, Weights) {
    let get = |name: &str, shape: &[usize]| {
        let size = shape.iter().product();
        let values =
            name.strip_prefix("weights/").map_or_else(|| vec![0.0; size], |name| weights[name].clone());
        Tensor::from_vec(values, shape, &Device::Cpu).map_err(Error::from)
    };
    trainer.restore(0, get).unwrap();
    let loss = trainer.train_step().unwrap().to_scalar::<f32>().unwrap();
    let of =
        |(name, tensor): (String, Tensor)| Some((name.strip_prefix("first/")?.to_owned(), values(&tensor)));
    (f64::from(loss), trainer.state().unwrap().into_iter().filter_map(of).collect())
}

/// Returns `weights` with one parameter moved by `length` along a direction.
fn moved(weights: &Weights, name: &str, direction: &[f64], length: f64) -> Weights {
    let mut moved = weights.clone();
    for (weight, along) in std::iter::zip(moved.get_mut(name).unwrap(), direction) {
        #[allow(clippy::cast_possible_truncation, reason = "weights are f32")]
        let change = (length * along) as f32;
        *weight += change;
    }
    moved
}

fn check(network: Network, loss: LossWeighting, parameterization: PredictionType) {
    let config = TrainConfig { loss, cond_drop_prob: 0.3, batch_size: 50, ..config() };
    let config =
        TrainConfig { denoiser: DenoiserConfig { network, parameterization, ..config.denoiser }, ..config };
    let mut trainer = Trainer::new(&config, splits().train(), &Device::Cpu).unwrap();
    // Not at the initial weights, some of which are zero, so that other weights would have no gradient.
    for _ in 0..8 {
        trainer.train_step().unwrap();
    }
    let at = weights(&trainer);
    let (loss_here, moments) = first_step(&mut trainer, &at);
    for (name, moment) in moments {
        let gradient: Vec<f64> = moment.iter().map(|&m| f64::from(m) / (1.0 - config.adamw.beta1)).collect();
        let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        assert!(norm > 1e-5 * loss_here, "{name} has no gradient");
        let direction: Vec<f64> = gradient.iter().map(|g| g / norm).collect();
        // Long enough to change an f32 loss, short enough for the loss to be nearly linear.
        let length = (2e-3 * loss_here / norm).clamp(1e-3, 0.1);
        let mut loss = |length| first_step(&mut trainer, &moved(&at, &name, &direction, length)).0;
        let slope = (loss(length) - loss(-length)) / (2.0 * length);
        assert!(
            (slope / norm - 1.0).abs() < 0.02,
            "{name}: the loss rises by {slope}, the gradient is {norm}"
        );
    }
}

#[test]
fn gradient_of_the_residual_network() {
    check(small_mlp(), LossWeighting::Sample, PredictionType::Sample);
}

#[test]
fn gradient_of_two_residual_blocks() {
    let network = Network::Mlp { width: 20, hidden: 12, blocks: 2, embedding: 6 };
    check(network, LossWeighting::Sample, PredictionType::Sample);
}

#[test]
fn gradient_of_the_patch_network() {
    let network =
        Network::PatchMlp { patch: 4, local: 12, code: 6, width: 20, hidden: 12, blocks: 1, embedding: 6 };
    check(network, LossWeighting::Sample, PredictionType::Sample);
}

#[test]
fn gradient_of_the_plain_network() {
    check(small_plain(), LossWeighting::Epsilon, PredictionType::Epsilon);
}

#[test]
fn gradient_of_a_weighted_loss() {
    check(small_mlp(), LossWeighting::MinSnr, PredictionType::Sample);
    check(small_mlp(), LossWeighting::MinSnr, PredictionType::VPrediction);
    check(small_plain(), LossWeighting::VPrediction, PredictionType::Sample);
}
