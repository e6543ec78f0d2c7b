//! Validation, spacing, and the scheduler file.

use ddpm_core::{
    Error, NoiseSchedule, PredictionType, ScheduleConfig, TimestepSpacing, Timesteps, VarianceType,
};

use crate::schedule;

fn refused(change: impl FnOnce(&mut ScheduleConfig)) -> Error {
    let mut config = ScheduleConfig::mnist20();
    change(&mut config);
    NoiseSchedule::new(&config).unwrap_err()
}

#[test]
fn configurations_outside_their_range_are_refused_with_the_value() {
    assert!(matches!(refused(|c| c.num_train_timesteps = 1), Error::TimestepCount { found: 1 }));
    assert!(matches!(refused(|c| c.num_train_timesteps = 10_001), Error::TimestepCount { .. }));
    assert!(matches!(refused(|c| c.beta_start = 0.0), Error::Beta { name: "beta_start", .. }));
    assert!(matches!(refused(|c| c.beta_end = 1.0), Error::Beta { name: "beta_end", .. }));
    assert!(matches!(refused(|c| c.beta_end = f64::NAN), Error::Beta { name: "beta_end", .. }));
    assert!(matches!(refused(|c| c.beta_end = 1e-4), Error::FallingBetas { .. }));
    assert!(matches!(refused(|c| c.clip_sample_range = -1.0), Error::ClipRange { .. }));
    assert!(matches!(refused(|c| c.beta_start = 1e-17), Error::NoiseLevel { t: 0, .. }));
    let vanishing = refused(|c| (c.num_train_timesteps, c.beta_end) = (2000, 0.99));
    assert!(matches!(vanishing, Error::NoiseLevel { found: 0.0, .. }));
    assert_eq!(
        refused(|c| c.beta_end = 1.5).to_string(),
        "beta_end is 1.5, expected a number strictly between 0 and 1"
    );
}

#[test]
fn spacing_is_strictly_descending_with_the_right_ends_for_every_n() {
    for total in [2, 7, 20, 1000] {
        for spacing in [TimestepSpacing::Leading, TimestepSpacing::Trailing, TimestepSpacing::Linspace] {
            let schedule = schedule(|c| {
                c.num_train_timesteps = total;
                c.timestep_spacing = spacing;
            });
            for n in 1..=total {
                let steps = Timesteps::spaced(&schedule, n).unwrap();
                let list = steps.as_slice();
                assert_eq!(list.len(), n);
                assert!(list.windows(2).all(|w| w[0] > w[1]), "{spacing:?} {n} of {total}: {list:?}");
                if spacing != TimestepSpacing::Leading {
                    assert_eq!(list[0], total - 1, "{spacing:?} {n} of {total}");
                }
                if spacing == TimestepSpacing::Leading || spacing == TimestepSpacing::Linspace && n > 1 {
                    assert_eq!(list[n - 1], 0, "{spacing:?} {n} of {total}");
                }
            }
            assert_eq!(Timesteps::spaced(&schedule, total).unwrap(), Timesteps::all(&schedule));
            assert!(matches!(
                Timesteps::spaced(&schedule, total + 1),
                Err(Error::InferenceSteps { found, .. }) if found == total + 1
            ));
            assert!(Timesteps::spaced(&schedule, 0).is_err());
        }
    }
}

#[test]
fn explicit_timesteps_are_checked() {
    let schedule = schedule(|_| {});
    assert_eq!(Timesteps::explicit(&schedule, vec![19, 3]).unwrap().as_slice(), &[19, 3]);
    assert!(matches!(Timesteps::explicit(&schedule, vec![]), Err(Error::NoTimesteps)));
    let twice = Timesteps::explicit(&schedule, vec![5, 5]);
    assert!(matches!(twice, Err(Error::TimestepOrder { found: 5, position: 1, .. })));
    let beyond = Timesteps::explicit(&schedule, vec![20]);
    assert!(matches!(beyond, Err(Error::TimestepOrder { found: 20, position: 0, .. })));
}

#[test]
fn scheduler_file_survives_a_round_trip() {
    let config = ScheduleConfig {
        prediction_type: PredictionType::VPrediction,
        variance_type: VarianceType::FixedLarge,
        clip_sample: false,
        clip_sample_range: 2.5,
        timestep_spacing: TimestepSpacing::Linspace,
        ..ScheduleConfig::mnist20()
    };
    let json = config.to_diffusers_json().unwrap();
    assert_eq!(ScheduleConfig::from_diffusers_json(&json).unwrap(), config);
}

#[test]
fn scheduler_file_has_diffusers_defaults() {
    let config = ScheduleConfig::from_diffusers_json(r#"{"_class_name": "DDPMScheduler"}"#).unwrap();
    let expected = ScheduleConfig { timestep_spacing: TimestepSpacing::Leading, ..ScheduleConfig::ho2020() };
    assert_eq!(config, expected);
}

#[test]
fn scheduler_options_that_are_not_implemented_are_named() {
    for (json, name) in [
        (r#"{"_class_name": "PNDMScheduler"}"#, "`_class_name` is \"PNDMScheduler\""),
        (r#"{"beta_schedule": "squaredcos_cap_v2"}"#, "`beta_schedule` is \"squaredcos_cap_v2\""),
        (r#"{"trained_betas": [0.5]}"#, "`trained_betas` is [0.5]"),
        (r#"{"variance_type": "learned_range"}"#, "`variance_type` is \"learned_range\""),
        (r#"{"rescale_betas_zero_snr": true}"#, "`rescale_betas_zero_snr` is true"),
        (r#"{"steps_offset": 1}"#, "`steps_offset` is 1"),
        (r#"{"use_karras_sigmas": true}"#, "unknown field `use_karras_sigmas`"),
        (r#"{"prediction_type": "flow"}"#, "unknown variant `flow`"),
    ] {
        let error = ScheduleConfig::from_diffusers_json(json).unwrap_err().to_string();
        assert!(error.contains(name), "{json}: {error}");
    }
}
