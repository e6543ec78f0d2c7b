//! Random timesteps for training.

use serde::{Deserialize, Serialize};

use crate::{CounterRng, Error, Purpose, Result};

/// The distribution of training timesteps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TimestepSampling {
    /// Uniform; the loss is multiplied by the loss weight of the timestep.
    #[default]
    Uniform,
    /// Proportional to the loss weight of the timestep; the loss is then multiplied by the mean weight, so its expectation
    /// is that of uniform sampling (importance sampling as in Nichol & Dhariwal 2021, arXiv 2102.09672, section 3.3, with
    /// the loss weight in place of the measured loss).
    LossWeight,
    /// t/T = 1/(1+e^−z) with standard normal z: timesteps in the middle are more frequent (Esser et al. 2024,
    /// arXiv 2403.03206, section 3.1). The loss is multiplied by the loss weight of the timestep.
    LogitNormal,
}

/// Samples timesteps, with the factor of each one's loss.
///
/// ```
/// # use ddpm_core::{CounterRng, LossWeighting, NoiseSchedule, NoiseScheduleConfig, PredictionType};
/// # use ddpm_core::{TimestepSampler, TimestepSampling};
/// let schedule = NoiseSchedule::new(&NoiseScheduleConfig::ho2020())?;
/// let weights = LossWeighting::MinSnr.weights(&schedule, PredictionType::VPrediction)?;
/// let sampler = TimestepSampler::new(TimestepSampling::Uniform, weights)?;
/// let (t, weight) = sampler.sample(CounterRng::new(1), 17)?; // for training image 17
/// assert!(t < 1000 && weight > 0.0);
/// # Ok::<(), ddpm_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TimestepSampler {
    sampling: TimestepSampling,
    /// The loss weight of each timestep.
    weights: Vec<f64>,
    /// The sum of the loss weights.
    total: f64,
}

impl TimestepSampler {
    /// A sampler of t = 0 … T − 1, where T is the number of loss weights; see
    /// [`LossWeighting::weights`](crate::LossWeighting::weights).
    ///
    /// # Errors
    ///
    /// If there are no loss weights, one is negative or not finite, or all are 0.
    pub fn new(sampling: TimestepSampling, weights: Vec<f64>) -> Result<Self> {
        if let Some(t) = weights.iter().position(|weight| !(*weight >= 0.0 && weight.is_finite())) {
            return Err(Error::out_of_range(format!("the loss weight of t = {t}"), weights[t], "0 or more"));
        }
        let total = weights.iter().fold(0.0, |sum, weight| sum + weight);
        if total > 0.0 && total.is_finite() {
            return Ok(Self { sampling, total, weights });
        }
        Err(Error::out_of_range("the sum of the loss weights", total, "a positive number"))
    }

    /// The timestep of the image at position `at` of the stream of training images, and the factor of its loss.
    ///
    /// # Errors
    ///
    /// None at present.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to T")]
    pub fn sample(&self, rng: CounterRng, at: u64) -> Result<(usize, f64)> {
        let last = self.weights.len() - 1;
        Ok(match self.sampling {
            TimestepSampling::Uniform => {
                let timesteps = u32::try_from(self.weights.len()).unwrap_or(u32::MAX);
                let t = rng.below(Purpose::TRAIN_TIMESTEP, at, 0, timesteps) as usize;
                (t, self.weights[t])
            }
            TimestepSampling::LossWeight => {
                let mut left = rng.uniform(Purpose::TRAIN_TIMESTEP, at, 0) * self.total;
                let t = self.weights.iter().position(|weight| {
                    left -= weight;
                    left < 0.0
                });
                // `left` may stay slightly above 0 because of rounding.
                (t.unwrap_or(last), self.total / self.weights.len() as f64)
            }
            TimestepSampling::LogitNormal => {
                let mut z = [0.0];
                rng.fill_normal(Purpose::TRAIN_TIMESTEP, &[at], 0, &mut z)?;
                let part = 1.0 / (1.0 + (-f64::from(z[0])).exp());
                let t = ((part * self.weights.len() as f64) as usize).min(last);
                (t, self.weights[t])
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timesteps_have_the_given_frequencies() {
        let (rng, weights) = (CounterRng::new(1), vec![1.0, 5.0, 0.0, 2.0]);
        for (sampling, expected) in [
            (TimestepSampling::Uniform, [0.25; 4]),
            (TimestepSampling::LossWeight, [0.125, 0.625, 0.0, 0.25]),
        ] {
            let sampler = TimestepSampler::new(sampling, weights.clone()).unwrap();
            let (mut counts, mut sums) = ([0.0; 4], [0.0; 4]);
            for at in 0..20_000 {
                let (t, weight) = sampler.sample(rng, at).unwrap();
                counts[t] += 1.0 / 20_000.0;
                sums[t] += weight / 20_000.0;
            }
            for t in 0..4 {
                let expected: f64 = expected[t];
                let deviation = (expected * (1.0 - expected) / 20_000.0).sqrt();
                assert!((counts[t] - expected).abs() <= 4.0 * deviation, "{sampling:?} {t}: {counts:?}");
                // The total weight of a timestep does not depend on the distribution.
                assert!((sums[t] - weights[t] / 4.0).abs() < 0.03, "{sampling:?} {t}: {sums:?}");
            }
        }
    }

    /// The share of timesteps below T/4 is Φ(ln ⅓).
    #[test]
    fn logit_normal_timesteps_are_mostly_in_the_middle() {
        let sampler = TimestepSampler::new(TimestepSampling::LogitNormal, vec![1.0; 1000]).unwrap();
        let at = |at| sampler.sample(CounterRng::new(1), at).unwrap();
        let count = (0..20_000).filter(|&position| at(position).0 < 250).count();
        assert!((count as f64 / 20_000.0 - 0.136).abs() < 0.01, "{count}");
    }

    #[test]
    fn loss_weights_without_a_distribution_are_refused() {
        for (weights, expected) in [
            (vec![], "the sum of the loss weights is 0"),
            (vec![0.0, 0.0], "the sum of the loss weights is 0"),
            (vec![f64::MAX, f64::MAX], "the sum of the loss weights is inf"),
            (vec![1.0, -1.0], "the loss weight of t = 1 is -1"),
            (vec![f64::NAN], "the loss weight of t = 0 is NaN"),
        ] {
            let refused = TimestepSampler::new(TimestepSampling::Uniform, weights).unwrap_err();
            assert!(refused.to_string().contains(expected), "{refused}");
        }
    }
}
