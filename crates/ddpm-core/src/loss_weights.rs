//! The weights of the training loss at each timestep.
//!
//! ε, x₀ and v are affine functions of each other. So the mean squared error of one is the mean squared error of
//! another, multiplied by a weight that depends on t. The weights of the squared error of x₀ are
//!
//! ```text
//! epsilon      SNR(t) = ᾱₜ / (1−ᾱₜ)        (Ho et al. 2020, eq. 14: L_simple)
//! sample       1
//! v_prediction SNR(t) + 1                  (Salimans & Ho 2022, arXiv 2202.00512, section 4)
//! min_snr      min(SNR(t), γ)              (Hang et al. 2023, arXiv 2303.09556, eq. 8, with γ = 5)
//! clamped_snr  min(max(SNR(t), 1), γ)      (truncated SNR of Salimans & Ho 2022, section 4, with an upper limit)
//! ```

use serde::{Deserialize, Serialize};

use crate::{Error, NoiseSchedule, PredictionType, Result};

/// The weighting of the squared error over timesteps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum), value(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum LossWeighting {
    /// The unweighted mean squared error of ε: `L_simple` of Ho et al. 2020.
    Epsilon,
    /// The unweighted mean squared error of x₀.
    Sample,
    /// The unweighted mean squared error of v.
    VPrediction,
    /// The mean squared error of x₀, weighted by min(SNR, 5).
    MinSnr,
    /// The mean squared error of x₀, weighted by SNR clamped to [1, 5].
    ClampedSnr,
}

/// γ of min-SNR, as recommended by Hang et al.
const MIN_SNR_GAMMA: f64 = 5.0;

impl LossWeighting {
    /// The weight of the squared error of x₀ at the signal-to-noise ratio `snr`.
    #[must_use]
    pub fn sample_weight(self, snr: f64) -> f64 {
        self.of_snr(snr, MIN_SNR_GAMMA)
    }

    fn of_snr(self, snr: f64, gamma: f64) -> f64 {
        match self {
            Self::Epsilon => snr,
            Self::Sample => 1.0,
            Self::VPrediction => snr + 1.0,
            Self::MinSnr => snr.min(gamma),
            Self::ClampedSnr => snr.max(1.0).min(gamma),
        }
    }

    /// The weights of the squared error of a network's output at each timestep t = 0 … T − 1. `output` is the
    /// quantity that the network emits: ε, x₀ or v.
    ///
    /// # Errors
    ///
    /// If the output is ε and the schedule has a timestep with a signal-to-noise ratio of 0. There the error of ε does
    /// not determine the error of x₀.
    pub fn weights(self, schedule: &NoiseSchedule, output: PredictionType) -> Result<Vec<f64>> {
        self.weights_with(schedule, output, MIN_SNR_GAMMA)
    }

    /// [`LossWeighting::weights`] with another γ of `min_snr` and `clamped_snr`, above 0.
    ///
    /// # Errors
    ///
    /// As [`LossWeighting::weights`], or if γ is not above 0.
    pub fn weights_with(
        self,
        schedule: &NoiseSchedule,
        output: PredictionType,
        gamma: f64,
    ) -> Result<Vec<f64>> {
        if gamma.is_nan() || gamma <= 0.0 {
            return Err(Error::out_of_range("gamma", gamma, "above 0"));
        }
        let output = match output {
            PredictionType::Epsilon => Self::Epsilon,
            PredictionType::Sample => Self::Sample,
            PredictionType::VPrediction => Self::VPrediction,
        };
        (0..schedule.num_train_timesteps())
            .map(|t| {
                let snr = schedule.snr(t)?;
                let weight = match (self, output) {
                    // At a signal-to-noise ratio of 0 the quotient is 0/0. These are its limits.
                    (Self::Epsilon, Self::Epsilon) => 1.0,
                    (Self::MinSnr, Self::Epsilon) => (gamma / snr).min(1.0),
                    _ => self.of_snr(snr, gamma) / output.of_snr(snr, gamma),
                };
                if weight.is_finite() { Ok(weight) } else { Err(Error::ZeroSnrEpsilon) }
            })
            .collect()
    }
}
