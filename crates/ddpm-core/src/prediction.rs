//! What a network predicts, and the conversions between the three predictions.
//!
//! Given xₜ = √ᾱ x₀ + √(1−ᾱ) ε, each of ε, x₀ and v is an affine function of any other, so a
//! prediction of one *is* a prediction of all. Which one a network's raw output is, decides how easily
//! it learns; which one is named, only how it is read.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::{NoiseSchedule, Result, forward::combine, weighted_sum::weighted_sum_within};

/// The quantity that a prediction stands for. The names are those of diffusers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum), value(rename_all = "snake_case"))]
pub enum PredictionType {
    /// ε, the noise in xₜ (Ho et al. 2020, eq. 11).
    Epsilon,
    /// x₀, the clean image.
    Sample,
    /// v = √ᾱ ε − √(1−ᾱ) x₀ (Salimans & Ho 2022, arXiv 2202.00512, section 4).
    VPrediction,
}

impl PredictionType {
    /// (a, b) such that `to = a·xₜ + b·self` at the noise level ᾱ:
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
}

impl PredictionType {
    /// Reads `prediction`, which is of this kind, as one of the kind `to` at the noise level ᾱ of `x_t`.
    ///
    /// # Errors
    ///
    /// If the shapes differ.
    pub fn convert(self, to: Self, prediction: &Tensor, x_t: &Tensor, alpha_cumprod: f64) -> Result<Tensor> {
        self.convert_within(to, prediction, x_t, alpha_cumprod, f64::INFINITY)
    }

    /// [`PredictionType::convert`], clipped to ±`range`.
    pub(crate) fn convert_within(
        self,
        to: Self,
        prediction: &Tensor,
        x_t: &Tensor,
        alpha_cumprod: f64,
        range: f64,
    ) -> Result<Tensor> {
        if self != to {
            let (a, b) = self.conversion(to, alpha_cumprod);
            return weighted_sum_within(&[(a, x_t), (b, prediction)], range);
        }
        if range.is_infinite() {
            Ok(prediction.clone())
        } else {
            weighted_sum_within(&[(1.0, prediction)], range)
        }
    }
}

impl NoiseSchedule {
    /// Reads a prediction of the kind `from`, shape [B, …] like `x_t`, as one of the kind `to`.
    /// `t` holds one timestep for each image, or a single one for all.
    ///
    /// # Errors
    ///
    /// If a timestep is out of range, their number does not fit, or the shapes differ.
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

    /// x₀ from a prediction of ε: (xₜ − √(1−ᾱₜ) ε) / √ᾱₜ (Ho et al. 2020, eq. 15).
    ///
    /// # Errors
    ///
    /// As [`NoiseSchedule::convert`].
    pub fn predict_x_start_from_eps(&self, eps: &Tensor, x_t: &Tensor, t: &[usize]) -> Result<Tensor> {
        self.convert(PredictionType::Epsilon, PredictionType::Sample, eps, x_t, t)
    }

    /// ε from a prediction of x₀: (xₜ − √ᾱₜ x₀) / √(1−ᾱₜ).
    ///
    /// # Errors
    ///
    /// As [`NoiseSchedule::convert`].
    pub fn predict_eps_from_x_start(&self, x_start: &Tensor, x_t: &Tensor, t: &[usize]) -> Result<Tensor> {
        self.convert(PredictionType::Sample, PredictionType::Epsilon, x_start, x_t, t)
    }
}
