//! Denoising diffusion for any candle network: noise schedules in f64, the forward process and its
//! posterior, samplers, likelihood terms, and counter-based random numbers.
//!
//! The crate holds no network, reads no file and prints nothing. A network enters as a closure
//! `FnMut(&Tensor, Timestep) -> candle_core::Result<Tensor>` that predicts ε, x₀ or v.
//!
//! # Notation
//!
//! `t` is **0-based**: `betas[t]` is the paper's β₍ₜ₊₁₎, and `t = T − 1` is the noisiest timestep. `x_start`
//! is x₀. The reverse step from `t = 0` leads to x₀ itself, where ᾱ = 1. All formulas in this documentation
//! use the 0-based t, except the middle column of the table below: ᾱₜ is `alphas_cumprod[t]`.
//!
//! | here | in Ho et al. 2020 (arXiv 2006.11239), 1-based | meaning |
//! | --- | --- | --- |
//! | `betas[t]` | β₍ₜ₊₁₎ | variance added by step t |
//! | `alphas_cumprod[t]` | ᾱ₍ₜ₊₁₎ = ∏(1 − βₛ) | signal power left at t |
//! | `snr(t)` | – | signal-to-noise ratio ᾱₜ / (1 − ᾱₜ) |
//! | `posterior_variance[t]` | β̃₍ₜ₊₁₎, eq. 7 | variance of q(xₜ₋₁ given xₜ, x₀) |
//! | `eps` | ε, eq. 4 | the noise in xₜ = √ᾱₜ x₀ + √(1−ᾱₜ) ε |
//! | `v` | – | √ᾱₜ ε − √(1−ᾱₜ) x₀ of Salimans & Ho 2022 (arXiv 2202.00512) |
//!
//! # Example
//!
//! This example samples with a network that is known in closed form. If the data is standard normal, the best
//! prediction of ε at timestep t is √(1−ᾱₜ)·xₜ, and the samples are standard normal too.
//!
//! ```
//! use candle_core::{Device, DType};
//! use ddpm_core::{sampler, CounterRng, ReverseVariance, NoiseSchedule, Purpose, NoiseScheduleConfig, Timesteps};
//!
//! let schedule = NoiseSchedule::new(&NoiseScheduleConfig { clip_sample: false, ..NoiseScheduleConfig::mnist20() })?;
//! let timesteps = Timesteps::all(&schedule);
//! let (rng, images) = (CounterRng::new(1), [0, 1, 2, 3]);
//! let x_t = rng.normal(Purpose::SAMPLE_START, &images, 0, &[784], DType::F32, &Device::Cpu)?;
//! let x_start = sampler::ddpm(
//!     &schedule,
//!     &timesteps,
//!     &ReverseVariance::FixedSmall,
//!     x_t,
//!     |x_t, timestep| x_t * (1.0 - timestep.alpha_cumprod()).sqrt(),
//!     |x_t, noise_index| rng.normal_like(Purpose::SAMPLE_STEP, &images, noise_index, x_t),
//!     |_step| Ok(()),
//! )?;
//! assert_eq!(x_start.dims(), &[4, 784]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod betas;
mod config;
mod error;
mod forward;
pub mod likelihood;
mod loss_weights;
mod prediction;
mod random;
pub mod sampler;
mod schedule;
mod scheduler;
mod timestep;
mod timestep_search;
mod timesteps;
mod weighted_sum;

pub use config::{BetaSchedule, Compat, NoiseScheduleConfig, ReverseVariance};
pub use error::{Error, Result};
pub use forward::Posterior;
pub use loss_weights::LossWeighting;
pub use prediction::PredictionType;
pub use random::{CounterRng, Purpose, ShuffledBatches};
pub use sampler::StepInfo;
pub use schedule::{NoiseSchedule, PosteriorCoefs, ScheduleWarning};
pub use scheduler::{DiffusersConfig, FinalSigma, Sampler, Scheduler};
pub use timestep::Timestep;
pub use timestep_search::{TimestepCostEstimator, TimestepCosts};
pub use timesteps::{TimestepSpacing, Timesteps};

/// Runs the examples of the README as doc tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
