//! The description of a network: all that is needed to build it, and the list of its weights.

use ddpm_core::PredictionType;
use ddpm_kernels::{FlopCount, Parameter};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A denoiser's architecture, as it stands in `denoiser/config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenoiserConfig {
    /// Rows of an image in pixels, 1 to 64.
    pub rows: usize,
    /// Columns of an image in pixels, 1 to 64.
    pub cols: usize,
    /// The number of classes, 0 for an unconditional model.
    pub num_classes: usize,
    /// What the network puts out, before it is converted to the schedule's `prediction_type`.
    pub parameterization: PredictionType,
    /// The layers.
    pub network: Network,
}

/// The layers between input and output. W is `width`, H is `hidden`, E is `embedding`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Network {
    /// A residual network: each of `blocks` adds Linear(H→W) ∘ SiLU ∘ Linear(W→H) to its input, with the
    /// embedding of time and class added before the SiLU.
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
    /// A residual network between two small ones that all patches of the image share: the first reads a patch
    /// of xₜ and puts out a code, Linear(L→C) ∘ SiLU ∘ Linear(P²→L); the codes of all patches, side by side, enter
    /// the residual network, as the image does in `mlp`; it puts out a code for each patch; and the second small one
    /// reads it beside the patch itself, Linear(L→P²) ∘ SiLU ∘ Linear(L→L) ∘ SiLU ∘ Linear(C+P²→L). Both have
    /// the embedding added before their first SiLU. L is `local`, C is `code`, P is `patch`.
    ///
    /// So what is to be drawn where passes through the narrow middle, and what a pixel's own noise has to do with it
    /// does not.
    PatchMlp {
        /// P, the side of a square patch in pixels. Patches that go past the edge of an image are filled up
        /// with zeros.
        patch: usize,
        /// L, the width inside the shared networks.
        local: usize,
        /// C, the width of a patch's code.
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
    /// The original recipe literally: linear layers and SiLU in a chain, over the image, the sinusoid of
    /// the time and the one-hot class side by side.
    Plain {
        /// The width of each hidden layer.
        width: usize,
        /// The number of hidden layers.
        layers: usize,
        /// The number of sinusoids of the time; even.
        embedding: usize,
    },
}

impl DenoiserConfig {
    /// A residual network, with raw output x₀.
    #[must_use]
    pub fn mlp(rows: usize, cols: usize, num_classes: usize) -> Self {
        let network = Network::Mlp { width: 512, hidden: 1024, blocks: 2, embedding: 128 };
        Self { rows, cols, num_classes, parameterization: PredictionType::Sample, network }
    }

    /// The network of the built-in model, with raw output x₀.
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

    /// The original recipe, with raw output ε.
    #[must_use]
    pub fn plain(rows: usize, cols: usize, num_classes: usize) -> Self {
        let network = Network::Plain { width: 1024, layers: 3, embedding: 64 };
        Self { rows, cols, num_classes, parameterization: PredictionType::Epsilon, network }
    }

    /// The number of pixels of an image, the width of the network's input and output.
    #[must_use]
    pub fn pixels(&self) -> usize {
        self.rows * self.cols
    }

    /// The class that stands for "no class", which is dropped in for guidance; it follows the last one.
    #[must_use]
    pub fn null_class(&self) -> usize {
        self.num_classes
    }

    /// Checks that each number is in its range.
    ///
    /// # Errors
    ///
    /// If one is not; the error names it.
    pub fn validate(&self) -> Result<()> {
        let check = |option, found: usize, range: std::ops::RangeInclusive<usize>, expected| {
            if range.contains(&found) { Ok(()) } else { Err(Error::Config { option, found, expected }) }
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
        check("embedding", embedding, 2..=4096, "an even number from 2 to 4096")?;
        check("embedding", embedding % 2, 0..=0, "an even number from 2 to 4096")
    }

    /// Every weight, in the order of the layers.
    #[must_use]
    pub fn parameters(&self) -> Vec<Parameter> {
        self.program().parameters().to_vec()
    }

    /// The number of trainable numbers.
    #[must_use]
    pub fn parameter_count(&self) -> usize {
        self.parameters().iter().map(Parameter::len).sum()
    }

    /// The cost of the network.
    #[must_use]
    pub fn flop_count(&self) -> FlopCount {
        self.program().flop_count()
    }
}
