//! What a bound says.

use serde::Serialize;

use super::MeanAndError;

/// The variational bound over a set of images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bound {
    /// The number of images.
    pub images: usize,
    /// The whole bound. Its mean is the sum of the terms'; its error is not, because an image that is expensive
    /// at one step is so at others.
    pub total_bits_per_dim: MeanAndError,
    /// KL(q(x_first given x₀) ‖ N(0, I)): what is left of the images where sampling starts from noise.
    pub prior_bits_per_dim: MeanAndError,
    /// The term of each step, noisiest first; the last one is the decoder's.
    pub steps: Vec<BoundTerm>,
}

/// One step's part in the bound.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BoundTerm {
    /// The timestep from which the step starts, 0 to T − 1.
    pub t: f64,
    /// ᾱ there.
    pub alpha_cumprod: f64,
    /// The step's term.
    pub bits_per_dim: MeanAndError,
    /// The mean of (x₀ − x̂₀)² over images and dimensions, of x₀ in [−1, 1].
    pub mse: f64,
}

/// What a receiver knows at one step of progressive decoding.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RateDistortion {
    /// The timestep.
    pub t: f64,
    /// The bits per dimension that were sent until xₜ is known.
    pub rate_bits_per_dim: f64,
    /// The root of the mean squared error of x̂₀(xₜ), in grey levels of 0 to 255.
    pub distortion_rmse: f64,
}

impl Bound {
    /// The mean squared error at each timestep, in the order of the list, for
    /// [`optimal_variances`](super::optimal_variances).
    #[must_use]
    pub fn mse(&self) -> Vec<f64> {
        self.steps.iter().map(|step| step.mse).collect()
    }

    /// The rate-distortion curve (Ho et al. 2020, section 4.3 and figure 5): the bound as a code that sends the
    /// noisiest image first, so that the receiver has an estimate x̂₀ of the whole image at each step.
    ///
    /// ```text
    /// rate(t) = prior + Σ terms of the steps before t        distortion(t) = 255/2 · √mse(t)
    /// ```
    ///
    /// After the last point, the decoder's term buys the image without loss, at the rate of the whole bound.
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
