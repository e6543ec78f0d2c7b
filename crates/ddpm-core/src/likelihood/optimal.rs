//! The optimal variances of reverse steps, estimated from data.

use crate::{Error, PosteriorCoefs, Result, Timesteps};

/// The smallest mean squared error used for a variance. It keeps every variance above 0.
const SMALLEST: f64 = 1e-20;

/// Computes the variance of each step of a list that minimizes the bound (Analytic-DPM, Bao et al. 2022,
/// arXiv 2201.06503). `mse` is the mean squared error of x̂₀ at each timestep, in the order of the list:
///
/// ```text
/// σ*² = β̃ + c² mse(t),   mse(t) = E ‖x₀ − x̂₀(xₜ)‖² / d,   c = √ᾱ_prev β / (1−ᾱₜ)
/// ```
///
/// σ*² is the second moment of q(x_prev given xₜ, x₀) around the model's mean, so it is optimal for any network, even
/// a poor one. With it the mean of a step's KL term becomes ½ log₂(σ*²/β̃) bits per dimension. In the last step, to x₀,
/// σ*² is `mse(t)` itself, but at least 1e-20. This is optimal for the density of x₀. It is also optimal for the
/// probability of an 8-bit level if the standard deviation is large compared to the width of a level's bin.
///
/// Bao et al. express σ*² by the score (theorem 1). For a perfect network, where
/// mse(t) = (1−ᾱₜ)/ᾱₜ · (1 − (1−ᾱₜ) Γₜ), both forms are equal:
///
/// ```text
/// σ*² = β̃ + (√((1−ᾱₜ)/α) − √(1−ᾱ_prev−β̃))² (1 − (1−ᾱₜ) Γₜ),   Γₜ = E ‖∇ log q(xₜ)‖² / d
/// ```
///
/// For images in [−1, 1] they give the bounds β̃ ≤ σ*² ≤ β̃ + c² (theorem 2), which correspond to 0 ≤ mse(t) ≤ 1. A
/// network that is worse than predicting uniform grey violates the upper bound.
///
/// [`Bound::mse`](super::Bound::mse) returns `mse`. Pass the result to
/// [`ReverseVariance::PerStep`](crate::ReverseVariance::PerStep).
///
/// # Errors
///
/// If `mse` does not have one value for each timestep, or a value is negative or not finite.
pub fn optimal_variances(timesteps: &Timesteps, mse: &[f64]) -> Result<Vec<f64>> {
    if mse.len() != timesteps.len() {
        return Err(Error::TableLength { table: "mse", found: mse.len(), expected: timesteps.len() });
    }
    std::iter::zip(timesteps.transitions(), mse)
        .map(|(step, &mse)| {
            let posterior = PosteriorCoefs::between(step.from.alpha_cumprod(), step.to);
            check_mse(step.index, mse)?;
            Ok(posterior.variance + posterior.x_start_coef.powi(2) * floored(mse))
        })
        .collect()
}

/// Raises a mean squared error to the smallest value used for a variance.
pub(crate) fn floored(mse: f64) -> f64 {
    mse.max(SMALLEST)
}

/// Checks that a mean squared error is finite and not negative. NaN is rejected too.
pub(crate) fn check_mse(index: usize, found: f64) -> Result<()> {
    if found >= 0.0 && found.is_finite() {
        return Ok(());
    }
    Err(Error::out_of_range(format!("mse[{index}]"), found, "0 or more"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NoiseSchedule, NoiseScheduleConfig};

    #[test]
    fn a_perfect_network_has_the_posterior_variance_and_never_none() {
        let schedule = NoiseSchedule::new(&NoiseScheduleConfig::mnist20()).unwrap();
        let timesteps = Timesteps::all(&schedule);
        let found = optimal_variances(&timesteps, &[0.0; 20]).unwrap();
        let posterior = schedule.posterior_variance();
        for (found, t) in std::iter::zip(&found, timesteps.indices()) {
            assert!((found - posterior[t]).abs() <= 2e-20 && *found > 0.0, "{t}: {found}");
        }
    }

    #[test]
    fn numbers_that_are_no_errors_are_refused() {
        let schedule = NoiseSchedule::new(&NoiseScheduleConfig::mnist20()).unwrap();
        let timesteps = Timesteps::explicit(&schedule, vec![19, 5]).unwrap();
        let few = optimal_variances(&timesteps, &[0.1]);
        assert!(matches!(few, Err(Error::TableLength { found: 1, expected: 2, .. })));
        for wrong in [-0.1, f64::NAN, f64::INFINITY] {
            let found = optimal_variances(&timesteps, &[0.1, wrong]);
            let expected = format!("mse[1] is {wrong}, expected 0 or more");
            assert_eq!(found.unwrap_err().to_string(), expected);
        }
    }
}
