//! Denoising diffusion for any network: noise schedules in f64, the forward process and its posterior, samplers as tables
//! of factors, likelihood terms, and counter-based random numbers.
//!
//! The crate holds no network, reads no file and prints nothing. A network enters as a closure
//! `FnMut(&Tensor, Timestep) -> Result<Tensor, E>` that predicts ε, x₀ or v, with any error type E.
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
//! # #[cfg(feature = "candle")] {
//! use candle_core::{Device, Tensor};
//! use ddpm_core::{CounterRng, NoiseSchedule, NoiseScheduleConfig, Sampler, Steps, Timestep};
//!
//! let schedule = NoiseSchedule::new(&NoiseScheduleConfig::ho2020())?;
//! let plan = Sampler::ddim(0.0).plan(&schedule, Steps::Spaced(20))?;
//! let images = CounterRng::new(1).images(0..4);
//! let network = |x_t: &Tensor, timestep: Timestep| x_t * (1.0 - timestep.alpha_cumprod()).sqrt();
//! let x_start = plan.sample(images.start(&[784], &Device::Cpu)?, network, images.noise())?;
//! assert_eq!(x_start.dims(), &[4, 784]);
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! - `candle`, on by default: everything that holds tensors. Without it the crate is the mathematics in f64: schedules,
//!   timesteps, [plans](Plan), likelihood terms, the search of timesteps, and diffusers' files.
//! - `clap`: `ValueEnum` for the enums that are options of a command line.

mod betas;
#[cfg(feature = "candle")]
mod brownian;
mod config;
#[cfg(feature = "candle")]
mod decode;
#[cfg(feature = "candle")]
mod edm;
mod error;
#[cfg(feature = "candle")]
mod forward;
#[cfg(feature = "candle")]
mod guidance;
#[cfg(feature = "candle")]
mod inpainting;
pub mod likelihood;
mod loss_weights;
mod multistep;
#[cfg(feature = "candle")]
mod noise;
mod plan;
mod prediction;
mod random;
#[cfg(feature = "candle")]
mod run;
pub mod sampler;
mod schedule;
mod scheduler;
#[cfg(feature = "candle")]
mod slerp;
mod steps;
mod timestep;
mod timestep_sampler;
mod timestep_search;
mod timesteps;
#[cfg(feature = "candle")]
mod weighted_sum;

#[cfg(feature = "candle")]
pub use brownian::BrownianPath;
#[cfg(feature = "candle")]
pub use candle_core;

pub use config::{BetaSchedule, Compat, NoiseScheduleConfig, ReverseVariance};
#[cfg(feature = "candle")]
pub use edm::edm_preconditioned;
pub use error::{BoxError, Error, Result};
#[cfg(feature = "candle")]
pub use forward::Posterior;
#[cfg(feature = "candle")]
pub use guidance::{Guidance, Pass};
#[cfg(feature = "candle")]
pub use inpainting::Inpainting;
pub use loss_weights::LossWeighting;
pub use multistep::{Multistep, MultistepStep};
#[cfg(feature = "candle")]
pub use noise::{ImageNoise, no_noise};
pub use plan::{Clip, Operation, Plan, Register, Term};
pub use prediction::PredictionType;
pub use random::{CounterRng, Purpose, ShuffledBatches};
#[cfg(feature = "candle")]
pub use run::{Ask, Run, StepInfo};
pub use sampler::Sampler;
pub use schedule::{NoiseSchedule, PosteriorCoefs, ScheduleWarning};
pub use scheduler::{DiffusersConfig, FinalSigma, FlowMatchEuler, Scheduler, TimeShift};
#[cfg(feature = "candle")]
pub use slerp::slerp;
pub use steps::Steps;
pub use timestep::Timestep;
pub use timestep_sampler::{TimestepSampler, TimestepSampling};
#[cfg(feature = "candle")]
pub use timestep_search::TimestepCostEstimator;
pub use timestep_search::TimestepCosts;
pub use timesteps::{TimestepSpacing, Timesteps, karras_sigmas};

/// Runs the examples of the README as doc tests.
#[cfg(all(doctest, feature = "candle"))]
#[doc = include_str!("../README.md")]
struct Readme;
