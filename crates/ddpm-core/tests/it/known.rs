//! The analytic oracle for every sampler, every named schedule, and few, some and many steps, so that no sampler can fail
//! silently on a schedule.

use std::cell::Cell;

use candle_core::{DType, Device, Tensor};
use ddpm_core::{
    BetaSchedule, FlowMatchEuler, NoiseSchedule, NoiseScheduleConfig, Plan, PredictionType, ReverseVariance,
    Sampler, Steps, Timestep, TimestepSpacing, Timesteps,
};

use crate::{
    toy::{Mixture, NORMAL, fine_schedule, noise, samplers, start},
    values,
};

/// The exact mean and standard deviation of the samples of a plan for normal data. The best network is then affine, and so
/// the samples are affine in the start and in each noise: one run with one value for each of them gives all coefficients.
fn moments(sampler: &Sampler, schedule: &NoiseSchedule, timesteps: &Timesteps, data: &Mixture) -> (f64, f64) {
    moments_of(&sampler.plan(schedule, timesteps).unwrap(), data.network(schedule))
}

fn moments_of(
    plan: &Plan,
    network: impl FnMut(&Tensor, Timestep) -> candle_core::Result<Tensor>,
) -> (f64, f64) {
    let unit = |at: usize| {
        let values: Vec<f64> = (0..plan.evaluations() + 2).map(|i| f64::from(u8::from(i == at))).collect();
        Tensor::from_vec(values, (1, plan.evaluations() + 2), &Device::Cpu)
    };
    let calls = Cell::new(1);
    let noise = |_: &Tensor, _| {
        calls.set(calls.get() + 1);
        unit(calls.get())
    };
    let found = values(&plan.sample(unit(1).unwrap(), network, noise).unwrap());
    let mean = found[0];
    (mean, found[1..].iter().map(|x| (x - mean).powi(2)).sum::<f64>().sqrt())
}

/// The schedules that have a name here or in diffusers, without clipping.
fn schedules() -> Vec<(&'static str, NoiseScheduleConfig)> {
    let latent = NoiseScheduleConfig {
        beta_schedule: BetaSchedule::ScaledLinear,
        beta_start: 0.00085,
        beta_end: 0.012,
        ..NoiseScheduleConfig::ho2020()
    };
    let zero_snr = |config| NoiseScheduleConfig { rescale_betas_zero_snr: true, ..config };
    vec![
        ("mnist20", NoiseScheduleConfig { clip_sample: false, ..NoiseScheduleConfig::mnist20() }),
        ("linear", NoiseScheduleConfig::ho2020()),
        ("cosine", NoiseScheduleConfig::cosine()),
        (
            "sigmoid",
            NoiseScheduleConfig { beta_schedule: BetaSchedule::Sigmoid, ..NoiseScheduleConfig::ho2020() },
        ),
        ("scaled linear", latent.clone()),
        ("scaled linear, zero SNR", zero_snr(latent)),
        ("cosine, zero SNR", zero_snr(NoiseScheduleConfig::cosine())),
    ]
}

/// The largest accepted error in 5, 20 and 50 steps, relative to the standard deviation of the data. First-order samplers
/// lose variance in few steps, and multistep samplers of second order overshoot where the steps grow.
fn tolerance(name: &str) -> [f64; 3] {
    match name {
        "sde-dpm-solver++ 2M heun" => [1.7, 1.2, 0.4],
        "sde-dpm-solver++ 2M midpoint" => [0.8, 0.6, 0.2],
        "uni-pc bh1" => [4.0, 1.0, 0.15],
        "dpm-solver++ 2M heun" => [0.9, 0.4, 0.1],
        "euler with churn" => [0.7, 0.3, 0.2],
        "pndm" => [1.0, 0.3, 0.12],
        _ => [0.6, 0.25, 0.12],
    }
}

#[test]
fn every_sampler_on_every_schedule_in_few_some_and_many_steps_gives_the_distribution_of_the_data() {
    let &[(_, mean, deviation)] = NORMAL.0 else { panic!("one component") };
    let mut failed = Vec::new();
    let mut compared = 0;
    for (schedule_name, config) in schedules() {
        for timestep_spacing in
            [TimestepSpacing::Trailing, TimestepSpacing::Leading, TimestepSpacing::Linspace]
        {
            let prediction_type = PredictionType::VPrediction;
            let config = NoiseScheduleConfig { prediction_type, timestep_spacing, ..config.clone() };
            let schedule = NoiseSchedule::new(&config).unwrap();
            for (name, sampler) in samplers() {
                for (steps, tolerance) in std::iter::zip([5, 20, 50], tolerance(name)) {
                    if steps > schedule.num_train_timesteps() {
                        continue;
                    }
                    let timesteps = Timesteps::spaced(&schedule, steps).unwrap();
                    let (found_mean, found) = moments(&sampler, &schedule, &timesteps, &NORMAL);
                    let error = (found_mean - mean).abs().max((found - deviation).abs()) / deviation;
                    compared += 1;
                    if error.is_nan() || error >= tolerance {
                        let place = format!("{schedule_name} {timestep_spacing:?} {steps}");
                        failed.push(format!("{name} on {place}: {found_mean} {found}"));
                    }
                }
            }
        }
    }
    assert_eq!(compared, 3 * samplers().len() * (6 * 3 + 2));
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Flow matching with the velocity ε − x₀ that is expected given xₛ = (1−σ) x₀ + σ ε, also with a shift. Its error is of first order.
#[test]
fn flow_matching_gives_the_distribution_of_the_data() {
    let &[(_, mean, deviation)] = NORMAL.0 else { panic!("one component") };
    let velocity = |x: &Tensor, timestep: Timestep| {
        let sigma = timestep.t() / 1000.0;
        let signal =
            (1.0 - sigma) * deviation.powi(2) / ((1.0 - sigma).powi(2) * deviation.powi(2) + sigma * sigma);
        // (x − x̂₀)/σ with x̂₀ = mean + signal · (x − (1−σ) mean)
        x.affine((1.0 - signal) / sigma, (signal * (1.0 - sigma) * mean - mean) / sigma)
    };
    for (shift, steps, tolerance) in [(1.0, 50, 0.03), (3.0, 50, 0.07), (3.0, 500, 0.008)] {
        let flow = FlowMatchEuler::new(shift);
        let plan = flow.plan(&flow.sigmas(steps, None).unwrap()).unwrap();
        let (found_mean, found) = moments_of(&plan, velocity);
        let error = (found_mean - mean).abs().max((found - deviation).abs()) / deviation;
        assert!(error < tolerance, "shift {shift} in {steps} steps: {found_mean} {found}");
    }
}

/// The schedules of papers have data of any range, so only the schedule for MNIST clips x̂₀.
#[test]
fn data_of_deviation_one_keeps_its_deviation_on_the_schedules_of_papers() {
    const WIDE: Mixture = Mixture(&[(1.0, 0.0, 1.0)]);
    for config in [NoiseScheduleConfig::ho2020(), NoiseScheduleConfig::cosine()] {
        assert!(!config.clip_sample);
        let schedule = NoiseSchedule::new(&config).unwrap();
        let timesteps = Timesteps::spaced(&schedule, 50).unwrap();
        let (mean, found) =
            moments(&Sampler::Ddpm(ReverseVariance::FixedLarge), &schedule, &timesteps, &WIDE);
        assert!(mean.abs() < 1e-9 && (found - 1.0).abs() < 0.01, "{found}");
    }
    assert!(NoiseScheduleConfig::mnist20().clip_sample);
}

/// A run of images in half precision keeps its state in f32, so that rounding does not add up over the steps. The network
/// gets half precision, and so does the caller at the end.
#[test]
fn half_precision_does_not_drift() {
    let schedule = fine_schedule(PredictionType::VPrediction);
    for (name, sampler) in samplers() {
        let plan = sampler.plan(&schedule, Steps::Spaced(50)).unwrap();
        for dtype in [DType::F16, DType::BF16] {
            let few = start(1).narrow(1, 0, 40).unwrap().contiguous().unwrap();
            let rounded = few.to_dtype(dtype).unwrap();
            let deviation = |x_t: &Tensor| {
                let network = NORMAL.network(&schedule);
                let network = |x: &Tensor, t: Timestep| {
                    assert_eq!(x.dtype(), x_t.dtype());
                    network(x, t)
                };
                let sampled = plan.sample(x_t.clone(), network, noise(2)).unwrap();
                assert_eq!(sampled.dtype(), x_t.dtype());
                crate::toy::moments(&values(&sampled)).1
            };
            let [half, full] = [&rounded, &rounded.to_dtype(DType::F64).unwrap()].map(deviation);
            assert!((half - full).abs() < 3e-3, "{name} in {dtype:?}: {half} instead of {full}");
        }
    }
}
