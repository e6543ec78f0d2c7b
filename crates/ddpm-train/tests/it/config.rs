//! Presets, the learning rate, and invalid configurations.

use candle_core::Device;
use ddpm_core::{LossWeighting, PredictionType};
use ddpm_data::{Dataset, Images};
use ddpm_train::{AdamWConfig, Error, Preset, TrainConfig, Trainer, evaluate_loss};

use crate::{config, labelled, splits, unlabelled};

fn with_warmup(warmup_fraction: f64) -> TrainConfig {
    TrainConfig { learning_rate: 0.004, warmup_fraction, ..config() }
}

fn assert_close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-12, "{found}, expected {expected}");
}

#[test]
fn the_learning_rate_rises_linearly_to_its_peak() {
    let config = with_warmup(0.05);
    for (step, part) in [(0, 0.1), (1, 0.2), (4, 0.5), (8, 0.9), (9, 1.0), (10, 1.0)] {
        assert_close(config.learning_rate_at(step, 200), 0.004 * part);
    }
}

#[test]
fn the_learning_rate_falls_along_half_a_cosine_to_one_percent() {
    let config = with_warmup(0.05);
    // A quarter, half and three quarters of the way from step 10 to step 210, then the end.
    for (step, cosine) in
        [(60, 0.5 + 0.125_f64.sqrt()), (110, 0.5), (160, 0.5 - 0.125_f64.sqrt()), (210, 0.0)]
    {
        let total = 210;
        let config = TrainConfig { warmup_fraction: 10.0 / 210.0, ..config.clone() };
        assert_close(config.learning_rate_at(step, total), 0.004 * (0.01 + 0.99 * cosine));
    }
    let rates: Vec<f64> = (10..200).map(|step| config.learning_rate_at(step, 200)).collect();
    assert!(rates.is_sorted_by(|a, b| a > b));
    assert!((0.01..0.011).contains(&(rates[189] / 0.004)), "the last step: {}", rates[189]);
}

#[test]
fn without_warm_up_the_first_step_has_the_peak_rate() {
    let config = with_warmup(0.0);
    assert_close(config.learning_rate_at(0, 200), 0.004);
    assert_close(config.learning_rate_at(0, 1), 0.004);
}

#[test]
fn no_step_of_any_run_has_a_rate_outside_of_its_range() {
    for warmup in [0.0, 0.02, 0.5, 0.99] {
        let config = with_warmup(warmup);
        for total in [1, 2, 3, 50, 1000] {
            let rates: Vec<f64> = (0..total).map(|step| config.learning_rate_at(step, total)).collect();
            let what = format!("{total} steps, warm-up {warmup}: {rates:?}");
            assert!(rates.iter().all(|&rate| rate > 0.0 && rate <= 0.004), "{what}");
            assert!(rates.contains(&0.004), "the peak is reached: {what}");
        }
    }
}

#[test]
fn presets_are_for_the_data_and_valid() {
    for data in [labelled(200, 0), unlabelled(200, 0)] {
        for preset in [Preset::Best, Preset::Standard, Preset::Original, Preset::Quick, Preset::Guide] {
            let config = TrainConfig::preset(preset, &data);
            config.validate(&data).unwrap();
            assert_eq!(config.denoiser.num_classes, data.classes().unwrap_or(0));
            let loss =
                if preset == Preset::Original { LossWeighting::Sample } else { LossWeighting::ClampedSnr };
            assert_eq!((config.loss, config.denoiser.parameterization), (loss, PredictionType::Sample));
        }
    }
}

#[test]
fn options_out_of_range_are_named_with_the_value_found() {
    fn adamw(config: &mut TrainConfig, change: impl FnOnce(&mut AdamWConfig)) {
        change(&mut config.adamw);
    }
    type Spoil = fn(&mut TrainConfig);
    let cases: [(&str, Spoil); 26] = [
        ("`epochs` is 0", |c| c.epochs = 0),
        ("`epochs` is 18446744073709552000", |c| c.epochs = u64::MAX),
        ("`learning_rate` is 0", |c| c.learning_rate = 0.0),
        ("`learning_rate` is -1", |c| c.learning_rate = -1.0),
        ("`learning_rate` is 1.5", |c| c.learning_rate = 1.5),
        ("`learning_rate` is NaN", |c| c.learning_rate = f64::NAN),
        ("`warmup_fraction` is 1", |c| c.warmup_fraction = 1.0),
        ("`warmup_fraction` is NaN", |c| c.warmup_fraction = f64::NAN),
        ("`ema_decay` is 1", |c| c.ema_decay = 1.0),
        ("`ema_snapshots` is 257, expected 0 to 256", |c| c.ema_snapshots = 257),
        ("`noise_candidates` is 0, expected 1 to 1024", |c| c.noise_candidates = 0),
        ("`noise_candidates` is 1025", |c| c.noise_candidates = 1025),
        ("`cond_drop_prob` is 1.1", |c| c.cond_drop_prob = 1.1),
        ("`cond_drop_prob` is -0.1", |c| c.cond_drop_prob = -0.1),
        ("`random_shift` is 65", |c| c.random_shift = 65),
        ("`beta1` is 1", |c| adamw(c, |a| a.beta1 = 1.0)),
        ("`beta2` is -0.5", |c| adamw(c, |a| a.beta2 = -0.5)),
        ("`eps` is 0", |c| adamw(c, |a| a.eps = 0.0)),
        ("`weight_decay` is 2", |c| adamw(c, |a| a.weight_decay = 2.0)),
        ("`sync_every` is 0", |c| c.sync_every = Some(0)),
        ("`outer_learning_rate` is 0", |c| c.outer_learning_rate = 0.0),
        ("`outer_learning_rate` is 2.5", |c| c.outer_learning_rate = 2.5),
        ("`outer_momentum` is 1", |c| c.outer_momentum = 1.0),
        ("`rows` is 0", |c| c.denoiser.rows = 0),
        ("batch_size is 0, expected 1 to 200", |c| c.batch_size = 0),
        ("batch_size is 201, expected 1 to 200", |c| c.batch_size = 201),
    ];
    for (message, spoil) in cases {
        let mut config = config();
        spoil(&mut config);
        let error = Trainer::new(&config, splits().train(), &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains(message) && error.contains("expected"), "{error}");
    }
}

#[test]
fn an_invalid_schedule_is_refused() {
    let mut config = config();
    config.schedule.beta_end = 1.0;
    let error = Trainer::new(&config, splits().train(), &Device::Cpu).unwrap_err();
    assert!(error.to_string().contains("beta_end is 1"), "{error}");
}

#[test]
fn data_that_does_not_fit_the_network_is_refused() {
    let turned = Images::new("turned", 5, 6, vec![0; 30 * 40]).unwrap();
    let turned = Dataset::new("turned", turned, None).unwrap();
    let four = labelled(40, 0).with_classes(4).unwrap();
    for (data, message) in [
        (turned, "the images of turned have 5×6 pixels, but the network expects 6×5"),
        (four, "tiny has 4 classes, but the network expects 3"),
        (unlabelled(40, 0), "plain has 0 classes, but the network expects 3"),
    ] {
        let error = Trainer::new(&config(), &data, &Device::Cpu).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!(matches!(error, Error::ImageSize { .. } | Error::Classes { .. }));
        let trainer = Trainer::new(&config(), splits().train(), &Device::Cpu).unwrap();
        let error = evaluate_loss(&trainer.ema_denoiser().unwrap(), &config(), &data, 10).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn a_configuration_survives_json_and_unknown_keys_do_not() {
    let json = serde_json::to_string(&config()).unwrap();
    assert_eq!(serde_json::from_str::<TrainConfig>(&json).unwrap(), config());
    let extended = json.replacen('{', "{\"momentum\":0.9,", 1);
    let error = serde_json::from_str::<TrainConfig>(&extended).unwrap_err();
    assert!(error.to_string().contains("unknown field `momentum`"), "{error}");
}
