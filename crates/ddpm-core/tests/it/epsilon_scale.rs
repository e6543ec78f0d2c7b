//! ε-scaling (Ning et al. 2023), compared with a run that is written out in tensors.

use candle_core::Tensor;
use ddpm_core::{PredictionType, Sampler, Steps, Timestep, Timesteps, no_noise};

use crate::{
    assert_out_of_range, largest_difference, network, schedule,
    toy::{all_samplers, fine_schedule, noise, start},
    values,
};

const ALL: [PredictionType; 3] =
    [PredictionType::Epsilon, PredictionType::Sample, PredictionType::VPrediction];

fn few() -> Tensor {
    start(1).narrow(1, 0, 20).unwrap().contiguous().unwrap()
}

/// DDIM with η = 0 and a smaller ε̂: x̂₀ follows from ε̂/λ, is clipped, and gives the ε̂ of the step.
#[test]
fn eps_is_divided_and_x_start_follows() {
    for kind in ALL {
        let schedule = schedule(|config| config.prediction_type = kind);
        for scale in [0.9, 1.003, 1.2] {
            let plan = Sampler::ddim(0.0).plan(&schedule, Steps::Spaced(5)).unwrap();
            let scaled = plan.epsilon_scaled(scale).unwrap();
            let found = scaled.sample(few(), network, no_noise).unwrap();
            let mut x = values(&few());
            let list = Timesteps::spaced(&schedule, 5).unwrap();
            let levels = list.as_slice().iter().map(|at| at.alpha_cumprod()).skip(1).chain([1.0]);
            for (&at, to) in std::iter::zip(list.as_slice(), levels) {
                let x_t = Tensor::from_vec(x.clone(), few().shape(), few().device()).unwrap();
                let output = network(&x_t, at).unwrap();
                let eps = kind.convert(PredictionType::Epsilon, &output, &x_t, at.alpha_cumprod()).unwrap();
                let (signal, sigma) = (at.alpha_cumprod().sqrt(), (1.0 - at.alpha_cumprod()).sqrt());
                for (x, eps) in std::iter::zip(&mut x, values(&eps)) {
                    let x_start = ((*x - sigma * eps / scale) / signal).clamp(-1.0, 1.0);
                    *x = to.sqrt() * x_start + (1.0 - to).sqrt() * (*x - signal * x_start) / sigma;
                }
            }
            let difference = largest_difference(&values(&found), &x);
            assert!(difference < 1e-9, "{kind:?} {scale}: {difference}");
        }
    }
}

/// PNDM steps along ε̂ itself, which is not clipped: a network that predicts λ times as much with scale λ is the network.
#[test]
fn the_scaled_prediction_of_a_scaled_network_is_the_prediction() {
    let schedule = fine_schedule(PredictionType::Epsilon);
    let larger = |x: &Tensor, at: Timestep| network(x, at)? * 1.25;
    for sampler in [Sampler::Pndm, Sampler::heun(), Sampler::dpmpp_2m(), Sampler::ddpm()] {
        let plan = sampler.plan(&schedule, Steps::Spaced(6)).unwrap();
        let expected = plan.sample(few(), network, noise(2)).unwrap();
        let found = plan.epsilon_scaled(1.25).unwrap().sample(few(), larger, noise(2)).unwrap();
        let difference = largest_difference(&values(&found), &values(&expected));
        assert!(difference < 1e-9, "{sampler:?}: {difference}");
    }
}

#[test]
fn with_scale_1_every_plan_stays_as_it_is() {
    let schedule = schedule(|_| {});
    for (name, sampler) in all_samplers() {
        let plan = sampler.plan(&schedule, Steps::Spaced(4)).unwrap();
        assert_eq!(plan.clone().epsilon_scaled(1.0).unwrap(), plan, "{name}");
        assert_ne!(plan.clone().epsilon_scaled(1.01).unwrap(), plan, "{name}");
    }
}

#[test]
fn a_scale_that_is_not_positive_and_a_timestep_without_signal_are_refused() {
    let schedule = schedule(|config| config.prediction_type = PredictionType::Sample);
    let plan = Sampler::ddim(0.0).plan(&schedule, Steps::All).unwrap();
    for scale in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_out_of_range(plan.clone().epsilon_scaled(scale), "epsilon scale", scale);
    }
    let terminal = crate::schedule(|config| {
        config.prediction_type = PredictionType::Sample;
        config.rescale_betas_zero_snr = true;
    });
    let plan = Sampler::ddim(0.0).plan(&terminal, Steps::All).unwrap();
    assert_out_of_range(plan.clone().epsilon_scaled(1.01), "the signal at timestep 19", 0);
    assert_eq!(plan.clone().epsilon_scaled(1.0).unwrap(), plan);
}
