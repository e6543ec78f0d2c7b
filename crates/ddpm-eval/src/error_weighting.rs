//! The weight of each timestep in the score of a class.

use ddpm_core::{LossWeighting, NoiseSchedule};

use crate::Result;

/// The weight of the squared error of x₀ at each timestep.
///
/// Middle timesteps tell the classes apart. At small t the noised image shows the digit, so x̂₀ hardly depends on the
/// class; at large t the noised image shows nothing. [`ErrorWeighting::Bound`] and [`LossWeighting::Epsilon`] give
/// almost all weight to small t.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorWeighting {
    /// The weight in the variational bound: c²/(2σ²), with the coefficient c of x₀ in the posterior mean and the
    /// posterior variance σ². At t = 0, σ² is the posterior variance of t = 1, and c is 1, as in
    /// [`BoundEstimator`](ddpm_core::likelihood::BoundEstimator).
    Bound,
    /// The weight of a training loss, [`LossWeighting::sample_weight`]. Li et al. 2023 use
    /// [`LossWeighting::Epsilon`].
    Loss(LossWeighting),
}

/// `bound`, and the names of the loss weights.
#[cfg(feature = "clap")]
impl clap::ValueEnum for ErrorWeighting {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::Bound,
            Self::Loss(LossWeighting::Epsilon),
            Self::Loss(LossWeighting::Sample),
            Self::Loss(LossWeighting::VPrediction),
            Self::Loss(LossWeighting::MinSnr),
            Self::Loss(LossWeighting::ClampedSnr),
        ]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        match self {
            Self::Bound => Some(clap::builder::PossibleValue::new("bound")),
            Self::Loss(loss) => loss.to_possible_value(),
        }
    }
}

impl ErrorWeighting {
    /// The weighting with the highest accuracy on training images of MNIST.
    pub const BEST: Self = Self::Loss(LossWeighting::MinSnr);

    /// The weight at each timestep of the schedule.
    ///
    /// # Errors
    ///
    /// Only if the schedule is invalid.
    pub fn weights(self, schedule: &NoiseSchedule) -> Result<Vec<f64>> {
        let weight = |t: usize| match (self, t) {
            (Self::Bound, 0) => Ok(0.5 / schedule.posterior_variance()[1]),
            (Self::Bound, _) => {
                let step = schedule.posterior_coefs(t, t.checked_sub(1))?;
                Ok(step.x_start_coef.powi(2) / (2.0 * step.variance))
            }
            (Self::Loss(loss), _) => Ok(loss.sample_weight(schedule.snr(t)?)),
        };
        (0..schedule.num_train_timesteps()).map(weight).collect()
    }
}
