//! The three quantities that a network can predict, and the conversions between them.
//!
//! Given xₜ = √ᾱ x₀ + √(1−ᾱ) ε, each of ε, x₀ and v is an affine function of any other. So a prediction of one
//! is also a prediction of the other two. The parameterization, which is the quantity that the network emits, decides
//! how easily the network learns. A conversion of its output does not.

#[cfg(feature = "candle")]
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

#[cfg(feature = "candle")]
use crate::{NoiseSchedule, Result, forward::combine, weighted_sum::weighted_sum};

/// The quantity that a prediction represents. Serialized names are the same as in diffusers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum), value(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum PredictionType {
    /// ε, the noise in xₜ (Ho et al. 2020, eq. 11).
    Epsilon,
    /// x₀, the clean image.
    Sample,
    /// v = √ᾱ ε − √(1−ᾱ) x₀ (Salimans & Ho 2022, arXiv 2202.00512, section 4).
    VPrediction,
}

impl PredictionType {
    /// The factors (a, b) of the conversion `to = a·xₜ + b·self` at the noise level ᾱ:
    ///
    /// ```text
    ///           to ε                          to x₀                       to v
    /// from ε    ε                             (xₜ − √(1−ᾱ) ε) / √ᾱ        (ε − √(1−ᾱ) xₜ) / √ᾱ
    /// from x₀   (xₜ − √ᾱ x₀) / √(1−ᾱ)         x₀                          (√ᾱ xₜ − x₀) / √(1−ᾱ)
    /// from v    √(1−ᾱ) xₜ + √ᾱ v              √ᾱ xₜ − √(1−ᾱ) v            v
    /// ```
    #[must_use]
    pub fn conversion(self, to: Self, alpha_cumprod: f64) -> (f64, f64) {
        let (signal, noise) = (alpha_cumprod.sqrt(), (1.0 - alpha_cumprod).sqrt());
        match (self, to) {
            (Self::Epsilon, Self::Epsilon)
            | (Self::Sample, Self::Sample)
            | (Self::VPrediction, Self::VPrediction) => (0.0, 1.0),
            (Self::Epsilon, Self::Sample) => (1.0 / signal, -noise / signal),
            (Self::Epsilon, Self::VPrediction) => (-noise / signal, 1.0 / signal),
            (Self::Sample, Self::Epsilon) => (1.0 / noise, -signal / noise),
            (Self::Sample, Self::VPrediction) => (signal / noise, -1.0 / noise),
            (Self::VPrediction, Self::Epsilon) => (noise, signal),
            (Self::VPrediction, Self::Sample) => (signal, -noise),
        }
    }

    /// The factors (a, b) of this quantity as a·x₀ + b·ε at the noise level ᾱ, for training.
    #[must_use]
    pub fn target(self, alpha_cumprod: f64) -> (f64, f64) {
        match self {
            Self::Epsilon => (0.0, 1.0),
            Self::Sample => (1.0, 0.0),
            Self::VPrediction => (-(1.0 - alpha_cumprod).sqrt(), alpha_cumprod.sqrt()),
        }
    }
}

#[cfg(feature = "candle")]
impl PredictionType {
    /// Converts `prediction` from this quantity to the quantity `to`, at the noise level ᾱ of `x_t`.
    ///
    /// # Errors
    ///
    /// If the shapes differ.
    pub fn convert(self, to: Self, prediction: &Tensor, x_t: &Tensor, alpha_cumprod: f64) -> Result<Tensor> {
        if self == to {
            return Ok(prediction.clone());
        }
        let (a, b) = self.conversion(to, alpha_cumprod);
        weighted_sum(&[(a, x_t), (b, prediction)])
    }
}

#[cfg(feature = "candle")]
impl NoiseSchedule {
    /// Converts a prediction of the quantity `from` to the quantity `to`. `prediction` and `x_t` have the same shape
    /// [B, …]. `t` holds one timestep for each image, or a single one for all images.
    ///
    /// # Errors
    ///
    /// If a timestep is out of range, `t` has a length other than 1 and B, or the shapes differ.
    pub fn convert(
        &self,
        from: PredictionType,
        to: PredictionType,
        prediction: &Tensor,
        x_t: &Tensor,
        t: &[usize],
    ) -> Result<Tensor> {
        if from == to {
            return Ok(prediction.clone());
        }
        combine(self, t, x_t, prediction, |alpha_cumprod, _| from.conversion(to, alpha_cumprod))
    }
}
