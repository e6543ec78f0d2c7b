//! Denoising networks of linear layers and SiLU: architectures, initial weights, devices, sampling and model folders.
//!
//! A [`Denoiser`] is a network with the schedule for which it was trained. The network emits x₀ by default
//! (`parameterization`), and [`Denoiser::predict`] converts it to the schedule's `prediction_type`, ε by default. The
//! reason is rank: a network narrower than the image cannot reproduce white noise, but it can emit digits. Small
//! networks shared by all patches add the edges of the strokes ([`Network::PatchMlp`]; see docs/design.md).
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use ddpm_core::NoiseScheduleConfig;
//! use ddpm_model::{Denoiser, DenoiserConfig, initial_weights};
//!
//! let config = DenoiserConfig::patch_mlp(28, 28, 10);
//! let weights = initial_weights(&config, 1, &Device::Cpu)?;
//! let denoiser = Denoiser::new(&config, &NoiseScheduleConfig::mnist20(), weights)?;
//! let x_t = Tensor::zeros((2, 784), DType::F32, &Device::Cpu)?;
//! let eps = denoiser.predict(&x_t, 19, &[3, 8], 1.0)?; // class 3 and class 8, no guidance
//! assert_eq!(eps.dims(), &[2, 784]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod architecture;
mod compute;
mod config;
mod denoiser;
mod device;
mod embedding;
mod encode;
mod error;
mod fitted_plan;
mod folder;
mod given_image;
mod guidance;
mod network;
mod plan_fit;
mod requests;
mod sample;
mod sample_options;

pub use compute::ComputeType;
pub use config::{DenoiserConfig, Network};
pub use ddpm_kernels::{FlopCount, Init, Parameter, peak_flops, simd_lanes};
pub use denoiser::{Denoiser, initial_weights};
pub use device::DeviceChoice;
pub use encode::{WeightType, encode_json, encode_tensors, safetensors_header};
pub use error::{Error, Result};
pub use fitted_plan::FittedPlan;
pub use folder::{
    ModelFiles, check_writable, decode_weights, read_model, read_model_from, scheduler_json, write_model,
};
pub use given_image::GivenImage;
pub use guidance::{DenoiserGuidance, GuidanceScales};
pub use plan_fit::{PlanFit, PlanFitConfig};
pub use requests::Request;
pub use sample::{NoisePath, NoiseSource, SampleConfig};
pub use sample_options::{
    DEFAULT_GUIDANCE_SCALE, DEFAULT_GUIDE_SCALE, GuidanceOptions, SampleOptions, SamplerName,
};
