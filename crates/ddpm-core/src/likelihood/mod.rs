//! The likelihood of images under a model: the variational bound, its terms, and quantities derived from it.
//!
//! The model is the reverse chain of [`Sampler::Ddpm`](crate::Sampler::Ddpm), p(x_prev given xₜ) = N(μ̃(xₜ, x̂₀), σ²),
//! over any list of timesteps. μ̃ is the mean of the posterior q for the network's x̂₀, and σ² is the variance of a
//! [`ReverseVariance`](crate::ReverseVariance). The bound on the cost of an image is (Ho et al. 2020, eq. 5)
//!
//! ```text
//! −log p(x₀) ≤   KL(q(x_first given x₀) ‖ N(0, I))                           the prior term
//!              + Σ E KL(q(x_prev given xₜ, x₀) ‖ p(x_prev given xₜ))         a term for each step but the last
//!              + E [−log p(x₀ given x_last)]                                 the last step, the decoder
//! ```
//!
//! where the expectation is over xₜ ~ q(xₜ given x₀). All terms are in **bits per dimension**: the value in nats
//! divided by ln 2 and by the number of pixel values in an image. An uncompressed 8-bit file has 8.
//!
//! | | |
//! | --- | --- |
//! | [`BoundEstimator`] | the bound over a set of images, with standard errors |
//! | [`optimal_variances`] | the σ² of each step that minimizes the bound (Bao et al. 2022) |
//! | [`Bound::rate_distortion`] | the error of a receiver's estimate after a number of bits (Ho et al. 2020, figure 5) |
//! | [`progressive_decoding`] | the plan of the receiver's estimates (Ho et al. 2020, section 4.3) |
//! | [`TimestepCosts`](crate::TimestepCosts) | the best n timesteps (Watson et al. 2021) |
//!
//! Images are tensors [B, …] of 8-bit levels, x₀ = 2g/255 − 1 with g = 0 … 255. The network and the noise source are those
//! of a run. The bound asks for noise once for each step and batch, with the noise index that a sampler uses.
//! [`prior_bits`], [`step_bits`] and [`decoder_bits`] are the three kinds of terms without tensors.
//!
//! # Example
//!
//! The bound of a network that assumes that each pixel is either black or white:
//!
//! ```
//! # #[cfg(feature = "candle")] {
//! use candle_core::{Device, Tensor};
//! use ddpm_core::likelihood::{BoundEstimator, optimal_variances};
//! use ddpm_core::{CounterRng, ReverseVariance, NoiseSchedule, PredictionType, Purpose, NoiseScheduleConfig, Timesteps};
//!
//! let config = NoiseScheduleConfig { prediction_type: PredictionType::Sample, ..NoiseScheduleConfig::mnist20() };
//! let schedule = NoiseSchedule::new(&config)?;
//! let timesteps = Timesteps::all(&schedule);
//! let images = Tensor::new(&[[-1.0_f32, 1.0, -1.0, -1.0], [1.0, 1.0, -1.0, 1.0]], &Device::Cpu)?;
//! let bound = |variance: &ReverseVariance| {
//!     let mut estimator = BoundEstimator::new(&schedule, &timesteps, variance)?;
//!     estimator.add(
//!         &images,
//!         |x_t, timestep| (x_t * (timestep.alpha_cumprod().sqrt() / (1.0 - timestep.alpha_cumprod())))?.tanh(),
//!         |x, noise_index| CounterRng::new(1).normal_like(Purpose::EVALUATION, &[0, 1], noise_index, x),
//!     )?;
//!     estimator.finish()
//! };
//! let fixed = bound(&ReverseVariance::FixedSmall)?;
//! let best = bound(&ReverseVariance::PerStep(optimal_variances(&timesteps, &fixed.mse())?))?;
//! assert!(best.total_bits_per_dim.mean < 1.1); // black or white with equal probability is one bit
//! assert!(best.total_bits_per_dim.mean < fixed.total_bits_per_dim.mean);
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(feature = "candle")]
mod bound;
mod discretized;
mod estimate;
mod optimal;
mod progressive;
mod report;

#[cfg(feature = "candle")]
use candle_core::{DType, Device, Tensor};

#[cfg(feature = "candle")]
pub use bound::BoundEstimator;
pub use discretized::decoder_bits;
pub use estimate::MeanAndError;
pub use optimal::optimal_variances;
pub use progressive::progressive_decoding;
pub use report::{Bound, BoundTerm, RateDistortion};

use crate::{Error, PosteriorCoefs, Result, Timesteps};
#[cfg(feature = "candle")]
use crate::{
    NoiseSchedule, Timestep,
    decode::{Prediction, predict},
    error::BoxError,
    timesteps::Transition,
};
#[cfg(feature = "candle")]
pub(crate) use discretized::Levels;
#[cfg(feature = "candle")]
pub(crate) use estimate::RunningMean;
pub(crate) use optimal::check_mse;
#[cfg(feature = "candle")]
pub(crate) use optimal::floored;

/// The prior term KL(q(xₜ given x₀) ‖ N(0, I)) at the noise level ᾱ, in bits per dimension. `mean_square` is the mean
/// of x₀² over the dimensions:
///
/// ```text
/// ½ [ᾱ (x₀² − 1) − ln(1 − ᾱ)] / ln 2
/// ```
#[must_use]
pub fn prior_bits(alpha_cumprod: f64, mean_square: f64) -> f64 {
    0.5 * (alpha_cumprod * (mean_square - 1.0) - (-alpha_cumprod).ln_1p()) / std::f64::consts::LN_2
}

/// The term of a step, KL(q(x_prev given xₜ, x₀) ‖ p(x_prev given xₜ)) for p of this variance, in bits per dimension.
/// `mse` is the mean of (x₀ − x̂₀)² over the dimensions. The means differ by c (x₀ − x̂₀). With ρ = σ²/β̃ the divergence is
/// (Ho et al. 2020, eq. 8, including the constant)
///
/// ```text
/// ½ [ln ρ + 1/ρ − 1 + c²/β̃ · (x₀ − x̂₀)²/ρ] / ln 2,   c²/β̃ = ᾱ_prev/(1−ᾱ_prev) − ᾱₜ/(1−ᾱₜ)
/// ```
#[must_use]
pub fn step_bits(posterior: &PosteriorCoefs, variance: f64, mse: f64) -> f64 {
    let weight = posterior.x_start_coef.powi(2) / posterior.variance;
    let ratio = variance / posterior.variance;
    let constant = ratio.ln() + 1.0 / ratio - 1.0;
    0.5 * (constant + weight * mse / ratio) / std::f64::consts::LN_2
}

/// Evaluates the network at xₜ ~ q(xₜ given x₀), at the noise level where a step starts.
#[cfg(feature = "candle")]
pub(crate) fn predict_noised<E: Into<BoxError>, F: Into<BoxError>>(
    schedule: &NoiseSchedule,
    x_start: &Tensor,
    step: Transition,
    network: &mut impl FnMut(&Tensor, Timestep) -> std::result::Result<Tensor, E>,
    noise: &mut impl FnMut(&Tensor, usize) -> std::result::Result<Tensor, F>,
) -> Result<Prediction> {
    let eps = noise(x_start, step.noise_index).map_err(|source| Error::Noise(source.into()))?;
    let x_t = step.from.q_sample(x_start, &eps)?;
    predict(schedule, &x_t, step.from, network)
}

/// Copies the values of a tensor to the host, in row-major order.
#[cfg(feature = "candle")]
pub(crate) fn host(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

/// Checks that a list ends at x₀, because the bound is on the likelihood of x₀.
fn check_ends_at_x_start(timesteps: &Timesteps) -> Result<()> {
    match timesteps.last_alpha_cumprod() {
        1.0 => Ok(()),
        alpha_cumprod => Err(Error::EndsBeforeXStart { alpha_cumprod }),
    }
}
