//! The list of timesteps that a sampler runs through.

use serde::{Deserialize, Serialize};

use crate::{Compat, Error, NoiseSchedule, Result, Timestep, timestep::sigma};

/// How n inference timesteps are spaced over the T training timesteps (Lin et al. 2023, arXiv 2305.08891,
/// table 2). Serialized names are the same as in diffusers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TimestepSpacing {
    /// 0, k, 2k, … with k = ⌊T/n⌋. The list ends at t = 0, but starts below T − 1.
    Leading,
    /// From T − 1 down in strides of T/n. The list starts at the noisiest timestep, where the forward process ends.
    /// The last step goes from t = T/n − 1 directly to x₀, so with few steps the samples lose fine detail.
    Trailing,
    /// Evenly spaced from T − 1 to 0, both included.
    Linspace,
}

/// A validated, strictly descending list of timesteps, and the noise level after the last step. By default the last
/// step leads to x₀.
#[derive(Clone, Debug, PartialEq)]
pub struct Timesteps {
    list: Vec<Timestep>,
    /// ᾱ after the last step.
    last: f64,
}

/// One step of a sampler, from one noise level to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transition {
    pub(crate) index: usize,
    pub(crate) from: Timestep,
    /// ᾱ of the noise level to which the step leads.
    pub(crate) to: f64,
    pub(crate) is_last: bool,
    /// The argument of the noise source for this step.
    pub(crate) noise_index: usize,
}

impl Timesteps {
    /// All T timesteps of the schedule.
    #[must_use]
    pub fn all(schedule: &NoiseSchedule) -> Self {
        let numbered = schedule.alphas_cumprod().iter().enumerate().rev();
        let list = numbered.map(|(t, &alpha_cumprod)| Timestep::new(t as f64, alpha_cumprod)).collect();
        Self { list, last: 1.0 }
    }

    /// `num_inference_steps` timesteps of the schedule, spaced by its `timestep_spacing`.
    ///
    /// ```
    /// # use ddpm_core::{NoiseSchedule, NoiseScheduleConfig, Timesteps};
    /// let schedule = NoiseSchedule::new(&NoiseScheduleConfig::mnist20())?;
    /// assert_eq!(Timesteps::spaced(&schedule, 4)?.indices(), [19, 14, 9, 4]);
    /// # Ok::<(), ddpm_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If `num_inference_steps` is 0 or above T, or `steps_offset` moves a timestep above T − 1.
    pub fn spaced(schedule: &NoiseSchedule, num_inference_steps: usize) -> Result<Self> {
        check_count(schedule, num_inference_steps)?;
        Self::explicit(schedule, spread(schedule, num_inference_steps)?)
    }

    /// A list of explicit timesteps, 0 to T − 1, noisiest first.
    ///
    /// # Errors
    ///
    /// If the list is empty, not strictly descending, or has a value that is not below T.
    pub fn explicit(schedule: &NoiseSchedule, list: Vec<usize>) -> Result<Self> {
        let total = schedule.num_train_timesteps();
        let mut bound = total;
        for (position, &found) in list.iter().enumerate() {
            if found >= bound {
                let expected = format!("strictly descending values below {total}");
                return Err(Error::out_of_range(format!("timesteps[{position}]"), found, expected));
            }
            bound = found;
        }
        let timestep = |t: usize| Timestep::new(t as f64, schedule.alphas_cumprod()[t]);
        Self::new(list.into_iter().map(timestep).collect())
    }

    /// A list of explicit noise levels σ (see [`Timestep::sigma`]), strictly descending. The timestep t of each level
    /// is interpolated linearly in ln σ, so the network must accept fractional t.
    ///
    /// # Errors
    ///
    /// If the list is empty, a value is not between 10⁻⁷ and 10⁷, or the list is not strictly descending.
    pub fn from_sigmas(schedule: &NoiseSchedule, sigmas: &[f64]) -> Result<Self> {
        let refuse = |found: f64, position: usize| {
            let expected = "strictly descending values between 1e-7 and 1e7";
            Error::out_of_range(format!("sigmas[{position}]"), found, expected)
        };
        let mut bound = f64::INFINITY;
        for (position, &found) in sigmas.iter().enumerate() {
            // Outside this range 1 − ᾱ or ᾱ loses all digits in f64.
            let in_range = (1e-7..1e7).contains(&found);
            if !(in_range && found < bound) {
                return Err(refuse(found, position));
            }
            bound = found;
        }
        let list: Vec<Timestep> = sigmas.iter().map(|&sigma| schedule.at_sigma(sigma)).collect();
        // Two values of σ that round to the same ᾱ would make a step of length 0.
        match list.windows(2).position(|pair| pair[0].alpha_cumprod() >= pair[1].alpha_cumprod()) {
            Some(position) => Err(refuse(sigmas[position + 1], position + 1)),
            None => Self::new(list),
        }
    }

    /// `num_inference_steps` of the `original_inference_steps` timesteps with which a consistency model was distilled (Luo
    /// et al. 2023, arXiv 2310.04378): k − 1, 2k − 1, … with k = ⌊T/`original_inference_steps`⌋. The list starts at the
    /// noisiest of them.
    ///
    /// # Errors
    ///
    /// If `original_inference_steps` is 0 or above T, or `num_inference_steps` is 0 or above `original_inference_steps`.
    #[allow(clippy::integer_division, reason = "the floor of the definition")]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "below the number of timesteps"
    )]
    pub fn distilled(
        schedule: &NoiseSchedule,
        original_inference_steps: usize,
        num_inference_steps: usize,
    ) -> Result<Self> {
        let (total, original, n) =
            (schedule.num_train_timesteps(), original_inference_steps, num_inference_steps);
        if !(1..=total).contains(&original) {
            return Err(Error::out_of_range("original_inference_steps", original, format!("1 to {total}")));
        }
        if !(1..=original).contains(&n) {
            return Err(Error::out_of_range("num_inference_steps", n, format!("1 to {original}")));
        }
        let (stride, step) = (total / original, original as f64 / n as f64);
        let at = |i: usize| (original - (i as f64 * step).floor() as usize) * stride - 1;
        Self::explicit(schedule, (0..n).map(at).collect())
    }

    /// Noise levels spaced as in Karras et al. 2022 (arXiv 2206.00364, eq. 5), from the largest to the smallest σ of
    /// the schedule, with ρ = 7:
    ///
    /// ```text
    /// σᵢ = (σ_max^(1/ρ) + i/(n−1) · (σ_min^(1/ρ) − σ_max^(1/ρ)))^ρ,   i = 0 … n−1
    /// ```
    ///
    /// # Errors
    ///
    /// If `num_inference_steps` is 0 or above T, or the schedule ends at a signal-to-noise ratio of 0, where σ is
    /// infinite.
    pub fn karras(schedule: &NoiseSchedule, num_inference_steps: usize) -> Result<Self> {
        check_count(schedule, num_inference_steps)?;
        let alphas_cumprod = schedule.alphas_cumprod();
        let (min, max) = (sigma(alphas_cumprod[0]), sigma(alphas_cumprod[alphas_cumprod.len() - 1]));
        if max.is_infinite() {
            let expected = "a finite value, which needs rescale_betas_zero_snr: false";
            return Err(Error::out_of_range("the largest sigma", max, expected));
        }
        Self::from_sigmas(schedule, &karras_sigmas(max, min, num_inference_steps))
    }

    /// The same timesteps, but the last step leads to the smallest noise level of the schedule instead of x₀
    /// (`set_alpha_to_one: false` and `final_sigmas_type: "sigma_min"` of diffusers). If the last level of the list
    /// has less noise, the last step leads to that level.
    #[must_use]
    pub fn ending_at_sigma_min(self, schedule: &NoiseSchedule) -> Self {
        let last = self.list[self.len() - 1].alpha_cumprod();
        Self { last: last.max(schedule.alphas_cumprod()[0]), ..self }
    }

    /// Keeps only the last part of the list, for image-to-image sampling from a partly noised image. `strength` is the
    /// fraction of the timesteps to keep, above 0 and at most 1. The count is rounded down, but at least 1.
    ///
    /// Noise the image to the first timestep that is kept: `timesteps.first().q_sample(&image, &eps)`.
    ///
    /// # Errors
    ///
    /// If `strength` is not above 0 and at most 1.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the length")]
    pub fn strength(mut self, strength: f64) -> Result<Self> {
        if !(strength > 0.0 && strength <= 1.0) {
            return Err(Error::out_of_range("strength", strength, "above 0 and at most 1"));
        }
        let left = ((self.len() as f64 * strength) as usize).max(1);
        self.list.drain(..self.list.len() - left);
        Ok(self)
    }

    /// Checks that the list belongs to a schedule.
    pub(crate) fn checked(self, schedule: &NoiseSchedule) -> Result<Self> {
        let last = schedule.num_train_timesteps() - 1;
        let is_exact = schedule.config().compat == Compat::Exact;
        let fits = |timestep: &Timestep| {
            let is_inner = timestep.t() > 0.0 && timestep.index() < last && timestep.t().fract() == 0.0;
            // Levels beyond the schedule have the timestep of its end, and diffusers rounds timesteps between two.
            let is_same = |found: f64| (found / sigma(timestep.alpha_cumprod()) - 1.0).abs() < 1e-6;
            timestep.t() <= last as f64
                && !(is_exact && is_inner && !is_same(sigma(schedule.alphas_cumprod()[timestep.index()])))
        };
        match self.list.iter().position(|timestep| !fits(timestep)) {
            None => Ok(self),
            Some(position) => {
                let found = format!(
                    "t = {} with alphas_cumprod {}",
                    self.list[position].t(),
                    self.list[position].alpha_cumprod()
                );
                Err(Error::out_of_range(
                    format!("timesteps[{position}]"),
                    found,
                    "a timestep of the plan's schedule",
                ))
            }
        }
    }

    /// Makes a list and checks only that it is not empty.
    pub(crate) fn new(list: Vec<Timestep>) -> Result<Self> {
        if list.is_empty() { Err(Error::NoTimesteps) } else { Ok(Self { list, last: 1.0 }) }
    }

    /// The timesteps, noisiest first.
    #[must_use]
    pub fn as_slice(&self) -> &[Timestep] {
        &self.list
    }

    /// The timesteps, each rounded to the nearest integer.
    #[must_use]
    pub fn indices(&self) -> Vec<usize> {
        self.list.iter().map(|timestep| timestep.index()).collect()
    }

    /// The first timestep, the noisiest.
    #[must_use]
    pub fn first(&self) -> Timestep {
        self.list[0]
    }

    /// The number of timesteps, at least 1.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// ᾱ after the last step. It is 1 if the last step leads to x₀.
    #[must_use]
    pub fn last_alpha_cumprod(&self) -> f64 {
        self.last
    }

    /// The noise level at the end of a step, as a timestep at which the network can be evaluated.
    pub(crate) fn level_after(&self, schedule: &NoiseSchedule, step: Transition) -> Timestep {
        self.list.get(step.index + 1).copied().unwrap_or_else(|| schedule.at_sigma(sigma(step.to)))
    }

    /// The steps from each level to the next.
    pub(crate) fn transitions(&self) -> impl DoubleEndedIterator<Item = Transition> {
        // The noise index is the timestep, so a shorter list uses the same noise at the same level. Fractional
        // timesteps may round to the same integer, and levels beyond the schedule all have the timestep of its end. For
        // such lists the noise index is the position, counted from the end.
        let distinct = self.list.iter().all(|timestep| timestep.t().fract() == 0.0)
            && self.list.is_sorted_by(|before, after| before.t() > after.t());
        self.list.iter().enumerate().map(move |(index, &from)| {
            let is_last = index + 1 == self.list.len();
            let to = self.list.get(index + 1).map_or(self.last, |next| next.alpha_cumprod());
            let noise_index = if distinct { from.index() } else { self.list.len() - 1 - index };
            Transition { index, from, to, is_last, noise_index }
        })
    }
}

pub(crate) fn check_count(schedule: &NoiseSchedule, found: usize) -> Result<()> {
    let total = schedule.num_train_timesteps();
    if (1..=total).contains(&found) {
        return Ok(());
    }
    Err(Error::out_of_range("num_inference_steps", found, format!("1 to {total}")))
}

/// Rounds half to even like numpy, so that the timesteps match diffusers.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "values lie between 0 and T")]
pub(crate) fn round(x: f64) -> usize {
    x.round_ties_even() as usize
}

/// Computes `n` timesteps, spaced by the schedule's `timestep_spacing`. The list is not strictly descending if n > T.
///
/// # Errors
///
/// If `steps_offset` moves a timestep above T − 1.
#[allow(clippy::integer_division, reason = "leading spacing is defined by the floor")]
pub(crate) fn spread(schedule: &NoiseSchedule, n: usize) -> Result<Vec<usize>> {
    let (total, config) = (schedule.num_train_timesteps(), schedule.config());
    Ok(match config.timestep_spacing {
        TimestepSpacing::Leading => {
            let (stride, offset) = (total / n, config.steps_offset);
            // The offset may come from a file. Comparing before adding avoids an overflow.
            let room = total - 1 - (n - 1) * stride;
            if offset > room {
                let first = total - 1 - room;
                let expected = format!("0 to {room}: it is added to the first timestep, {first} of {total}");
                return Err(Error::out_of_range("steps_offset", offset, expected));
            }
            (0..n).rev().map(|i| i * stride + offset).collect()
        }
        TimestepSpacing::Trailing => {
            let stride = total as f64 / n as f64;
            (0..n).map(|i| round(total as f64 - i as f64 * stride) - 1).collect()
        }
        // numpy's linspace of one point is 0, the cleanest timestep, where sampling cannot start.
        TimestepSpacing::Linspace if n == 1 => vec![total - 1],
        TimestepSpacing::Linspace => {
            let stride = (total - 1) as f64 / (n - 1) as f64;
            (0..n).rev().map(|i| round(i as f64 * stride)).collect()
        }
    })
}

/// `n` noise levels σ from `max` to `min`, with ρ = 7 (Karras et al. 2022, eq. 5; the paper uses 80 and 0.002).
#[must_use]
pub fn karras_sigmas(max: f64, min: f64, n: usize) -> Vec<f64> {
    const RHO: f64 = 7.0;
    let (max_root, min_root) = (max.powf(1.0 / RHO), min.powf(1.0 / RHO));
    let last = n.saturating_sub(1).max(1) as f64;
    (0..n).map(|i| (max_root + i as f64 / last * (min_root - max_root)).powf(RHO)).collect()
}
