//! Integration tests of `ddpm-core`: everything here goes through the public API.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::integer_division,
    reason = "a test may panic, and its numbers are small"
)]

mod diffusers;
mod identities;
mod oracle;
mod schedule;

use candle_core::{Device, Tensor};
use ddpm_core::{NoiseSchedule, ScheduleConfig};

fn schedule(change: impl FnOnce(&mut ScheduleConfig)) -> NoiseSchedule {
    let mut config = ScheduleConfig::mnist20();
    change(&mut config);
    NoiseSchedule::new(&config).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.to_device(&Device::Cpu).unwrap().to_dtype(candle_core::DType::F64).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference, relative where values exceed 1.
fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    std::iter::zip(a, b).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f64::max)
}
