//! The configuration of a noise schedule, as plain data.

use serde::{Deserialize, Serialize};

use crate::{Error, PredictionType, Result, TimestepSpacing, plan::Clip};

/// βₜ as a function of t. Serialized names are the same as in diffusers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BetaSchedule {
    /// Evenly spaced from `beta_start` to `beta_end` (Ho et al. 2020, section 4).
    Linear,
    /// √β evenly spaced (Rombach et al. 2022, arXiv 2112.10752).
    ScaledLinear,
    /// ᾱ decreases as a squared cosine (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 17). `beta_start` and
    /// `beta_end` are ignored.
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredcosCapV2,
    /// A logistic curve from `beta_start` to `beta_end` (Xu et al. 2022, GeoDiff, arXiv 2203.02923).
    Sigmoid,
}

/// The variance σ² of a reverse step (Ho et al. 2020, section 3.2).
///
/// The options `fixed_small_log` and `fixed_large_log` of diffusers compute the same variances as exp(ln σ²). They are
/// read as [`FixedSmall`](Self::FixedSmall) and [`FixedLarge`](Self::FixedLarge).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReverseVariance {
    /// β̃ₜ, the posterior's variance. It is optimal if the data is a single point.
    #[serde(alias = "fixed_small_log")]
    FixedSmall,
    /// βₜ. It is optimal if the data is standard normal.
    #[serde(alias = "fixed_large_log")]
    FixedLarge,
    /// A learned variance between β̃ₜ and βₜ for each pixel (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 15). The
    /// network emits a second output v in [−1, 1], and ln σ² = f ln β + (1−f) ln β̃ with f = (v+1)/2. A sampler
    /// accepts it only if it is also the schedule's `variance_type`.
    LearnedRange,
    /// One variance for each timestep of the list, in the same order; see
    /// [`optimal_variances`](crate::likelihood::optimal_variances).
    PerStep(Vec<f64>),
    /// 0: each reverse step goes to the mean, without added noise. The samples are much less varied than the learned
    /// distribution.
    Zero,
}

/// Whether samplers reproduce known defects of diffusers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Compat {
    /// Samplers follow the published equations.
    #[default]
    Exact,
    /// Samplers behave like diffusers 0.42.1, for comparing images. The samplers reproduce the first two defects, and
    /// [`Scheduler`](crate::Scheduler) the last two:
    ///
    /// - DDPM adds noise in the last step, unless it starts at t = 0;
    /// - DDIM goes from t to t − ⌊T/n⌋ even if that is not the next timestep of the list, and computes ε̂ from the
    ///   x̂₀ before clipping;
    /// - DPM-Solver, Euler and UniPC use ᾱ = 2⁻²⁴ instead of 0 with `rescale_betas_zero_snr`;
    /// - DPM-Solver and UniPC pass a rounded t to the network if a Karras noise level lies between two timesteps;
    /// - Heun's method and PNDM correct every step, also where the noise is so strong that the correction does harm;
    /// - PNDM steps from t to t − ⌊T/n⌋, and with v it combines outputs of several timesteps as if they were of one;
    /// - TCD does not clip x̂₀;
    /// - flow matching shifts the smallest noise level twice.
    ///
    /// `fixtures/README.md` describes the details. Two evident bugs are not reproduced: a list of timesteps that is one
    /// too long (62 for T = 1000, n = 61, trailing), and the root of a negative number with `fixed_large_log`.
    /// diffusers derives these values from `num_inference_steps`, so results differ for a list that
    /// [`Timesteps::strength`](crate::Timesteps::strength) has shortened.
    Diffusers,
}

/// The configuration of a noise schedule, and how to interpret the output of a network that was trained with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoiseScheduleConfig {
    /// T, the number of timesteps of the forward process; 2 to 10,000.
    pub num_train_timesteps: usize,
    /// How β grows from `beta_start` to `beta_end`.
    pub beta_schedule: BetaSchedule,
    /// β of the first timestep (t = 0), strictly between 0 and 1.
    pub beta_start: f64,
    /// β of the last timestep (t = T − 1), strictly between 0 and 1.
    pub beta_end: f64,
    /// A custom list of T betas, each strictly between 0 and 1. If it is `Some`, `beta_schedule`, `beta_start` and
    /// `beta_end` are ignored.
    pub trained_betas: Option<Vec<f64>>,
    /// Whether to shift and scale the schedule so that the signal-to-noise ratio at T − 1 is 0 (Lin et al. 2023,
    /// arXiv 2305.08891, algorithm 1).
    pub rescale_betas_zero_snr: bool,
    /// The quantity that the network predicts: ε, x₀ or v.
    pub prediction_type: PredictionType,
    /// The variance of a reverse step. [`ReverseVariance::LearnedRange`] means that the network's output is twice as
    /// wide in dimension 1.
    pub variance_type: ReverseVariance,
    /// Whether to clip the predicted x₀ to ±`clip_sample_range` at each step.
    pub clip_sample: bool,
    /// The largest magnitude of a clipped x₀, above 0; 1 for images in [−1, 1].
    pub clip_sample_range: f64,
    /// Whether to use dynamic thresholding instead of `clip_sample`: the predicted x₀ is clipped to a quantile of its
    /// own magnitudes and divided by it (Saharia et al. 2022, arXiv 2205.11487, section 2.3).
    pub thresholding: bool,
    /// The quantile of dynamic thresholding, 0 to 1.
    pub dynamic_thresholding_ratio: f64,
    /// The largest divisor of dynamic thresholding, at least 1.
    pub sample_max_value: f64,
    /// How the timesteps of a run of fewer than T steps are spaced.
    pub timestep_spacing: TimestepSpacing,
    /// An offset that leading spacing adds to each timestep.
    pub steps_offset: usize,
    /// Whether samplers reproduce known defects of diffusers.
    #[serde(default)]
    pub compat: Compat,
}

/// The accepted range of a β.
const UNIT: &str = "a number strictly between 0 and 1";

impl NoiseScheduleConfig {
    /// T = 20, β linear from 0.001 to 0.7: the schedule of this project's MNIST models. x̂₀ is clipped to [−1, 1].
    ///
    /// ᾱ at the last timestep is 5.4e-5, so the forward process ends in almost pure noise. The first timestep adds noise
    /// with a standard deviation of about 4 grey levels.
    #[must_use]
    pub fn mnist20() -> Self {
        Self { clip_sample: true, ..Self::linear(20, 0.001, 0.7) }
    }

    /// T = 1000, β linear from 1e-4 to 0.02: the schedule of Ho et al. 2020, section 4. x̂₀ is not clipped; set
    /// `clip_sample` if the data has a range.
    #[must_use]
    pub fn ho2020() -> Self {
        Self::linear(1000, 1e-4, 0.02)
    }

    /// T = 1000, ᾱ decreasing as a squared cosine: the schedule of Nichol & Dhariwal 2021. x̂₀ is not clipped.
    #[must_use]
    pub fn cosine() -> Self {
        Self { beta_schedule: BetaSchedule::SquaredcosCapV2, ..Self::ho2020() }
    }

    fn linear(num_train_timesteps: usize, beta_start: f64, beta_end: f64) -> Self {
        Self {
            num_train_timesteps,
            beta_schedule: BetaSchedule::Linear,
            beta_start,
            beta_end,
            trained_betas: None,
            rescale_betas_zero_snr: false,
            prediction_type: PredictionType::Epsilon,
            variance_type: ReverseVariance::FixedSmall,
            clip_sample: false,
            clip_sample_range: 1.0,
            thresholding: false,
            dynamic_thresholding_ratio: 0.995,
            sample_max_value: 1.0,
            timestep_spacing: TimestepSpacing::Trailing,
            steps_offset: 0,
            compat: Compat::Exact,
        }
    }

    /// How x̂₀ is clipped.
    pub(crate) fn clip(&self) -> Clip {
        if self.thresholding {
            Clip::Dynamic { ratio: self.dynamic_thresholding_ratio, max: self.sample_max_value }
        } else if self.clip_sample {
            Clip::Range(self.clip_sample_range)
        } else {
            Clip::None
        }
    }

    /// Checks all options that can be checked without computing a table.
    pub(crate) fn validate(&self) -> Result<()> {
        let total = self.num_train_timesteps;
        if !(2..=10_000).contains(&total) {
            return Err(Error::out_of_range("num_train_timesteps", total, "2 to 10000"));
        }
        // With these comparisons NaN is rejected too.
        let between = |x: f64| x > 0.0 && x < 1.0;
        if let Some(betas) = &self.trained_betas {
            if betas.len() != total {
                let table = "trained_betas";
                return Err(Error::TableLength { table, found: betas.len(), expected: total });
            }
            if let Some((t, &found)) = betas.iter().enumerate().find(|(_, beta)| !between(**beta)) {
                return Err(Error::out_of_range(format!("trained_betas[{t}]"), found, UNIT));
            }
        } else if self.beta_schedule != BetaSchedule::SquaredcosCapV2 {
            for (name, found) in [("beta_start", self.beta_start), ("beta_end", self.beta_end)] {
                if !between(found) {
                    return Err(Error::out_of_range(name, found, UNIT));
                }
            }
            if self.beta_end < self.beta_start {
                let expected = format!("at least beta_start, {}", self.beta_start);
                return Err(Error::out_of_range("beta_end", self.beta_end, expected));
            }
        }
        if self.rescale_betas_zero_snr && self.prediction_type == PredictionType::Epsilon {
            return Err(Error::ZeroSnrEpsilon);
        }
        let positive = |x: f64| x > 0.0 && x.is_finite();
        if !positive(self.clip_sample_range) {
            return Err(Error::out_of_range(
                "clip_sample_range",
                self.clip_sample_range,
                "a positive number",
            ));
        }
        if !(0.0..=1.0).contains(&self.dynamic_thresholding_ratio) {
            let found = self.dynamic_thresholding_ratio;
            return Err(Error::out_of_range("dynamic_thresholding_ratio", found, "0 to 1"));
        }
        if !(self.sample_max_value >= 1.0 && self.sample_max_value.is_finite()) {
            return Err(Error::out_of_range("sample_max_value", self.sample_max_value, "at least 1"));
        }
        Ok(())
    }
}
