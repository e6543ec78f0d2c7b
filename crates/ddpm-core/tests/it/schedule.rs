//! Validation and spacing; `tables` has the rest.

use ddpm_core::{Error, NoiseSchedule, ScheduleConfig, TimestepSpacing, Timesteps};

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
                let list = steps.indices();
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
    assert_eq!(Timesteps::explicit(&schedule, vec![19, 3]).unwrap().indices(), [19, 3]);
    assert!(matches!(Timesteps::explicit(&schedule, vec![]), Err(Error::NoTimesteps)));
    let twice = Timesteps::explicit(&schedule, vec![5, 5]);
    assert!(matches!(twice, Err(Error::TimestepOrder { found: 5, position: 1, .. })));
    let beyond = Timesteps::explicit(&schedule, vec![20]);
    assert!(matches!(beyond, Err(Error::TimestepOrder { found: 20, position: 0, .. })));
}

#[test]
fn noise_levels_that_are_one_in_f64_and_infinite_ones_are_refused() {
    let schedule_20 = schedule(|_| {});
    let close = Timesteps::from_sigmas(&schedule_20, &[1.0, 1.002e-7, 1.001e-7]);
    assert!(matches!(close, Err(Error::Sigma { position: 2, .. })), "{close:?}");
    let no_signal = schedule(|c| {
        c.rescale_betas_zero_snr = true;
        c.prediction_type = ddpm_core::PredictionType::VPrediction;
    });
    let error = Timesteps::karras(&no_signal, 5).unwrap_err().to_string();
    assert_eq!(error, "the largest sigma is inf, expected a finite one, so no rescale_betas_zero_snr");
}
