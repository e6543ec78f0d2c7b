//! The noise schedule: how much noise each step adds, and all tables that follow from it, in f64.

use serde::{Deserialize, Serialize};

use crate::{Error, PredictionType, Result, TimestepSpacing};

/// How βₜ runs over t. The names are those of diffusers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BetaSchedule {
    /// Evenly spaced from `beta_start` to `beta_end` (Ho et al. 2020, section 4).
    Linear,
}

/// The variance of a reverse step where the network does not learn it (Ho et al. 2020, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum VarianceType {
    /// β̃ₜ, the posterior's variance: right if the data is a single point.
    FixedSmall,
    /// βₜ: right if the data is standard normal.
    FixedLarge,
}

/// All that defines a schedule and how a network trained with it is to be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// T, the number of steps from data to noise; 2 to 10,000.
    pub num_train_timesteps: usize,
    /// How β runs from `beta_start` to `beta_end`.
    pub beta_schedule: BetaSchedule,
    /// β of the first step (t = 0), strictly between 0 and 1.
    pub beta_start: f64,
    /// β of the last step (t = T − 1), strictly between 0 and 1.
    pub beta_end: f64,
    /// What the network's prediction means.
    pub prediction_type: PredictionType,
    /// The variance of a reverse step.
    pub variance_type: VarianceType,
    /// Whether the predicted x₀ is clipped to ±`clip_sample_range` at each step.
    pub clip_sample: bool,
    /// The largest magnitude in x₀; 1 for images in [−1, 1].
    pub clip_sample_range: f64,
    /// Which steps are taken if fewer than T are asked for.
    pub timestep_spacing: TimestepSpacing,
}

impl ScheduleConfig {
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

    fn linear(num_train_timesteps: usize, beta_start: f64, beta_end: f64) -> Self {
        Self {
            num_train_timesteps,
            beta_schedule: BetaSchedule::Linear,
            beta_start,
            beta_end,
            prediction_type: PredictionType::Epsilon,
            variance_type: VarianceType::FixedSmall,
            clip_sample: true,
            clip_sample_range: 1.0,
            timestep_spacing: TimestepSpacing::Trailing,
        }
    }
}

/// A validated schedule with its tables, each of length T, indexed by the 0-based t, in f64.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseSchedule {
    config: ScheduleConfig,
    betas: Vec<f64>,
    alphas_cumprod: Vec<f64>,
    alphas_cumprod_prev: Vec<f64>,
}

/// The reverse step from `t` to an earlier `prev` as numbers:
/// q(x_prev given xₜ, x₀) = N(`x_start_coef`·x₀ + `x_t_coef`·xₜ, `variance`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PosteriorStep {
    /// The factor of x₀ in the mean.
    pub x_start_coef: f64,
    /// The factor of xₜ in the mean.
    pub x_t_coef: f64,
    /// β̃, the posterior's variance.
    pub variance: f64,
    /// The effective β of the step, 1 − ᾱₜ/ᾱ_prev, which is βₜ where `prev` is t − 1.
    pub beta: f64,
}

impl NoiseSchedule {
    /// Computes the tables.
    ///
    /// # Errors
    ///
    /// If T, a β or the clip range is outside its range, `beta_end < beta_start`, or so much or so little
    /// noise is added that ᾱ is 0 or 1 in f64.
    pub fn new(config: &ScheduleConfig) -> Result<Self> {
        let &ScheduleConfig { num_train_timesteps: found, beta_start, beta_end, .. } = config;
        if !(2..=10_000).contains(&found) {
            return Err(Error::TimestepCount { found });
        }
        for (name, found) in [("beta_start", beta_start), ("beta_end", beta_end)] {
            // Also refuses NaN, which no comparison would catch the other way round.
            if !(found > 0.0 && found < 1.0) {
                return Err(Error::Beta { name, found });
            }
        }
        if beta_end < beta_start {
            return Err(Error::FallingBetas { beta_start, beta_end });
        }
        let clip = config.clip_sample_range;
        if !(clip > 0.0 && clip.is_finite()) {
            return Err(Error::ClipRange { found: clip });
        }
        let last = (found - 1) as f64;
        let betas: Vec<f64> = match config.beta_schedule {
            BetaSchedule::Linear => {
                (0..found).map(|t| beta_start + (beta_end - beta_start) * t as f64 / last).collect()
            }
        };
        let mut alphas_cumprod_prev = vec![1.0];
        let mut alphas_cumprod = Vec::with_capacity(found);
        for beta in &betas {
            let next = alphas_cumprod.last().copied().unwrap_or(1.0) * (1.0 - beta);
            alphas_cumprod.push(next);
        }
        if let Some((t, &found)) = alphas_cumprod.iter().enumerate().find(|(_, a)| !(**a > 0.0 && **a < 1.0))
        {
            return Err(Error::NoiseLevel { t, found });
        }
        alphas_cumprod_prev.extend_from_slice(&alphas_cumprod[..found - 1]);
        Ok(Self { config: config.clone(), betas, alphas_cumprod, alphas_cumprod_prev })
    }

    /// The configuration from which the schedule was made.
    #[must_use]
    pub fn config(&self) -> &ScheduleConfig {
        &self.config
    }

    /// T, the number of steps.
    #[must_use]
    pub fn num_train_timesteps(&self) -> usize {
        self.betas.len()
    }

    /// βₜ.
    #[must_use]
    pub fn betas(&self) -> &[f64] {
        &self.betas
    }

    /// ᾱₜ = ∏ₛ₌₀ᵗ (1 − βₛ) (Ho et al. 2020, eq. 4).
    #[must_use]
    pub fn alphas_cumprod(&self) -> &[f64] {
        &self.alphas_cumprod
    }

    /// ᾱₜ₋₁, which is 1 at t = 0.
    #[must_use]
    pub fn alphas_cumprod_prev(&self) -> &[f64] {
        &self.alphas_cumprod_prev
    }

    /// The signal-to-noise ratio ᾱₜ/(1 − ᾱₜ) at step `t`.
    ///
    /// # Errors
    ///
    /// If `t` is not below T.
    pub fn snr(&self, t: usize) -> Result<f64> {
        let alpha_bar = self.alpha_bar(t)?;
        Ok(alpha_bar / (1.0 - alpha_bar))
    }

    /// The posterior's variance of each step to its predecessor (Ho et al. 2020, eq. 7):
    ///
    /// ```text
    /// β̃ₜ = (1 − ᾱₜ₋₁) / (1 − ᾱₜ) · βₜ
    /// ```
    ///
    /// The first is 0.
    #[must_use]
    pub fn posterior_variance(&self) -> Vec<f64> {
        self.posterior_steps().map(|step| step.variance).collect()
    }

    /// ln β̃ₜ, with the first, which would be −∞, replaced by the second, as Ho et al. do.
    #[must_use]
    pub fn posterior_log_variance_clipped(&self) -> Vec<f64> {
        let mut log: Vec<f64> = self.posterior_variance().into_iter().map(f64::ln).collect();
        log[0] = log[1];
        log
    }

    /// The factor of x₀ in the posterior's mean, √ᾱₜ₋₁ βₜ / (1 − ᾱₜ) (Ho et al. 2020, eq. 7).
    #[must_use]
    pub fn posterior_mean_coef1(&self) -> Vec<f64> {
        self.posterior_steps().map(|step| step.x_start_coef).collect()
    }

    /// The factor of xₜ in the posterior's mean, √αₜ (1 − ᾱₜ₋₁) / (1 − ᾱₜ) (Ho et al. 2020, eq. 7).
    #[must_use]
    pub fn posterior_mean_coef2(&self) -> Vec<f64> {
        self.posterior_steps().map(|step| step.x_t_coef).collect()
    }

    fn posterior_steps(&self) -> impl Iterator<Item = PosteriorStep> {
        std::iter::zip(&self.alphas_cumprod, &self.alphas_cumprod_prev)
            .map(|(&alpha_bar, &prev)| PosteriorStep::between(alpha_bar, prev))
    }

    /// The reverse step from `t` to `prev`, where `None` is x₀ itself. Steps that lie between are
    /// skipped: the effective β is 1 − ᾱₜ/ᾱ_prev.
    ///
    /// # Errors
    ///
    /// If `t` is not below T or `prev` is not below `t`.
    pub fn posterior_step(&self, t: usize, prev: Option<usize>) -> Result<PosteriorStep> {
        let alpha_bar = self.alpha_bar(t)?;
        if let Some(prev) = prev.filter(|&prev| prev >= t) {
            return Err(Error::StepDirection { t, prev });
        }
        Ok(PosteriorStep::between(alpha_bar, self.alpha_bar_or_one(prev)?))
    }

    pub(crate) fn alpha_bar(&self, t: usize) -> Result<f64> {
        let last = self.num_train_timesteps() - 1;
        self.alphas_cumprod.get(t).copied().ok_or(Error::TimestepRange { found: t, last })
    }

    /// ᾱ at `t`, or 1 for x₀.
    pub(crate) fn alpha_bar_or_one(&self, t: Option<usize>) -> Result<f64> {
        t.map_or(Ok(1.0), |t| self.alpha_bar(t))
    }
}

impl PosteriorStep {
    /// From the noise level ᾱ to the cleaner level ᾱ_prev.
    fn between(alpha_bar: f64, alpha_bar_prev: f64) -> Self {
        let alpha = alpha_bar / alpha_bar_prev;
        let (beta, noise) = (1.0 - alpha, 1.0 - alpha_bar);
        Self {
            x_start_coef: alpha_bar_prev.sqrt() * beta / noise,
            x_t_coef: alpha.sqrt() * (1.0 - alpha_bar_prev) / noise,
            variance: (1.0 - alpha_bar_prev) / noise * beta,
            beta,
        }
    }
}
