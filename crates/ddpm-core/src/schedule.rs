//! The noise schedule: the β of each timestep and the tables derived from it, in f64.

use crate::{Error, NoiseScheduleConfig, Result, betas};

/// A validated noise schedule with its tables in f64. Each table has length T and is indexed by the 0-based t.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseSchedule {
    config: NoiseScheduleConfig,
    betas: Vec<f64>,
    alphas_cumprod: Vec<f64>,
    alphas_cumprod_prev: Vec<f64>,
}

/// The coefficients of the posterior of a reverse step from `t` to a smaller `prev`:
/// q(x_prev given xₜ, x₀) = N(`x_start_coef`·x₀ + `x_t_coef`·xₜ, `variance`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PosteriorCoefs {
    /// The factor of x₀ in the mean.
    pub x_start_coef: f64,
    /// The factor of xₜ in the mean.
    pub x_t_coef: f64,
    /// β̃, the posterior's variance.
    pub variance: f64,
    /// The effective β of the step, 1 − ᾱₜ/ᾱ_prev. It is βₜ if `prev` is t − 1.
    pub beta: f64,
}

/// The largest ᾱ at T − 1 without a warning. At this value a tenth of the image's amplitude is left. Well-known models
/// are below it: Stable Diffusion has 0.0047, which Lin et al. 2023 already call a flaw.
const PRIOR: f64 = 0.01;

/// A property of a schedule that is allowed but probably a mistake.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleWarning {
    /// At the last timestep the image is still visible through the noise, but sampling starts from pure noise. One
    /// cause is using the betas of a schedule for many timesteps with few timesteps.
    #[error(
        "alphas_cumprod is {alpha_cumprod:.3} at the last timestep, so sampling does not start where the \
             forward process ends; expected at most 0.01"
    )]
    PriorNotReached {
        /// ᾱ at T − 1.
        alpha_cumprod: f64,
    },
}

impl NoiseSchedule {
    /// Computes the tables.
    ///
    /// # Errors
    ///
    /// If an option is outside its range, if `rescale_betas_zero_snr` is combined with a prediction of ε (in pure noise
    /// ε does not determine x₀), or if ᾱ rounds to 0 or 1 in f64.
    pub fn new(config: &NoiseScheduleConfig) -> Result<Self> {
        config.validate()?;
        let betas = betas::betas(config);
        let alphas_cumprod = betas::alphas_cumprod(&betas);
        let last = betas.len() - 1;
        let valid = |t: usize, a: f64| a < 1.0 && (a > 0.0 || t == last && config.rescale_betas_zero_snr);
        if let Some((t, &found)) = alphas_cumprod.iter().enumerate().find(|&(t, &a)| !valid(t, a)) {
            let expected = "a number strictly between 0 and 1";
            return Err(Error::out_of_range(format!("alphas_cumprod[{t}]"), found, expected));
        }
        Ok(Self::from_tables(config.clone(), betas, alphas_cumprod))
    }

    fn from_tables(config: NoiseScheduleConfig, betas: Vec<f64>, alphas_cumprod: Vec<f64>) -> Self {
        let mut alphas_cumprod_prev = vec![1.0];
        alphas_cumprod_prev.extend_from_slice(&alphas_cumprod[..alphas_cumprod.len() - 1]);
        Self { config, betas, alphas_cumprod, alphas_cumprod_prev }
    }

    /// The same schedule with another ᾱ at T − 1. The last β stays as it is, so it does not match the new ᾱ.
    pub(crate) fn with_terminal(self, alpha_cumprod: f64) -> Self {
        let (mut alphas_cumprod, last) = (self.alphas_cumprod, self.betas.len() - 1);
        alphas_cumprod[last] = alpha_cumprod;
        Self::from_tables(self.config, self.betas, alphas_cumprod)
    }

    /// The configuration from which the schedule was made.
    #[must_use]
    pub fn config(&self) -> &NoiseScheduleConfig {
        &self.config
    }

    /// T, the number of timesteps.
    #[must_use]
    pub fn num_train_timesteps(&self) -> usize {
        self.betas.len()
    }

    /// βₜ for t = 0 … T − 1.
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

    /// The signal-to-noise ratio ᾱₜ/(1 − ᾱₜ) at timestep `t`. It is 0 at T − 1 with `rescale_betas_zero_snr`.
    ///
    /// # Errors
    ///
    /// If `t` is not below T.
    pub fn snr(&self, t: usize) -> Result<f64> {
        let alpha_cumprod = self.alpha_cumprod(t)?;
        Ok(alpha_cumprod / (1.0 - alpha_cumprod))
    }

    /// The variance of the posterior of each step from t to t − 1 (Ho et al. 2020, eq. 7):
    ///
    /// ```text
    /// β̃ₜ = (1 − ᾱₜ₋₁) / (1 − ᾱₜ) · βₜ
    /// ```
    ///
    /// It is 0 at t = 0.
    #[must_use]
    pub fn posterior_variance(&self) -> Vec<f64> {
        self.posterior_steps().map(|step| step.variance).collect()
    }

    /// ln β̃ₜ. At t = 0, where it would be −∞, it is the value of t = 1, as in Ho et al. 2020.
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

    /// A property of the schedule that is probably a mistake, or `None`.
    #[must_use]
    pub fn warning(&self) -> Option<ScheduleWarning> {
        let alpha_cumprod = self.alphas_cumprod[self.alphas_cumprod.len() - 1];
        (alpha_cumprod > PRIOR).then_some(ScheduleWarning::PriorNotReached { alpha_cumprod })
    }

    fn posterior_steps(&self) -> impl Iterator<Item = PosteriorCoefs> {
        std::iter::zip(&self.alphas_cumprod, &self.alphas_cumprod_prev)
            .map(|(&alpha_cumprod, &prev)| PosteriorCoefs::between(alpha_cumprod, prev))
    }

    /// The posterior coefficients of the reverse step from `t` to `prev`; `None` stands for x₀ itself. The step may skip
    /// timesteps: the effective β is 1 − ᾱₜ/ᾱ_prev.
    ///
    /// # Errors
    ///
    /// If `t` is not below T or `prev` is not below `t`.
    pub fn posterior_coefs(&self, t: usize, prev: Option<usize>) -> Result<PosteriorCoefs> {
        let alpha_cumprod = self.alpha_cumprod(t)?;
        if let Some(prev) = prev.filter(|&prev| prev >= t) {
            return Err(Error::out_of_range("prev", prev, format!("a timestep below t = {t}")));
        }
        Ok(PosteriorCoefs::between(alpha_cumprod, self.alpha_bar_or_one(prev)?))
    }

    pub(crate) fn alpha_cumprod(&self, t: usize) -> Result<f64> {
        let found = self.alphas_cumprod.get(t).copied();
        found.ok_or_else(|| Error::out_of_range("timestep", t, format!("0 to {}", self.betas.len() - 1)))
    }

    /// ᾱ at `t`, or 1 for x₀.
    pub(crate) fn alpha_bar_or_one(&self, t: Option<usize>) -> Result<f64> {
        t.map_or(Ok(1.0), |t| self.alpha_cumprod(t))
    }
}

impl PosteriorCoefs {
    /// The coefficients of a step from the noise level ᾱ to the cleaner level ᾱ_prev.
    pub(crate) fn between(alpha_cumprod: f64, alpha_bar_prev: f64) -> Self {
        let alpha = alpha_cumprod / alpha_bar_prev;
        let (beta, noise) = (1.0 - alpha, 1.0 - alpha_cumprod);
        Self {
            x_start_coef: alpha_bar_prev.sqrt() * beta / noise,
            x_t_coef: alpha.sqrt() * (1.0 - alpha_bar_prev) / noise,
            variance: (1.0 - alpha_bar_prev) / noise * beta,
            beta,
        }
    }
}
