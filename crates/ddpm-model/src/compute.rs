//! The number type in which a network computes.

use candle_core::DType;

use crate::{Denoiser, Result, denoiser::CpuNetwork, network::TensorNetwork};

/// The number type of weights and activations while a network is evaluated. Everything else is f32 in any case: x_t and the
/// other state of a sampler, the output of the network, and guidance. The coefficients of a sampler come from f64 tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum ComputeType {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats with 11 significant bits; a magnitude above 65504 becomes infinite.
    F16,
    /// 16-bit floats with 8 significant bits and the range of f32.
    Bf16,
}

impl ComputeType {
    /// The type of the tensors.
    #[must_use]
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }
}

impl Denoiser {
    /// The denoiser with a network, and a guide, that compute in another number type. [`Denoiser::weights`] stay as they are.
    ///
    /// Half precision is for GPUs. On a CPU, where the kernels compute in f32, it goes through tensors and is much slower;
    /// it serves to see what half precision does to the images.
    ///
    /// # Errors
    ///
    /// If the tensor library fails.
    pub fn computing_in(mut self, compute: ComputeType) -> Result<Self> {
        let dtype = compute.dtype();
        if self.network.dtype() != dtype {
            let converted =
                self.weights.iter().map(|(name, weight)| Ok((name.clone(), weight.to_dtype(dtype)?)));
            let converted = converted.collect::<Result<_>>()?;
            self.network = TensorNetwork::new(&self.config, &self.schedule, &converted, dtype, &self.device)?;
            self.cpu = CpuNetwork::new(&self.config, &self.schedule, &self.weights, dtype)?;
        }
        self.guide = match self.guide {
            Some(guide) => Some(Box::new(guide.computing_in(compute)?)),
            None => None,
        };
        Ok(self)
    }
}
