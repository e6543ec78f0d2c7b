//! The tables of every schedule, and its errors and warnings.

use ddpm_core::{
    BetaSchedule, Compat, DiffusersConfig, Error, NoiseSchedule, NoiseScheduleConfig, PredictionType,
    Sampler, ScheduleWarning, Scheduler, TimestepSpacing, Timesteps,
    sampler::{Churn, DpmSolver, UniPc},
};

use crate::{assert_out_of_range, schedule};

/// Every β schedule at every T, with betas that fit the number of timesteps, with and without zero terminal SNR.
fn every_schedule() -> impl Iterator<Item = NoiseSchedule> {
    use BetaSchedule::{Linear, ScaledLinear, Sigmoid, SquaredcosCapV2};
    let kinds = [Linear, ScaledLinear, Sigmoid, SquaredcosCapV2];
    let lengths = [2, 3, 20, 999, 1000, 10_000];
    kinds.into_iter().flat_map(move |beta_schedule| {
        lengths.into_iter().flat_map(move |total| {
            [false, true].map(|zero_snr| {
                let scale = 1000.0 / total as f64;
                let config = NoiseScheduleConfig {
                    num_train_timesteps: total,
                    beta_schedule,
                    beta_start: (1e-4 * scale).min(0.5),
                    beta_end: (0.02 * scale).min(0.9),
                    rescale_betas_zero_snr: zero_snr,
                    prediction_type: PredictionType::VPrediction,
                    ..NoiseScheduleConfig::ho2020()
                };
                NoiseSchedule::new(&config).unwrap()
            })
        })
    })
}

#[test]
fn no_table_of_any_schedule_has_a_number_that_is_not_finite_or_out_of_range() {
    for schedule in every_schedule() {
        let config = schedule.config();
        let (total, zero_snr) = (config.num_train_timesteps, config.rescale_betas_zero_snr);
        let name = format!("{:?} {total} {zero_snr}", config.beta_schedule);
        let check = |table: &str, values: &[f64], range: std::ops::RangeInclusive<f64>| {
            assert_eq!(values.len(), total, "{name} {table}");
            let wrong = values.iter().position(|value| !range.contains(value));
            assert!(wrong.is_none(), "{name} {table}: {wrong:?}");
        };
        check("betas", schedule.betas(), f64::MIN_POSITIVE..=1.0);
        check("alphas_cumprod", schedule.alphas_cumprod(), 0.0..=1.0);
        check("alphas_cumprod_prev", schedule.alphas_cumprod_prev(), f64::MIN_POSITIVE..=1.0);
        check("posterior_variance", &schedule.posterior_variance(), 0.0..=1.0);
        check("posterior_log_variance_clipped", &schedule.posterior_log_variance_clipped(), -30.0..=0.0);
        // 1 − ᾱ loses digits at the cleanest levels.
        check("posterior_mean_coef1", &schedule.posterior_mean_coef1(), 0.0..=1.0 + 1e-9);
        check("posterior_mean_coef2", &schedule.posterior_mean_coef2(), 0.0..=1.0);
        let last = total - 1;
        let terminal = schedule.alphas_cumprod()[last];
        assert!(if zero_snr { terminal == 0.0 } else { terminal > 0.0 }, "{name}: {terminal}");
        assert!(schedule.alphas_cumprod().is_sorted_by(|before, after| before > after), "{name}");
        for t in 0..total {
            let (snr, at) = (schedule.snr(t).unwrap(), schedule.timestep(t).unwrap());
            assert!(snr.is_finite() && (snr > 0.0 || t == last && zero_snr), "{name} {t}: {snr}");
            assert!(at.sigma() > 0.0 && !at.half_log_snr().is_nan(), "{name} {t}");
        }
        if zero_snr {
            assert_eq!((schedule.betas()[last], schedule.warning()), (1.0, None), "{name}");
        }
    }
}

#[test]
fn the_first_beta_and_the_shape_survive_rescaling_to_zero_terminal_snr() {
    let plain = NoiseSchedule::new(&NoiseScheduleConfig::ho2020()).unwrap();
    let config = NoiseScheduleConfig {
        rescale_betas_zero_snr: true,
        prediction_type: PredictionType::VPrediction,
        ..NoiseScheduleConfig::ho2020()
    };
    let rescaled = NoiseSchedule::new(&config).unwrap();
    assert!((rescaled.betas()[0] - 1e-4).abs() < 1e-15);
    // √ᾱ is shifted and scaled, so ratios of its differences stay the same.
    let roots =
        |schedule: &NoiseSchedule| schedule.alphas_cumprod().iter().map(|a| a.sqrt()).collect::<Vec<_>>();
    let (before, after) = (roots(&plain), roots(&rescaled));
    let ratio = (after[0] - after[999]) / (before[0] - before[999]);
    for t in 1..1000 {
        let (was, is) = (before[t - 1] - before[t], after[t - 1] - after[t]);
        assert!((is / was - ratio).abs() < 1e-9, "{t}");
    }
}

#[test]
fn eps_cannot_be_predicted_at_zero_terminal_snr() {
    let config = NoiseScheduleConfig { rescale_betas_zero_snr: true, ..NoiseScheduleConfig::ho2020() };
    assert!(matches!(NoiseSchedule::new(&config), Err(Error::ZeroSnrEpsilon)));
}

/// Betas made for 1000 timesteps, used with fewer. Scaled by 1000/T they reach 1; unscaled they leave most of the image.
#[test]
fn few_steps_with_the_betas_of_many_are_refused_or_warned_of() {
    let mut config = NoiseScheduleConfig::mnist20();
    (config.beta_start, config.beta_end) = (1e-4 * 50.0, 0.02 * 50.0);
    assert_out_of_range(NoiseSchedule::new(&config), "beta_end", 1);
    let unscaled = schedule(|c| (c.beta_start, c.beta_end) = (1e-4, 0.02));
    let Some(warning @ ScheduleWarning::PriorNotReached { alpha_cumprod }) = unscaled.warning() else {
        panic!("no warning")
    };
    assert_eq!(alpha_cumprod, unscaled.alphas_cumprod()[19]);
    assert!(warning.to_string().contains("0.817"), "{warning}");
    for config in
        [NoiseScheduleConfig::mnist20(), NoiseScheduleConfig::ho2020(), NoiseScheduleConfig::cosine()]
    {
        assert_eq!(NoiseSchedule::new(&config).unwrap().warning(), None);
    }
}

#[test]
fn a_step_over_others_has_the_beta_of_all_of_them() {
    let schedule = NoiseSchedule::new(&NoiseScheduleConfig::ho2020()).unwrap();
    for (t, prev) in [(999, 0), (700, 650), (10, 9), (1, 0)] {
        let kept: f64 = schedule.betas()[prev + 1..=t].iter().map(|beta| 1.0 - beta).product();
        let step = schedule.posterior_coefs(t, Some(prev)).unwrap();
        assert!((step.beta - (1.0 - kept)).abs() < 1e-12, "{t} to {prev}");
    }
    let to_x_start = schedule.posterior_coefs(500, None).unwrap();
    assert!((to_x_start.beta - (1.0 - schedule.alphas_cumprod()[500])).abs() < 1e-15);
    assert_eq!((to_x_start.variance, to_x_start.x_t_coef), (0.0, 0.0));
    assert!((to_x_start.x_start_coef - 1.0).abs() < 1e-15);
    for prev in [500, 501, 999] {
        let wrong = schedule.posterior_coefs(500, Some(prev)).unwrap_err().to_string();
        assert_eq!(wrong, format!("prev is {prev}, expected a timestep below t = 500"));
    }
    let beyond = schedule.posterior_coefs(1000, None).unwrap_err().to_string();
    assert_eq!(beyond, "timestep is 1000, expected 0 to 999");
}

#[test]
fn the_log_of_the_posterior_variance_is_that_of_the_variance_but_for_the_first() {
    for schedule in every_schedule() {
        let (variance, log) = (schedule.posterior_variance(), schedule.posterior_log_variance_clipped());
        assert_eq!(variance[0], 0.0);
        assert_eq!(log[0], log[1]);
        assert!(std::iter::zip(&variance[1..], &log[1..]).all(|(variance, log)| variance.ln() == *log));
    }
}

/// At a σ where ᾱ rounds to 0 or 1 in f64 a prediction cannot be converted.
#[test]
fn sigmas_must_fall_and_leave_both_signal_and_noise() {
    let schedule = NoiseSchedule::new(&NoiseScheduleConfig::ho2020()).unwrap();
    for (sigmas, position) in [
        (&[1.0, 1.0][..], 1),
        (&[1.0, 2.0], 1),
        (&[1.0, 0.0], 1),
        (&[-1.0], 0),
        (&[f64::INFINITY, 1.0], 0),
        (&[2.0, f64::NAN], 1),
        (&[1.0, 1e-9], 1),
        (&[1e200, 1.0], 0),
    ] {
        let refused = Timesteps::from_sigmas(&schedule, sigmas);
        assert_out_of_range(refused, &format!("sigmas[{position}]"), sigmas[position]);
    }
    assert!(matches!(Timesteps::from_sigmas(&schedule, &[]), Err(Error::NoTimesteps)));
}

#[test]
fn sigmas_of_timesteps_are_those_timesteps_and_others_lie_between() {
    let schedule = NoiseSchedule::new(&NoiseScheduleConfig::ho2020()).unwrap();
    let whole = Timesteps::explicit(&schedule, vec![999, 400, 1, 0]).unwrap();
    let sigmas: Vec<f64> = whole.as_slice().iter().map(|at| at.sigma()).collect();
    let found = Timesteps::from_sigmas(&schedule, &sigmas).unwrap();
    for (found, expected) in std::iter::zip(found.as_slice(), whole.as_slice()) {
        assert!((found.t() - expected.t()).abs() < 1e-9, "{found:?} {expected:?}");
        assert!((found.alpha_cumprod() - expected.alpha_cumprod()).abs() < 1e-12);
        assert!((found.half_log_snr() + found.sigma().ln()).abs() < 1e-12);
    }
    let between = Timesteps::from_sigmas(&schedule, &[500.0, (sigmas[2] * sigmas[3]).sqrt(), 1e-3]).unwrap();
    let t: Vec<f64> = between.as_slice().iter().map(|at| at.t()).collect();
    assert!(t[0] == 999.0 && (t[1] - 0.5).abs() < 1e-9 && t[2] == 0.0, "{t:?}");
}

#[test]
fn an_end_at_the_smallest_sigma_is_never_noisier_than_the_list() {
    let schedule = NoiseSchedule::new(&NoiseScheduleConfig::ho2020()).unwrap();
    let cleaner = Timesteps::from_sigmas(&schedule, &[1.0, 0.001]).unwrap();
    let last = cleaner.as_slice()[1].alpha_cumprod();
    assert_eq!(cleaner.ending_at_sigma_min(&schedule).last_alpha_cumprod(), last);
    let usual = Timesteps::all(&schedule).ending_at_sigma_min(&schedule);
    assert_eq!(usual.last_alpha_cumprod(), schedule.alphas_cumprod()[0]);
}

#[test]
fn karras_spacing_is_even_in_the_seventh_root_between_the_ends_of_the_schedule() {
    let schedule = NoiseSchedule::new(&NoiseScheduleConfig::ho2020()).unwrap();
    let ends = [999, 0].map(|t| schedule.timestep(t).unwrap().sigma());
    let karras = Timesteps::karras(&schedule, 11).unwrap();
    let roots: Vec<f64> = karras.as_slice().iter().map(|at| at.sigma().powf(1.0 / 7.0)).collect();
    let (first, last) = (ends[0].powf(1.0 / 7.0), ends[1].powf(1.0 / 7.0));
    for (i, root) in roots.iter().enumerate() {
        assert!((root - (first + i as f64 / 10.0 * (last - first))).abs() < 1e-9, "{i}");
    }
    assert_eq!(Timesteps::karras(&schedule, 1).unwrap().len(), 1);
    for n in [0, 1001] {
        assert_out_of_range(Timesteps::karras(&schedule, n), "num_inference_steps", n);
    }
    let config = NoiseScheduleConfig {
        rescale_betas_zero_snr: true,
        prediction_type: PredictionType::Sample,
        ..NoiseScheduleConfig::ho2020()
    };
    let endless = NoiseSchedule::new(&config).unwrap();
    assert_out_of_range(Timesteps::karras(&endless, 5), "the largest sigma", "inf");
}

#[test]
fn leading_spacing_is_shifted_by_the_offset_and_an_offset_beyond_the_schedule_is_refused() {
    let with = |offset: usize| {
        schedule(|c| (c.timestep_spacing, c.steps_offset) = (TimestepSpacing::Leading, offset))
    };
    assert_eq!(Timesteps::spaced(&with(1), 5).unwrap().indices(), [17, 13, 9, 5, 1]);
    assert_eq!(Timesteps::spaced(&with(3), 5).unwrap().indices(), [19, 15, 11, 7, 3]);
    let refused = Timesteps::spaced(&with(4), 5).unwrap_err().to_string();
    assert_eq!(refused, "steps_offset is 4, expected 0 to 3: it is added to the first timestep, 16 of 20");
}

/// Regression: the sum of stride and offset overflowed, and panicked in debug builds.
#[test]
fn a_huge_offset_of_a_file_is_refused_by_its_name() {
    for class in ["DDIMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"] {
        for offset in [1000, usize::MAX - 100, usize::MAX] {
            let json = serde_json::json!({
                "_class_name": class, "timestep_spacing": "leading", "steps_offset": offset,
            });
            let config = DiffusersConfig::from_diffusers_json(&json.to_string()).unwrap();
            let timesteps = Scheduler::new(&config).unwrap().timesteps(10);
            assert_out_of_range(timesteps, "steps_offset", offset);
        }
    }
}

/// For every class, every spacing and every n up to T the list is descending and has n timesteps. `golden` compares lists
/// of integer timesteps with diffusers.
#[test]
fn timesteps_of_every_class_fall_for_every_number_of_steps() {
    let samplers = [
        Sampler::Ddim(0.0),
        Sampler::DpmSolverMultistep(DpmSolver::plus_plus_2m()),
        Sampler::UniPc(UniPc::order_2()),
        Sampler::Euler(Churn::NONE),
    ];
    for sampler in samplers {
        for spacing in [TimestepSpacing::Leading, TimestepSpacing::Trailing, TimestepSpacing::Linspace] {
            for compat in [Compat::Exact, Compat::Diffusers] {
                let schedule = NoiseScheduleConfig {
                    timestep_spacing: spacing,
                    compat,
                    ..NoiseScheduleConfig::mnist20()
                };
                let mut config = DiffusersConfig::new(schedule, sampler.clone());
                for karras in [false, true] {
                    config.use_karras_sigmas = karras && !matches!(sampler, Sampler::Ddim(_));
                    let scheduler = Scheduler::new(&config).unwrap();
                    for n in 1..=20 {
                        let timesteps = scheduler.timesteps(n).unwrap();
                        let list = timesteps.as_slice();
                        assert_eq!(list.len(), n);
                        let fall =
                            list.is_sorted_by(|a, b| a.alpha_cumprod() < b.alpha_cumprod() && a.t() >= b.t());
                        assert!(fall, "{config:?} {n}: {list:?}");
                    }
                    assert_out_of_range(scheduler.timesteps(21), "num_inference_steps", 21);
                }
            }
        }
    }
}
