//! What defines a schedule, as plain data.

use serde::{Deserialize, Serialize};

use crate::{Error, PredictionType, Result, TimestepSpacing};

/// How βₜ runs over t. The names are those of diffusers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BetaSchedule {
    /// Evenly spaced from `beta_start` to `beta_end` (Ho et al. 2020, section 4).
    Linear,
    /// √β evenly spaced (Rombach et al. 2022, arXiv 2112.10752).
    ScaledLinear,
    /// ᾱ falls as a squared cosine (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 17); `beta_start` and
    /// `beta_end` do not matter.
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredcosCapV2,
    /// A logistic curve from `beta_start` to `beta_end` (Xu et al. 2022, GeoDiff, arXiv 2203.02923).
    Sigmoid,
}

/// The variance σ² of a reverse step (Ho et al. 2020, section 3.2).
///
/// `fixed_small_log` and `fixed_large_log` of diffusers are names of code that computes the same variances as
/// exp(ln σ²); they are read as [`FixedSmall`](Self::FixedSmall) and [`FixedLarge`](Self::FixedLarge).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReverseVariance {
    /// β̃ₜ, the posterior's variance: right if the data is a single point.
    #[serde(alias = "fixed_small_log")]
    FixedSmall,
    /// βₜ: right if the data is standard normal.
    #[serde(alias = "fixed_large_log")]
    FixedLarge,
    /// Between β̃ₜ and βₜ for each number of the image, from a second output v of the network in [−1, 1] (Nichol &
    /// Dhariwal 2021, arXiv 2102.09672, eq. 15): ln σ² = f ln β + (1−f) ln β̃ with f = (v+1)/2. Only for a schedule
    /// whose `variance_type` it is.
    LearnedRange,
    /// A variance for each timestep of the list, in its order; see
    /// [`optimal_variances`](crate::likelihood::optimal_variances).
    PerStep(Vec<f64>),
    /// 0: each step goes to the mean. The samples are sharper and much less varied than the learned distribution.
    Zero,
}

/// Whether known defects of diffusers are reproduced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compat {
    /// What the published equations say.
    #[default]
    Exact,
    /// What diffusers 0.42.1 does, for comparing pictures. The last two are a matter of a
    /// [`Scheduler`](crate::Scheduler), the others of the samplers themselves:
    ///
    /// - its DDPM adds noise in the last step, unless that starts at t = 0;
    /// - its DDIM goes from t to t − ⌊T/n⌋ even where that is not the next timestep of the list, and keeps
    ///   an ε̂ that does not belong to a clipped x̂₀;
    /// - its DPM-Solver, Euler and UniPC take ᾱ = 2⁻²⁴ in place of the 0 of `rescale_betas_zero_snr`;
    /// - its DPM-Solver and UniPC tell the network a rounded t where Karras' noise levels lie between two.
    ///
    /// `fixtures/README.md` has them in detail. What cannot be meant is not reproduced: a list of timesteps one too
    /// long (62 for T = 1000, n = 61, trailing), the root of a negative number for `fixed_large_log`. diffusers
    /// does all this by the number of steps asked for, so a list shortened by `strength` is not its own.
    Diffusers,
}

/// All that defines a schedule and how a network trained with it is to be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoiseScheduleConfig {
    /// T, the number of steps from data to noise; 2 to 10,000.
    pub num_train_timesteps: usize,
    /// How β runs from `beta_start` to `beta_end`.
    pub beta_schedule: BetaSchedule,
    /// β of the first step (t = 0), strictly between 0 and 1.
    pub beta_start: f64,
    /// β of the last step (t = T − 1), strictly between 0 and 1.
    pub beta_end: f64,
    /// T betas of one's own, which take the place of `beta_schedule`.
    pub trained_betas: Option<Vec<f64>>,
    /// Whether the schedule is shifted and scaled such that nothing of the image is left at T − 1 (Lin et
    /// al. 2023, arXiv 2305.08891, algorithm 1).
    pub rescale_betas_zero_snr: bool,
    /// What the network's prediction means.
    pub prediction_type: PredictionType,
    /// The variance of a reverse step.
    pub variance_type: ReverseVariance,
    /// Whether the predicted x₀ is clipped to ±`clip_sample_range` at each step.
    pub clip_sample: bool,
    /// The largest magnitude in x₀; 1 for images in [−1, 1].
    pub clip_sample_range: f64,
    /// Whether the predicted x₀ is clipped to a quantile of its own magnitudes and divided by it (dynamic
    /// thresholding, Saharia et al. 2022, arXiv 2205.11487, section 2.3), in place of `clip_sample`.
    pub thresholding: bool,
    /// The quantile of dynamic thresholding, 0 to 1.
    pub dynamic_thresholding_ratio: f64,
    /// The largest magnitude that dynamic thresholding divides by; at least 1.
    pub sample_max_value: f64,
    /// Which steps are taken if fewer than T are asked for.
    pub timestep_spacing: TimestepSpacing,
    /// What is added to each timestep of leading spacing.
    pub steps_offset: usize,
    /// Whether known defects of diffusers are reproduced.
    #[serde(default)]
    pub compat: Compat,
}

/// The range of a β.
const UNIT: &str = "a number strictly between 0 and 1";

impl NoiseScheduleConfig {
    /// T = 20, β linear from 0.001 to 0.7: what this project trains on MNIST.
    ///
    /// ᾱ falls to 5.4e-5, so the prior is reached; β₁ leaves about 4 grey levels of noise in x₀.
    #[must_use]
    pub fn mnist20() -> Self {
        Self::linear(20, 0.001, 0.7)
    }

    /// T = 1000, β linear from 1e-4 to 0.02: the schedule of Ho et al. 2020, section 4.
    #[must_use]
    pub fn ho2020() -> Self {
        Self::linear(1000, 1e-4, 0.02)
    }

    /// T = 1000, ᾱ a squared cosine: the schedule of Nichol & Dhariwal 2021.
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
            clip_sample: true,
            clip_sample_range: 1.0,
            thresholding: false,
            dynamic_thresholding_ratio: 0.995,
            sample_max_value: 1.0,
            timestep_spacing: TimestepSpacing::Trailing,
            steps_offset: 0,
            compat: Compat::Exact,
        }
    }

    /// Everything that can be said without computing a table.
    pub(crate) fn validate(&self) -> Result<()> {
        let total = self.num_train_timesteps;
        if !(2..=10_000).contains(&total) {
            return Err(Error::out_of_range("num_train_timesteps", total, "2 to 10000"));
        }
        // Written so that NaN is refused as well.
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
