//! The network, described once: a list of operations on numbered slots.
//!
//! [`network`](crate::network) carries it out with tensors, on every device; [`cpu`](crate::cpu) with
//! kernels of our own, forward and backward. Both run the same list over the same weights.

use crate::{DenoiserConfig, Init, Network, Parameter};

/// The number of an intermediate result, [B, width]. The first ones are inputs, the last is the output.
pub(crate) type Slot = usize;

/// A part of an input slot. The parts of a slot lie side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feature {
    /// xₜ.
    Image,
    /// The sinusoids of t.
    Time,
    /// The class, one-hot, with the null class last.
    Class,
}

/// An operation. Weights are numbers of parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    /// `out = x Wᵀ + b (+ add)`, with the bias in the parameter after `weight`.
    Linear { x: Slot, weight: usize, add: Option<Slot>, out: Slot },
    /// `out = x · sigmoid(x)`.
    Silu { x: Slot, out: Slot },
    /// `out = add + table[class]`.
    Class { table: usize, add: Slot, out: Slot },
}

/// A network as data.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// What each input slot holds.
    pub(crate) inputs: Vec<Vec<Feature>>,
    /// The width of each slot.
    pub(crate) widths: Vec<usize>,
    /// The operations, in order; each writes a slot of its own.
    pub(crate) ops: Vec<Op>,
    /// The weights.
    pub(crate) parameters: Vec<Parameter>,
    /// The number of sinusoids of t.
    pub(crate) embedding: usize,
}

impl Program {
    pub(crate) fn new(config: &DenoiserConfig) -> Self {
        let (pixels, classes) = (config.pixels(), config.num_classes + 1);
        match config.network {
            Network::Mlp { width, hidden, blocks, embedding } => {
                let mut p = Self::with_inputs(
                    embedding,
                    &[(&[Feature::Image], pixels), (&[Feature::Time], embedding)],
                );
                let (image, time) = (0, 1);
                let e = p.linear("time.0", time, embedding, 1.0, None);
                let e = p.silu(e);
                let e = p.linear("time.1", e, embedding, 1.0, None);
                let e = p.class("class", e, classes);
                let condition = p.silu(e);
                let mut h = p.linear("input", image, width, 1.0, None);
                for block in 0..blocks {
                    let inner = p.linear(&format!("blocks.{block}.condition"), condition, hidden, 1.0, None);
                    let inner = p.linear(&format!("blocks.{block}.in"), h, hidden, 1.0, Some(inner));
                    let inner = p.silu(inner);
                    // A block starts as the identity, so depth does not change the scale of what enters.
                    h = p.linear(&format!("blocks.{block}.out"), inner, width, 0.0, Some(h));
                }
                let h = p.silu(h);
                p.linear("output", h, pixels, 1.0, None);
                p
            }
            Network::Plain { width, layers, embedding } => {
                let features: &[Feature] = &[Feature::Image, Feature::Time, Feature::Class];
                let mut p = Self::with_inputs(embedding, &[(features, pixels + embedding + classes)]);
                let mut h = 0;
                for layer in 0..layers {
                    h = p.linear(&format!("layers.{layer}"), h, width, 1.0, None);
                    h = p.silu(h);
                }
                p.linear("output", h, pixels, 1.0, None);
                p
            }
        }
    }

    fn with_inputs(embedding: usize, inputs: &[(&[Feature], usize)]) -> Self {
        Self {
            inputs: inputs.iter().map(|(features, _)| features.to_vec()).collect(),
            widths: inputs.iter().map(|(_, width)| *width).collect(),
            ops: Vec::new(),
            parameters: Vec::new(),
            embedding,
        }
    }

    fn slot(&mut self, width: usize) -> Slot {
        self.widths.push(width);
        self.widths.len() - 1
    }

    /// A weight [width, inputs] that keeps the variance of its input times `gain`², and a bias of zero.
    fn linear(&mut self, name: &str, x: Slot, width: usize, gain: f64, add: Option<Slot>) -> Slot {
        let (weight, inputs) = (self.parameters.len(), self.widths[x]);
        let init = if gain == 0.0 { Init::Zeros } else { Init::Normal(gain / (inputs as f64).sqrt()) };
        let mut parameter = |part, shape, init| {
            self.parameters.push(Parameter { name: format!("{name}.{part}"), shape, init });
        };
        parameter("weight", vec![width, inputs], init);
        parameter("bias", vec![width], Init::Zeros);
        let out = self.slot(width);
        self.ops.push(Op::Linear { x, weight, add, out });
        out
    }

    fn silu(&mut self, x: Slot) -> Slot {
        let out = self.slot(self.widths[x]);
        self.ops.push(Op::Silu { x, out });
        out
    }

    fn class(&mut self, name: &str, add: Slot, classes: usize) -> Slot {
        let (table, width) = (self.parameters.len(), self.widths[add]);
        let (name, shape) = (format!("{name}.weight"), vec![classes, width]);
        self.parameters.push(Parameter { name, shape, init: Init::Normal(1.0) });
        let out = self.slot(width);
        self.ops.push(Op::Class { table, add, out });
        out
    }
}
