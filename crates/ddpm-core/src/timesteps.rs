//! Which steps a sampler takes.

use serde::{Deserialize, Serialize};

use crate::{Error, NoiseSchedule, Result};

/// How n steps are spread over T. The names are those of diffusers; see Lin et al. 2023
/// (arXiv 2305.08891), table 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSpacing {
    /// 0, k, 2k, … with k = ⌊T/n⌋: ends at t = 0, but starts below T − 1.
    Leading,
    /// T − 1 down in strides of T/n: starts at the noisiest step, which is where x_T belongs.
    Trailing,
    /// Evenly from T − 1 to 0, both included.
    Linspace,
}

/// A validated list of timesteps, strictly descending, each below T. After the last one comes x₀.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timesteps(Vec<usize>);

impl Timesteps {
    /// All T steps.
    #[must_use]
    pub fn all(schedule: &NoiseSchedule) -> Self {
        Self((0..schedule.num_train_timesteps()).rev().collect())
    }

    /// `num_inference_steps` of the schedule's steps, spread by its `timestep_spacing`.
    ///
    /// ```
    /// # use ddpm_core::{NoiseSchedule, ScheduleConfig, Timesteps};
    /// let schedule = NoiseSchedule::new(&ScheduleConfig::mnist20())?;
    /// assert_eq!(Timesteps::spaced(&schedule, 4)?.as_slice(), &[19, 14, 9, 4]);
    /// # Ok::<(), ddpm_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If `num_inference_steps` is 0 or above T.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::integer_division,
        reason = "values lie between 0 and T, and leading spacing is defined by the floor"
    )]
    pub fn spaced(schedule: &NoiseSchedule, num_inference_steps: usize) -> Result<Self> {
        let (total, n) = (schedule.num_train_timesteps(), num_inference_steps);
        if n == 0 || n > total {
            return Err(Error::InferenceSteps { found: n, num_train_timesteps: total });
        }
        // Rounding half to even, as numpy does, so that the steps are those of diffusers.
        let round = |x: f64| x.round_ties_even() as usize;
        let list = match schedule.config().timestep_spacing {
            TimestepSpacing::Leading => (0..n).rev().map(|i| i * (total / n)).collect(),
            TimestepSpacing::Trailing => {
                let stride = total as f64 / n as f64;
                (0..n).map(|i| round(total as f64 - i as f64 * stride) - 1).collect()
            }
            // numpy's linspace of one point is its start, 0, from where nothing can be sampled.
            TimestepSpacing::Linspace if n == 1 => vec![total - 1],
            TimestepSpacing::Linspace => {
                let stride = (total - 1) as f64 / (n - 1) as f64;
                (0..n).rev().map(|i| round(i as f64 * stride)).collect()
            }
        };
        Self::explicit(schedule, list)
    }

    /// A list of one's own.
    ///
    /// # Errors
    ///
    /// If the list is empty, not strictly descending, or has a value that is not below T.
    pub fn explicit(schedule: &NoiseSchedule, list: Vec<usize>) -> Result<Self> {
        let total = schedule.num_train_timesteps();
        if list.is_empty() {
            return Err(Error::NoTimesteps);
        }
        let mut bound = total;
        for (position, &found) in list.iter().enumerate() {
            if found >= bound {
                return Err(Error::TimestepOrder { found, position, num_train_timesteps: total });
            }
            bound = found;
        }
        Ok(Self(list))
    }

    /// The timesteps, noisiest first.
    #[must_use]
    pub fn as_slice(&self) -> &[usize] {
        &self.0
    }

    /// The number of steps; at least 1.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Each timestep with the one that follows it in sampling; `None` stands for x₀.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (usize, Option<usize>)> {
        self.0.iter().enumerate().map(|(i, &t)| (t, self.0.get(i + 1).copied()))
    }
}
