//! The inverse of DDIM: encoding data as noise.

use candle_core::{Device, Tensor};
use ddpm_core::{Error, NoiseSchedule, PredictionType, Sampler, Timestep, Timesteps, no_noise};

use crate::{
    assert_out_of_range, largest_difference,
    toy::{
        COLUMNS, Mixture, NORMAL, ROWS, TWO, fine_schedule, kolmogorov_smirnov, log_uniform, moments, start,
    },
    values,
};

fn encode(
    schedule: &NoiseSchedule,
    timesteps: &Timesteps,
    data: &Mixture,
    iterations: usize,
    x: &Tensor,
) -> Tensor {
    let network = data.network(schedule);
    Sampler::DdimInverse(iterations)
        .plan(schedule, timesteps)
        .unwrap()
        .sample(x.clone(), network, no_noise)
        .unwrap()
}

fn decode(schedule: &NoiseSchedule, timesteps: &Timesteps, data: &Mixture, x: &Tensor) -> Tensor {
    Sampler::Ddim(0.0)
        .plan(schedule, timesteps)
        .unwrap()
        .sample(x.clone(), data.network(schedule), no_noise)
        .unwrap()
}

/// The error of encoding and then decoding.
fn round_trip(schedule: &NoiseSchedule, timesteps: &Timesteps, data: &Mixture, iterations: usize) -> f64 {
    let x = Tensor::new(&[[-0.75_f64, -0.6, -0.5], [0.3, 0.5, 0.8]], &Device::Cpu).unwrap();
    let encoded = encode(schedule, timesteps, data, iterations, &x);
    largest_difference(&values(&decode(schedule, timesteps, data, &encoded)), &values(&x))
}

#[test]
fn the_round_trip_is_exact_to_rounding_with_enough_iterations() {
    for prediction_type in [PredictionType::Epsilon, PredictionType::Sample, PredictionType::VPrediction] {
        let schedule = fine_schedule(prediction_type);
        let timesteps = log_uniform(&schedule, [100.0, 0.02], 40);
        for data in [NORMAL, TWO] {
            let error = round_trip(&schedule, &timesteps, &data, 60);
            assert!(error < 1e-11, "to x_0, {prediction_type:?}: {error}");
            let error = round_trip(&schedule, &timesteps.clone().ending_at_sigma_min(&schedule), &data, 60);
            assert!(error < 1e-11, "to the smallest noise, {prediction_type:?}: {error}");
        }
    }
}

#[test]
fn each_iteration_reduces_the_error_of_the_round_trip() {
    let schedule = fine_schedule(PredictionType::VPrediction);
    let timesteps = log_uniform(&schedule, [100.0, 0.02], 40).ending_at_sigma_min(&schedule);
    for data in [NORMAL, TWO] {
        let errors =
            [1, 2, 3, 4, 5, 6].map(|iterations| round_trip(&schedule, &timesteps, &data, iterations));
        assert!(errors.windows(2).all(|pair| pair[1] < 0.4 * pair[0]), "{errors:?}");
    }
}

/// The usual approximation, which evaluates the network at the wrong end of each step.
#[test]
fn with_one_iteration_the_error_falls_with_the_number_of_steps() {
    let schedule = fine_schedule(PredictionType::VPrediction);
    for data in [NORMAL, TWO] {
        let error = |n: usize| {
            let timesteps = log_uniform(&schedule, [100.0, 0.02], n).ending_at_sigma_min(&schedule);
            round_trip(&schedule, &timesteps, &data, 1)
        };
        let errors = [50, 100, 200, 400].map(error);
        for pair in errors.windows(2) {
            let order = (pair[0] / pair[1]).log2();
            assert!((0.8..1.5).contains(&order), "order {order} from {errors:?}");
        }
    }
}

/// The encoding of data has the distribution of DDIM's start image: standard normal.
#[test]
fn encoded_data_is_standard_normal_and_decodes_to_itself() {
    let schedule = fine_schedule(PredictionType::VPrediction);
    let timesteps = log_uniform(&schedule, [157.0, 0.01], 100).ending_at_sigma_min(&schedule);
    // One random number chooses the component of the data, another the position within it.
    let component = values(&start(3));
    let data: Vec<f64> = std::iter::zip(component, values(&start(4)))
        .map(|(which, z)| {
            let (_, mean, deviation) = if which < -0.524_400_5 { TWO.0[0] } else { TWO.0[1] };
            mean + deviation * z
        })
        .collect();
    assert!(kolmogorov_smirnov(data.clone(), |x| TWO.cdf(x)) < 2.0 / (data.len() as f64).sqrt());
    let x = Tensor::from_vec(data, (ROWS as usize, COLUMNS), &Device::Cpu).unwrap();
    let encoded = encode(&schedule, &timesteps, &TWO, 4, &x);
    let codes = values(&encoded);
    let (mean, deviation) = moments(&codes);
    assert!(mean.abs() < 0.05 && (deviation - 1.0).abs() < 0.05, "{mean} {deviation}");
    let distance = kolmogorov_smirnov(codes, |z| libm::erfc(-z / 2.0_f64.sqrt()) / 2.0);
    assert!(distance < 2.0 / (ROWS as f64 * COLUMNS as f64).sqrt() + 0.015, "{distance}");
    let decoded = values(&decode(&schedule, &timesteps, &TWO, &encoded));
    let difference = largest_difference(&decoded, &values(&x));
    assert!(difference < 0.01, "{difference}");
}

/// In this schedule the smallest σ is 6 times smaller than the next, and the largest σ is infinite.
#[test]
fn mnist20_with_zero_terminal_snr_has_an_exact_encoding() {
    let config = ddpm_core::NoiseScheduleConfig {
        rescale_betas_zero_snr: true,
        prediction_type: PredictionType::Sample,
        clip_sample: false,
        ..ddpm_core::NoiseScheduleConfig::mnist20()
    };
    let schedule = NoiseSchedule::new(&config).unwrap();
    let timesteps = Timesteps::all(&schedule);
    let x = Tensor::new(&[[-0.2_f64, 0.4]], &Device::Cpu).unwrap();
    let encoded = encode(&schedule, &timesteps, &NORMAL, 60, &x);
    assert!(values(&encoded).iter().all(|x| x.is_finite()));
    let difference =
        largest_difference(&values(&decode(&schedule, &timesteps, &NORMAL, &encoded)), &values(&x));
    assert!(difference < 1e-11, "{difference}");
}

#[test]
fn the_observer_sees_the_levels_in_the_order_taken_and_each_is_asked_for_so_often() {
    let schedule = fine_schedule(PredictionType::Epsilon);
    let timesteps = Timesteps::explicit(&schedule, vec![900, 500, 20]).unwrap();
    let network = NORMAL.network(&schedule);
    let (mut asked, mut seen, mut last) = (Vec::new(), Vec::new(), Vec::new());
    let x = Tensor::new(&[[0.1_f64, 0.2]], &Device::Cpu).unwrap();
    let encoded = Sampler::DdimInverse(2).plan(&schedule, &timesteps).unwrap().sample_with(
        x.clone(),
        |x, timestep: Timestep| {
            asked.push(timestep.index());
            network(x, timestep)
        },
        no_noise,
        |run| {
            let step = run.step().unwrap();
            seen.push((step.index, step.total, step.timestep.index()));
            last = values(step.x_t);
            Ok(())
        },
    );
    assert_eq!(asked, [20, 20, 500, 500, 900, 900]);
    assert_eq!(seen, [(0, 3, 20), (1, 3, 500), (2, 3, 900)]);
    assert_eq!(values(&encoded.unwrap()), last);
    let none = Sampler::DdimInverse(0).plan(&schedule, &timesteps);
    assert_out_of_range(none, "iterations", 0);
    let stopped = Sampler::DdimInverse(1).plan(&schedule, &timesteps).unwrap().sample_with(
        x,
        &network,
        no_noise,
        |_| Err(Error::NoTimesteps.into()),
    );
    assert!(matches!(stopped, Err(Error::Callback(_))));
}
