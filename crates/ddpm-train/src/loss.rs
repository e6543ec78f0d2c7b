//! The space in which the error of a prediction is measured.
//!
//! Since ε, x₀ and v are affine functions of each other, a mean squared error in one space is one in any
//! other times a weight that depends on t. Over x₀ the weights are
//!
//! ```text
//! epsilon      SNR(t) = ᾱₜ / (1−ᾱₜ)        (Ho et al. 2020, eq. 14)
//! sample       1
//! v_prediction SNR(t) + 1                  (Salimans & Ho 2022, section 4)
//! min_snr      min(SNR(t), 5)              (Hang et al. 2023, arXiv 2303.09556, with γ = 5)
//! clamped_snr  SNR(t), at least 1, at most 5
//! ```

use ddpm_core::{NoiseSchedule, PredictionType};
use serde::{Deserialize, Serialize};

use crate::Result;

/// The space of the squared error, and with it the weight of each timestep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// The error of ε: `L_simple` of Ho et al.
    Epsilon,
    /// The error of x₀.
    Sample,
    /// The error of v.
    VPrediction,
    /// The error of x₀ times min(SNR, 5).
    MinSnr,
    /// The error of x₀ times SNR clamped to [1, 5]: that of x₀ where the shape is decided (`truncated SNR` of
    /// Salimans & Ho 2022), that of min-SNR in the last steps.
    ClampedSnr,
}

/// γ of min-SNR, the value that its authors recommend.
const MIN_SNR_GAMMA: f64 = 5.0;

impl Loss {
    /// The weight of the squared error of x₀ at a signal-to-noise ratio.
    #[must_use]
    pub fn sample_weight(self, snr: f64) -> f64 {
        match self {
            Self::Epsilon => snr,
            Self::Sample => 1.0,
            Self::VPrediction => snr + 1.0,
            Self::MinSnr => snr.min(MIN_SNR_GAMMA),
            Self::ClampedSnr => snr.clamp(1.0, MIN_SNR_GAMMA),
        }
    }

    /// The weight of the squared error of a network's raw output, of the kind `output`, for each timestep
    /// of the schedule.
    ///
    /// # Errors
    ///
    /// If the raw output is ε and a timestep has a signal-to-noise ratio of 0, where an error of ε is none of
    /// x₀.
    pub fn weights(self, schedule: &NoiseSchedule, output: PredictionType) -> Result<Vec<f64>> {
        let output = match output {
            PredictionType::Epsilon => Self::Epsilon,
            PredictionType::Sample => Self::Sample,
            PredictionType::VPrediction => Self::VPrediction,
        };
        (0..schedule.num_train_timesteps())
            .map(|t| {
                let snr = schedule.snr(t)?;
                let weight = match (self, output) {
                    // The limits at a signal-to-noise ratio of 0, where the quotient is 0/0.
                    (Self::Epsilon, Self::Epsilon) => 1.0,
                    (Self::MinSnr, Self::Epsilon) => (MIN_SNR_GAMMA / snr).min(1.0),
                    _ => self.sample_weight(snr) / output.sample_weight(snr),
                };
                if weight.is_finite() { Ok(weight) } else { Err(ddpm_core::Error::ZeroSnrEpsilon.into()) }
            })
            .collect()
    }
}
