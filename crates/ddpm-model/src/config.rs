//! The configuration of a network, from which its layers and its weights follow.

use ddpm_core::PredictionType;
use ddpm_kernels::{FlopCount, Parameter};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A denoiser's architecture: the content of `denoiser/config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenoiserConfig {
    /// Rows of an image in pixels, 1 to 64.
    pub rows: usize,
    /// Columns of an image in pixels, 1 to 64.
    pub cols: usize,
    /// The number of classes, 0 to 62; 0 for an unconditional model.
    pub num_classes: usize,
    /// The quantity that the network emits (x₀, ε or v). [`Denoiser::predict`](crate::Denoiser::predict) converts it to the
    /// schedule's `prediction_type`; samplers take it as it is. Earlier versions named this key `output_type`.
    #[serde(alias = "output_type")]
    pub parameterization: PredictionType,
    /// The layers.
    pub network: Network,
}

/// The layers between input and output. W is `width`, H is `hidden`, E is `embedding`. W and H are 1 to 16384,
/// `blocks` and `layers` are 1 to 64, and E is an even number from 2 to 4096.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Network {
    /// A residual network. Each of `blocks` blocks adds Linear(H→W) ∘ SiLU ∘ Linear(W→H) to its input. The
    /// embedding of timestep and class is added before the SiLU.
    Mlp {
        /// W, the width of the residual stream.
        width: usize,
        /// H, the width inside a block.
        hidden: usize,
        /// The number of blocks.
        blocks: usize,
        /// E, the width of the embedding of time and class; even.
        embedding: usize,
    },
    /// A residual network between a patch encoder and a patch decoder, each with the same weights for all patches.
    /// L is `local`, C is `code`, P is `patch`.
    ///
    /// 1. The encoder maps a patch of xₜ to a code: Linear(L→C) ∘ SiLU ∘ Linear(P²→L).
    /// 2. The residual network of [`Network::Mlp`] reads the concatenated codes and emits a new code for each patch.
    /// 3. The decoder reads the new code and the patch of xₜ:
    ///    Linear(L→P²) ∘ SiLU ∘ Linear(L→L) ∘ SiLU ∘ Linear(C+P²→L).
    ///
    /// Encoder and decoder add the embedding of timestep and class before their first SiLU. The global shape passes
    /// through the narrow residual network; the decoder sees each pixel of xₜ directly, with its noise.
    PatchMlp {
        /// P, the side of a square patch in pixels, 1 to 64. Patches that extend past the edge of an image are
        /// padded with zeros.
        patch: usize,
        /// L, the hidden width of encoder and decoder, 1 to 16384.
        local: usize,
        /// C, the width of a patch's code, 1 to 16384.
        code: usize,
        /// W, the width of the residual stream.
        width: usize,
        /// H, the width inside a block.
        hidden: usize,
        /// The number of blocks.
        blocks: usize,
        /// E, the width of the embedding of time and class; even.
        embedding: usize,
    },
    /// The network of the original recipe: a chain of linear layers with SiLU. Its input is the image, the
    /// sinusoidal time embedding and the one-hot class, concatenated.
    Plain {
        /// The width of each hidden layer.
        width: usize,
        /// The number of hidden layers.
        layers: usize,
        /// E, the width of the sinusoidal time embedding; even.
        embedding: usize,
    },
}

impl DenoiserConfig {
    /// A residual network that emits x₀.
    #[must_use]
    pub fn mlp(rows: usize, cols: usize, num_classes: usize) -> Self {
        let network = Network::Mlp { width: 512, hidden: 1024, blocks: 2, embedding: 128 };
        Self { rows, cols, num_classes, parameterization: PredictionType::Sample, network }
    }

    /// The architecture of the built-in model; it emits x₀.
    #[must_use]
    pub fn patch_mlp(rows: usize, cols: usize, num_classes: usize) -> Self {
        let network = Network::PatchMlp {
            patch: 4,
            local: 128,
            code: 32,
            width: 512,
            hidden: 960,
            blocks: 2,
            embedding: 128,
        };
        Self { network, ..Self::mlp(rows, cols, num_classes) }
    }

    /// The architecture of the built-in model's guide: [`DenoiserConfig::patch_mlp`] with few and narrow layers.
    #[must_use]
    pub fn small_patch_mlp(rows: usize, cols: usize, num_classes: usize) -> Self {
        let network = Network::PatchMlp {
            patch: 4,
            local: 48,
            code: 8,
            width: 48,
            hidden: 96,
            blocks: 1,
            embedding: 32,
        };
        Self { network, ..Self::mlp(rows, cols, num_classes) }
    }

    /// The network of the original recipe; it emits ε.
    #[must_use]
    pub fn plain(rows: usize, cols: usize, num_classes: usize) -> Self {
        let network = Network::Plain { width: 1024, layers: 3, embedding: 64 };
        Self { rows, cols, num_classes, parameterization: PredictionType::Epsilon, network }
    }

    /// The number of pixels of an image: the width of the network's input and output.
    #[must_use]
    pub fn pixels(&self) -> usize {
        self.rows * self.cols
    }

    /// The index of the null class, which means "no class" (for classifier-free guidance): `num_classes`.
    #[must_use]
    pub fn null_class(&self) -> usize {
        self.num_classes
    }

    /// Checks that each number is in its range.
    ///
    /// # Errors
    ///
    /// If a number is outside its range; the error names it.
    pub fn validate(&self) -> Result<()> {
        let check = |option, found: usize, range: std::ops::RangeInclusive<usize>, expected| {
            if range.contains(&found) {
                return Ok(());
            }
            Err(Error::out_of_range(format!("denoiser option `{option}`"), found, expected))
        };
        check("rows", self.rows, 1..=64, "1 to 64")?;
        check("cols", self.cols, 1..=64, "1 to 64")?;
        check("num_classes", self.num_classes, 0..=62, "0 to 62")?;
        let embedding = match self.network {
            Network::Mlp { width, hidden, blocks, embedding } => {
                check("width", width, 1..=16_384, "1 to 16384")?;
                check("hidden", hidden, 1..=16_384, "1 to 16384")?;
                check("blocks", blocks, 1..=64, "1 to 64")?;
                embedding
            }
            Network::PatchMlp { patch, local, code, width, hidden, blocks, embedding } => {
                check("patch", patch, 1..=64, "1 to 64")?;
                check("local", local, 1..=16_384, "1 to 16384")?;
                check("code", code, 1..=16_384, "1 to 16384")?;
                check("width", width, 1..=16_384, "1 to 16384")?;
                check("hidden", hidden, 1..=16_384, "1 to 16384")?;
                check("blocks", blocks, 1..=64, "1 to 64")?;
                embedding
            }
            Network::Plain { width, layers, embedding } => {
                check("width", width, 1..=16_384, "1 to 16384")?;
                check("layers", layers, 1..=64, "1 to 64")?;
                embedding
            }
        };
        const EVEN: &str = "an even number from 2 to 4096";
        check("embedding", embedding, 2..=4096, EVEN)?;
        if embedding.is_multiple_of(2) {
            return Ok(());
        }
        Err(Error::out_of_range("denoiser option `embedding`", embedding, EVEN))
    }

    /// Every parameter (weights and biases), in the order of the layers.
    #[must_use]
    pub fn parameters(&self) -> Vec<Parameter> {
        self.program().parameters().to_vec()
    }

    /// The number of trainable scalars.
    #[must_use]
    pub fn parameter_count(&self) -> usize {
        self.parameters().iter().map(Parameter::len).sum()
    }

    /// The floating-point operations of the network for one image.
    #[must_use]
    pub fn flop_count(&self) -> FlopCount {
        self.program().flop_count()
    }
}
