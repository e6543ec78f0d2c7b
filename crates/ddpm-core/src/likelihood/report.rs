//! The results of a bound.

use serde::Serialize;

use super::MeanAndError;

/// The variational bound over a set of images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bound {
    /// The number of images.
    pub images: usize,
    /// The total bound. Its mean is the sum of the means of the terms. Its standard error is not the combined error of
    /// the terms, because the terms of an image are correlated.
    pub total_bits_per_dim: MeanAndError,
    /// The prior term KL(q(x_first given x₀) ‖ N(0, I)): the information about the image that is left at the first
    /// timestep.
    pub prior_bits_per_dim: MeanAndError,
    /// The term of each step, noisiest first. The last entry is the decoder term.
    pub steps: Vec<BoundTerm>,
}

/// The term of one step in the bound.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BoundTerm {
    /// The timestep at which the step starts, 0 to T − 1.
    pub t: f64,
    /// ᾱ at this timestep.
    pub alpha_cumprod: f64,
    /// The term of the step, in bits per dimension.
    pub bits_per_dim: MeanAndError,
    /// The mean of (x₀ − x̂₀)² over images and dimensions, for x₀ in [−1, 1].
    pub mse: f64,
}

/// A point of the rate-distortion curve: the state of a receiver at one step of progressive decoding.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RateDistortion {
    /// The timestep, 0 to T − 1.
    pub t: f64,
    /// The bits per dimension transmitted before xₜ is known.
    pub rate_bits_per_dim: f64,
    /// The root mean squared error of x̂₀(xₜ), in grey levels of 0 to 255.
    pub distortion_rmse: f64,
}

impl Bound {
    /// The mean squared error at each timestep, in the order of the list, for
    /// [`optimal_variances`](super::optimal_variances).
    #[must_use]
    pub fn mse(&self) -> Vec<f64> {
        self.steps.iter().map(|step| step.mse).collect()
    }

    /// The rate-distortion curve (Ho et al. 2020, section 4.3 and figure 5). The bound is the length of a code that
    /// transmits the noisiest image first, so the receiver has an estimate x̂₀ of the whole image at each step.
    ///
    /// ```text
    /// rate(t) = prior + Σ terms of the steps before t        distortion(t) = 255/2 · √mse(t)
    /// ```
    ///
    /// After the last point the decoder term is transmitted. Then the image is lossless, and the rate is the total bound.
    #[must_use]
    pub fn rate_distortion(&self) -> Vec<RateDistortion> {
        let mut rate = self.prior_bits_per_dim.mean;
        let point = |step: &BoundTerm| {
            let rate_bits_per_dim = rate;
            rate += step.bits_per_dim.mean;
            RateDistortion { t: step.t, rate_bits_per_dim, distortion_rmse: 127.5 * step.mse.sqrt() }
        };
        self.steps.iter().map(point).collect()
    }
}
