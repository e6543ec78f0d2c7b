//! Integration tests of `ddpm-core` through its public API.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::integer_division,
    reason = "a test may panic, and its numbers are small"
)]

mod brownian;
mod contract;
mod diffusers;
mod edges;
mod epsilon_scale;
mod golden;
mod golden_more;
mod guidance;
mod identities;
mod image_to_image;
mod independence;
mod inverse;
mod known;
mod likelihood;
mod loss_weights;
mod memory;
mod multistep;
mod oracle;
mod programs;
mod repaint;
mod schedule;
mod scheduler_config;
mod scheduler_files;
mod scheduler_refusals;
mod solvers;
mod tables;
mod timestep_search;
mod toy;

use candle_core::{DType, Device, Tensor};
use ddpm_core::{Error, NoiseSchedule, NoiseScheduleConfig, ReverseVariance, Timestep};

fn schedule(change: impl FnOnce(&mut NoiseScheduleConfig)) -> NoiseSchedule {
    let mut config = NoiseScheduleConfig::mnist20();
    change(&mut config);
    NoiseSchedule::new(&config).unwrap()
}

/// The network of the fixtures. It accepts any shape and type, and its prediction is never exact.
fn network(x: &Tensor, timestep: Timestep) -> candle_core::Result<Tensor> {
    ((x * 0.7)? + 0.1 * timestep.t().sin())?.tanh()
}

/// [`network`], with a second output if the variance is learned.
fn network_of(schedule: &NoiseSchedule) -> impl Fn(&Tensor, Timestep) -> candle_core::Result<Tensor> + use<> {
    let learned = schedule.config().variance_type == ReverseVariance::LearnedRange;
    move |x, timestep| {
        let output = network(x, timestep)?;
        if !learned {
            return Ok(output);
        }
        let variance = ((x * 0.3)? - 0.2 * timestep.t().cos())?.tanh()?;
        Tensor::cat(&[output, variance], 1)
    }
}

/// v = √ᾱ ε − √(1−ᾱ) x₀ of each image, or of all at one timestep (Salimans & Ho 2022, section 4).
fn velocity(schedule: &NoiseSchedule, x_start: &Tensor, t: &[usize], eps: &Tensor) -> Tensor {
    let images = x_start.dim(0).unwrap();
    let of = |image: usize| {
        let alpha_cumprod = schedule.alphas_cumprod()[t[image % t.len()]];
        let part = |x: &Tensor, factor: f64| (x.narrow(0, image, 1).unwrap() * factor).unwrap();
        (part(eps, alpha_cumprod.sqrt()) - part(x_start, (1.0 - alpha_cumprod).sqrt())).unwrap()
    };
    Tensor::cat(&(0..images).map(of).collect::<Vec<_>>(), 0).unwrap()
}

/// A tensor of a safetensors file.
fn tensor_of(bytes: &[u8], name: &str) -> Tensor {
    let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
    let view = file.tensor(name).unwrap_or_else(|_| panic!("fixture has no {name}"));
    let dtype = DType::try_from(view.dtype()).unwrap();
    Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Asserts that the value `found` of the argument, option or table entry `name` was rejected.
#[track_caller]
fn assert_out_of_range<T>(result: ddpm_core::Result<T>, name: &str, found: impl ToString) {
    match result.map(|_| ()) {
        Err(Error::OutOfRange { name: refused, found: value, .. }) => {
            assert_eq!((refused.as_ref(), value), (name, found.to_string()));
        }
        other => panic!("expected {name} to be out of range: {other:?}"),
    }
}

/// The largest difference, relative to the value if the value exceeds 1.
#[track_caller]
fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    largest(std::iter::zip(a, b).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)))
}

/// The largest of some differences, at least 0. `f64::max` would ignore NaN, so NaN panics here.
#[track_caller]
fn largest(differences: impl Iterator<Item = f64>) -> f64 {
    differences.fold(0.0, |largest, difference| {
        assert!(!difference.is_nan(), "a difference is not a number");
        f64::max(largest, difference)
    })
}

#[test]
fn values_that_are_not_numbers_agree_with_nothing() {
    for (a, b) in [(f64::NAN, 0.0), (0.0, f64::NAN), (f64::INFINITY, f64::INFINITY)] {
        assert!(std::panic::catch_unwind(|| largest_difference(&[1.0, a], &[1.0, b])).is_err(), "{a} {b}");
    }
    assert_eq!(largest_difference(&[1.0, 3.0], &[1.0, 2.0]), 0.5);
}
