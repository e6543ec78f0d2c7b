//! The decoder term of the bound: the probability of 8-bit levels under a normal distribution.

use std::f64::consts::{FRAC_1_SQRT_2, LN_2, PI};

#[cfg(feature = "candle")]
use candle_core::Tensor;
use libm::erfc;
#[cfg(feature = "candle")]
use rayon::prelude::*;

#[cfg(feature = "candle")]
use super::host;
#[cfg(feature = "candle")]
use crate::{Error, Result};

/// The largest accepted distance of a value from a level, in units of the spacing of levels. It exceeds the rounding
/// error of f16.
#[cfg(feature = "candle")]
const TOLERANCE: f64 = 0.1;
/// Half of the spacing of levels.
const HALF_BIN: f64 = 1.0 / 255.0;

/// A batch of 8-bit images.
#[cfg(feature = "candle")]
pub(crate) struct Levels {
    levels: Vec<u8>,
    /// The number of pixel values in an image, at least 1.
    dimensions: usize,
}

#[cfg(feature = "candle")]
impl Levels {
    /// Converts x₀ = 2g/255 − 1, shape [B, …], to the levels g.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0 to 255")]
    pub(crate) fn of(x_start: &Tensor) -> Result<Self> {
        let dimensions = x_start.dims().iter().skip(1).product::<usize>().max(1);
        let level = |x: f64| {
            let level = (x + 1.0) / (2.0 * HALF_BIN);
            let nearest = level.round().clamp(0.0, 255.0);
            // With this comparison NaN is rejected too.
            if (level - nearest).abs() <= TOLERANCE {
                Ok(nearest as u8)
            } else {
                Err(Error::Level { found: x })
            }
        };
        let levels = host(x_start)?.into_iter().map(level).collect::<Result<_>>()?;
        Ok(Self { levels, dimensions })
    }

    /// The mean of x₀² of each image.
    pub(crate) fn mean_squares(&self) -> Vec<f64> {
        let images = self.levels.chunks(self.dimensions);
        images.map(|image| mean(image, |_, level| value(level).powi(2))).collect()
    }

    /// −log₂ of the probability of each image, in bits per dimension. Value i of the batch has the distribution
    /// N(`means[i]`, `variance(i)`), rounded to the nearest level (Ho et al. 2020, eq. 13):
    ///
    /// ```text
    /// −log₂ ∫ N(x; x̂₀, σ²) dx   from x₀ − 1/255 to x₀ + 1/255, or to ∓∞ for black and white
    /// ```
    pub(crate) fn bits(&self, means: &[f64], variance: impl Fn(usize) -> f64 + Sync) -> Vec<f64> {
        debug_assert_eq!(means.len(), self.levels.len());
        let images = self.levels.par_chunks(self.dimensions).enumerate();
        images
            .map(|(image, levels)| {
                let start = image * self.dimensions;
                mean(levels, |i, level| {
                    let at = start + i;
                    decoder_bits(level, means[at], variance(at))
                })
            })
            .collect()
    }
}

/// −log₂ of the probability of a level g = 0 … 255 under N(`mean`, `variance`), rounded to the nearest level (Ho et al. 2020,
/// eq. 13).
#[must_use]
pub fn decoder_bits(level: u8, mean: f64, variance: f64) -> f64 {
    -log_mass(level, mean, variance.sqrt()) / LN_2
}

#[cfg(feature = "candle")]
fn mean(levels: &[u8], value: impl Fn(usize, u8) -> f64) -> f64 {
    let values = levels.iter().enumerate().map(|(i, &level)| value(i, level));
    values.sum::<f64>() / levels.len() as f64
}

/// Converts level g to the pixel value 2g/255 − 1.
fn value(level: u8) -> f64 {
    f64::from(level) * (2.0 * HALF_BIN) - 1.0
}

/// The logarithm of the probability that a sample of N(mean, deviation²) rounds to `level`.
fn log_mass(level: u8, mean: f64, deviation: f64) -> f64 {
    let distance = value(level) - mean;
    match level {
        0 => log_cdf((distance + HALF_BIN) / deviation),
        255 => log_cdf((HALF_BIN - distance) / deviation),
        // By symmetry the interval is moved to the lower tail, where small values keep their precision.
        _ => log_interval(-distance.abs() / deviation, HALF_BIN / deviation),
    }
}

/// ln (Φ(middle + half) − Φ(middle − half)), where `middle` ≤ 0 < `half`.
fn log_interval(middle: f64, half: f64) -> f64 {
    let (lower, upper) = (middle - half, middle + half);
    if half * (1.0 - middle) < 1e-3 {
        // The density times the width, with a second-order correction. A difference of Φ would lose digits.
        let log_density = -0.5 * (middle * middle + (2.0 * PI).ln());
        log_density + (2.0 * half).ln() + (half * half * (middle * middle - 1.0) / 6.0).ln_1p()
    } else if upper > 0.0 {
        (-0.5 * (erfc(upper * FRAC_1_SQRT_2) + erfc(-lower * FRAC_1_SQRT_2))).ln_1p()
    } else {
        // Both values of Φ are computed without the factor e^(−upper²/2), with which they would underflow.
        let scaled =
            erfcx(-upper * FRAC_1_SQRT_2) - erfcx(-lower * FRAC_1_SQRT_2) * (2.0 * middle * half).exp();
        -0.5 * upper * upper + (0.5 * scaled).ln()
    }
}

/// ln Φ(x).
fn log_cdf(x: f64) -> f64 {
    if x > 0.0 {
        (-0.5 * erfc(x * FRAC_1_SQRT_2)).ln_1p()
    } else {
        -0.5 * x * x + (0.5 * erfcx(-x * FRAC_1_SQRT_2)).ln()
    }
}

/// e^(x²) erfc(x) for x ≥ 0. For x ≥ 10 it sums ten terms of the asymptotic series, which is exact up to rounding:
///
/// ```text
/// (1 − 1/(2x²) + 1·3/(2x²)² − 1·3·5/(2x²)³ + …) / (x √π)
/// ```
fn erfcx(x: f64) -> f64 {
    if x < 10.0 {
        return (x * x).exp() * erfc(x);
    }
    let over = 0.5 / (x * x);
    let series = (0..10).rev().fold(1.0, |sum, k| 1.0 - f64::from(2 * k + 1) * over * sum);
    series / (x * PI.sqrt())
}

#[cfg(all(test, feature = "candle"))]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-13 * expected.abs().max(1.0), "{found} {expected}");
    }

    /// Reference values from mpmath with 50 digits.
    #[test]
    fn scaled_erfc_is_right_on_both_sides_of_the_change_of_method() {
        for (x, expected) in ERFCX {
            let found = erfcx(x);
            assert!((found / expected - 1.0).abs() < 3e-14, "{x}: {found}");
        }
    }

    const ERFCX: [(f64, f64); 9] = [
        (0.0, 1.0),
        (0.5, 0.6156903441929259),
        (3.0, 0.17900115118138996),
        (9.99, 0.05619664070685882),
        (10.0, 0.05614099274382259),
        (10.01, 0.056085454355001924),
        (30.0, 0.01879588886141675),
        (1000.0, 0.0005641893014533876),
        (100000000.0, 5.641895835477562e-09),
    ];

    #[test]
    fn the_masses_of_all_levels_add_up_to_one() {
        for (mean, deviation) in
            [(0.0, 1.0), (0.3, 0.1), (-0.99, 0.003), (1.0, 1e-4), (1.7, 0.5), (0.5, 1e-5), (-5.0, 40.0)]
        {
            let total: f64 = (0..=255).map(|level| log_mass(level, mean, deviation).exp()).sum();
            close(total, 1.0);
        }
    }

    /// Compares bins with their mirror images: near and far from the mean, wide and narrow.
    #[test]
    fn a_mirrored_bin_has_the_same_mass() {
        for (mean, deviation) in [(0.1, 1.0), (0.9, 0.01), (0.2, 1e-3), (30.0, 0.2)] {
            for level in [0, 1, 100, 254, 255] {
                close(log_mass(level, mean, deviation), log_mass(255 - level, -mean, deviation));
            }
        }
    }

    /// Reference values from mpmath with 50 digits. They include bins 1000 σ from the mean, where the mass is e^−500000,
    /// and bins of width 2e-6 σ.
    #[test]
    fn far_tails_and_narrow_bins_are_exact() {
        for (level, mean, deviation, expected) in LOG_MASS {
            close(log_mass(level, mean, deviation), expected);
        }
    }

    const LOG_MASS: [(u8, f64, f64, f64); 16] = [
        (0, 1.0, 0.002, -498048.96275594394),
        (0, -1.0, 0.0316, -0.59896116147142),
        (255, -0.5, 0.005, -44771.63357073738),
        (255, 0.99, 0.0001, -1852.3929383030418),
        (1, 1.0, 0.002, -494142.76889198774),
        (128, 0.0, 0.0316, -2.322681907388153),
        (100, -0.25, 0.0005, -1852.3929383030365),
        (77, 0.9, 0.3, -13.894908534551798),
        (200, -0.7, 0.0039, -52586.61407254371),
        (254, 0.9999, 0.001, -9.621279184352021),
        (128, 0.2, 4000.0, -14.061104539106802),
        (3, 50.0, 30.0, -10.611919248331033),
        (60, 1.0, 1.0, -6.936601638559862),
        (200, 0.5, 3.0, -6.865929122614508),
        (200, 0.5, 3.9, -7.128186442775503),
        (10, -0.93, 0.0002, -258.2657299114321),
    ];

    #[test]
    fn levels_are_read_from_any_type_and_other_images_are_refused() {
        let grey: Vec<f64> = (0..=255).map(|g| f64::from(g) * 2.0 / 255.0 - 1.0).collect();
        let images = Tensor::from_vec(grey, (2, 128), &Device::Cpu).unwrap();
        for dtype in [DType::F64, DType::F32, DType::F16] {
            let levels = Levels::of(&images.to_dtype(dtype).unwrap()).unwrap();
            assert_eq!(levels.levels, (0..=255).collect::<Vec<u8>>());
        }
        for wrong in [0.0, 1.01, -1.5, f64::NAN] {
            let found = Levels::of(&Tensor::new(&[[wrong, 1.0]], &Device::Cpu).unwrap());
            assert!(matches!(found, Err(Error::Level { .. })), "{wrong}");
        }
    }
}
