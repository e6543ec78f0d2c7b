//! Training lowers the loss on test images.

use candle_core::Device;
use ddpm_core::{
    LossWeighting,
    PredictionType::{self, Epsilon, Sample, VPrediction},
};
use ddpm_data::Dataset;
use ddpm_model::{DenoiserConfig, Network};
use ddpm_train::{AdamWConfig, Error, Start, TrainConfig, Trainer, evaluate_loss};
use tempfile::tempdir;

use crate::{config, config_for, names, small_plain, splits, train, unlabelled};

/// The factor by which training lowers the averaged weights' loss on test images.
fn improvement(config: &TrainConfig, train: &Dataset, test: &Dataset) -> f64 {
    let config = TrainConfig { epochs: 40, learning_rate: 1e-2, ..config.clone() };
    let mut trainer = Trainer::new(&config, train, &Device::Cpu).unwrap();
    let loss = |trainer: &Trainer<'_>| {
        evaluate_loss(&trainer.ema_denoiser().unwrap(), &config, test, usize::MAX).unwrap()
    };
    let before = loss(&trainer);
    while trainer.step() < trainer.total_steps() {
        trainer.train_step().unwrap();
    }
    before / loss(&trainer)
}

/// White noise has the full rank of the image, and a network of this width cannot reproduce it. So a network that emits
/// x₀ learns much faster than one that emits ε; v lies between.
fn expected_improvement(output: PredictionType) -> f64 {
    match output {
        Epsilon => 1.5,
        Sample => 20.0,
        VPrediction => 1.8,
        other => panic!("no expectation for {other:?}"),
    }
}

#[test]
fn every_loss_falls_for_every_output() {
    let (train, test) = (splits().train(), splits().test().unwrap());
    for loss in
        [LossWeighting::Epsilon, LossWeighting::Sample, LossWeighting::VPrediction, LossWeighting::MinSnr]
    {
        for output in [Epsilon, Sample, VPrediction] {
            let mut config = TrainConfig { loss, ..config() };
            config.denoiser.parameterization = output;
            let factor = improvement(&config, train, test);
            assert!(factor > expected_improvement(output), "{loss:?} of {output:?} falls {factor} times");
        }
    }
}

#[test]
fn the_plain_network_learns() {
    let (train, test) = (splits().train(), splits().test().unwrap());
    for (loss, output) in [(LossWeighting::Epsilon, Epsilon), (LossWeighting::Sample, Sample)] {
        let mut config = TrainConfig { loss, ..config() };
        config.denoiser =
            DenoiserConfig { network: small_plain(), parameterization: output, ..config.denoiser.clone() };
        let factor = improvement(&config, train, test);
        assert!(factor > expected_improvement(output), "{loss:?} of {output:?} falls {factor} times");
    }
}

#[test]
fn images_without_classes_are_learnt() {
    let (train, test) = (unlabelled(200, 0), unlabelled(40, 7_000_000));
    let config = config_for(&train);
    assert_eq!(config.denoiser.num_classes, 0);
    let factor = improvement(&config, &train, &test);
    assert!(factor > 2.5, "falls {factor} times");
}

/// Without the class, the network must guess the bar's position under strong noise.
#[test]
fn knowing_the_class_lowers_the_loss() {
    let (train, test) = (splits().train(), splits().test().unwrap());
    let with = |cond_drop_prob| {
        let config = TrainConfig { cond_drop_prob, epochs: 10, ..config() };
        let mut trainer = Trainer::new(&config, train, &Device::Cpu).unwrap();
        while trainer.step() < trainer.total_steps() {
            trainer.train_step().unwrap();
        }
        evaluate_loss(&trainer.ema_denoiser().unwrap(), &config, test, usize::MAX).unwrap()
    };
    let (known, unknown) = (with(0.0), with(1.0));
    assert!(known < 0.7 * unknown, "with the class {known}, without {unknown}");
}

/// Steps of size 1 in 24 layers without residuals make activations overflow.
#[test]
fn a_run_whose_loss_is_not_finite_ends_without_a_checkpoint() {
    let folder = tempdir().unwrap();
    let network = Network::Plain { width: 16, layers: 24, embedding: 8 };
    let config = TrainConfig {
        learning_rate: 1.0,
        warmup_fraction: 0.0,
        adamw: AdamWConfig { eps: 1e-20, ..AdamWConfig::default() },
        denoiser: DenoiserConfig { network, ..config().denoiser },
        ..config()
    };
    let error = train(&config, folder.path(), Start::Fresh).map(|_| ()).unwrap_err();
    assert!(matches!(&error, Error::Diverged { step: 10, loss } if !loss.is_finite()), "{error}");
    assert!(error.to_string().contains("a smaller learning rate may help"), "{error}");
    assert_eq!(names(folder.path()), [".lock", "metrics.jsonl"]);
}
