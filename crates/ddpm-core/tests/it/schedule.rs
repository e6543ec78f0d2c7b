//! Validation and timestep spacing. More tests are in `tables`.

use ddpm_core::{Error, NoiseSchedule, NoiseScheduleConfig, TimestepSpacing, Timesteps};

use crate::{assert_out_of_range, schedule};

fn built(change: impl FnOnce(&mut NoiseScheduleConfig)) -> ddpm_core::Result<NoiseSchedule> {
    let mut config = NoiseScheduleConfig::mnist20();
    change(&mut config);
    NoiseSchedule::new(&config)
}

#[test]
fn configurations_outside_their_range_are_refused_with_the_value() {
    assert_out_of_range(built(|c| c.num_train_timesteps = 1), "num_train_timesteps", 1);
    assert_out_of_range(built(|c| c.num_train_timesteps = 10_001), "num_train_timesteps", 10_001);
    assert_out_of_range(built(|c| c.beta_start = 0.0), "beta_start", 0);
    assert_out_of_range(built(|c| c.beta_end = 1.0), "beta_end", 1);
    assert_out_of_range(built(|c| c.beta_end = f64::NAN), "beta_end", "NaN");
    assert_out_of_range(built(|c| c.clip_sample_range = -1.0), "clip_sample_range", -1);
    assert_out_of_range(built(|c| c.beta_start = 1e-17), "alphas_cumprod[0]", 1);
    let vanishing = built(|c| (c.num_train_timesteps, c.beta_end) = (2000, 0.99)).unwrap_err().to_string();
    let [zero, wanted] = ["] is 0, expected ", "a number strictly between 0 and 1"];
    assert!(vanishing.starts_with("alphas_cumprod[") && vanishing.ends_with(&[zero, wanted].concat()));
    for (beta_end, text) in [
        (1.5, "beta_end is 1.5, expected a number strictly between 0 and 1"),
        (1e-4, "beta_end is 0.0001, expected at least beta_start, 0.001"),
    ] {
        assert_eq!(built(|c| c.beta_end = beta_end).unwrap_err().to_string(), text);
    }
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
            for n in [0, total + 1] {
                assert_out_of_range(Timesteps::spaced(&schedule, n), "num_inference_steps", n);
            }
        }
    }
}

#[test]
fn explicit_timesteps_are_checked() {
    let schedule = schedule(|_| {});
    assert_eq!(Timesteps::explicit(&schedule, vec![19, 3]).unwrap().indices(), [19, 3]);
    assert!(matches!(Timesteps::explicit(&schedule, vec![]), Err(Error::NoTimesteps)));
    assert_out_of_range(Timesteps::explicit(&schedule, vec![5, 5]), "timesteps[1]", 5);
    assert_out_of_range(Timesteps::explicit(&schedule, vec![20]), "timesteps[0]", 20);
}

#[test]
fn noise_levels_that_are_one_in_f64_and_infinite_ones_are_refused() {
    let schedule_20 = schedule(|_| {});
    let close = Timesteps::from_sigmas(&schedule_20, &[1.0, 1.002e-7, 1.001e-7]);
    assert_out_of_range(close, "sigmas[2]", 1.001e-7);
    let no_signal = schedule(|c| {
        c.rescale_betas_zero_snr = true;
        c.prediction_type = ddpm_core::PredictionType::VPrediction;
    });
    let error = Timesteps::karras(&no_signal, 5).unwrap_err().to_string();
    assert_eq!(
        error,
        "the largest sigma is inf, expected a finite value, which needs rescale_betas_zero_snr: false"
    );
}
