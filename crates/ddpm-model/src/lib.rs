//! Denoising networks of linear layers and SiLU: their description, initialisation, devices and files.
//!
//! A [`Denoiser`] is a network with the schedule for which it was trained. The network's raw output is x₀
//! by default and its *named* prediction (`prediction_type`, ε by default) follows by conversion: a narrow
//! network cannot pass white noise through, but digits it can output. The edges of their strokes are left to
//! small networks that all patches share ([`Network::PatchMlp`]; see ARCHITECTURE.md).
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
mod config;
mod denoiser;
mod device;
mod embedding;
mod encode;
mod error;
mod folder;
mod network;
mod sample;
mod sample_options;

pub use config::{DenoiserConfig, Network};
pub use ddpm_kernels::{FlopCount, Init, Parameter};
pub use denoiser::{Denoiser, initial_weights};
pub use device::DeviceChoice;
pub use encode::{WeightType, encode_json, safetensors_header};
pub use error::{Error, Result};
pub use folder::{ModelFiles, check_writable, decode_weights, read_model, read_model_from, write_model};
pub use sample::{DEFAULT_GUIDANCE_SCALE, SampleConfig, TimestepSelection};
pub use sample_options::{SampleOptions, SamplerName};
