//! The network, described once: a list of operations on numbered slots.
//!
//! [`network`](crate::network) carries it out with tensors, on every device; [`cpu`](crate::cpu) with
//! kernels of our own, forward and backward. Both run the same list over the same weights.

use crate::{DenoiserConfig, Head, Init, Network, Parameter};

/// The number of an intermediate result, [B, width]. The first ones are [`INPUTS`], the last ones are the output.
pub(crate) type Slot = usize;

/// xₜ.
pub(crate) const IMAGE: Slot = 0;
/// The sinusoids of t.
pub(crate) const TIME: Slot = 1;
/// The class, one-hot, with the null class last.
pub(crate) const CLASS: Slot = 2;
/// The number of inputs.
pub(crate) const INPUTS: usize = 3;

/// An operation: a linear map, plus another slot if there is `add`, and then SiLU if there is `silu`. Weights
/// are numbers of parameters. What does not depend on the image adds nothing that does, and no input is added.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) map: Map,
    pub(crate) add: Option<Slot>,
    pub(crate) silu: bool,
    pub(crate) out: Slot,
}

/// The linear part of an operation.
#[derive(Clone, Debug)]
pub(crate) enum Map {
    /// `x Wᵀ + b` with the slots `x` side by side, and the bias in the parameter after `weight`.
    Linear { x: Vec<Slot>, weight: usize },
    /// `table[class]`.
    Class { table: usize },
}

/// A network as data.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// The width of each slot.
    pub(crate) widths: Vec<usize>,
    /// The operations, in order; each writes a slot of its own, the next one.
    pub(crate) ops: Vec<Op>,
    /// The weights.
    pub(crate) parameters: Vec<Parameter>,
    /// The slot of u, if the head is Gaussian; m is in the one before.
    pub(crate) spread: Option<Slot>,
}

impl Program {
    pub(crate) fn new(config: &DenoiserConfig) -> Self {
        let (pixels, classes) = (config.pixels(), config.num_classes + 1);
        match config.network {
            Network::Mlp { width, hidden, blocks, embedding } => {
                let mut p = Self::with_inputs(pixels, embedding, classes);
                let e = p.linear("time.0", &[TIME], embedding, 1.0, None);
                p.silu();
                let e = p.linear("time.1", &[e], embedding, 1.0, None);
                let condition = p.class("class", e);
                p.silu();
                let mut h = p.linear("input", &[IMAGE], width, 1.0, None);
                for block in 0..blocks {
                    let name = |part| format!("blocks.{block}.{part}");
                    let inner = p.linear(&name("condition"), &[condition], hidden, 1.0, None);
                    let inner = p.linear(&name("in"), &[h], hidden, 1.0, Some(inner));
                    p.silu();
                    // A block starts as the identity, so depth does not change the scale of what enters.
                    h = p.linear(&name("out"), &[inner], width, 0.0, Some(h));
                }
                p.silu();
                p.outputs(config.head, &[h], pixels);
                p
            }
            Network::Plain { width, layers, embedding } => {
                let mut p = Self::with_inputs(pixels, embedding, classes);
                let mut h = vec![IMAGE, TIME, CLASS];
                for layer in 0..layers {
                    h = vec![p.linear(&format!("layers.{layer}"), &h, width, 1.0, None)];
                    p.silu();
                }
                p.outputs(config.head, &h, pixels);
                p
            }
        }
    }

    fn with_inputs(pixels: usize, embedding: usize, classes: usize) -> Self {
        Self {
            widths: vec![pixels, embedding, classes],
            ops: Vec::new(),
            parameters: Vec::new(),
            spread: None,
        }
    }

    fn outputs(&mut self, head: Head, x: &[Slot], pixels: usize) {
        self.linear("output", x, pixels, 1.0, None);
        if head == Head::Gaussian {
            // All pixels start as uncertain as each other.
            self.spread = Some(self.linear("spread", x, pixels, 0.0, None));
        }
    }

    /// The slot of the output, or of m.
    pub(crate) fn output(&self) -> Slot {
        self.spread.unwrap_or(self.widths.len()) - 1
    }

    /// The width of several slots side by side.
    pub(crate) fn width(&self, slots: &[Slot]) -> usize {
        slots.iter().map(|&slot| self.widths[slot]).sum()
    }

    fn push(&mut self, map: Map, width: usize, add: Option<Slot>) -> Slot {
        let out = self.widths.len();
        self.widths.push(width);
        self.ops.push(Op { map, add, silu: false, out });
        out
    }

    /// The last operation ends with SiLU.
    fn silu(&mut self) {
        if let Some(op) = self.ops.last_mut() {
            op.silu = true;
        }
    }

    /// A weight [width, inputs] that keeps the variance of its input times `gain`², and a bias of zero.
    fn linear(&mut self, name: &str, x: &[Slot], width: usize, gain: f64, add: Option<Slot>) -> Slot {
        let (weight, inputs) = (self.parameters.len(), self.width(x));
        let init = if gain == 0.0 { Init::Zeros } else { Init::Normal(gain / (inputs as f64).sqrt()) };
        let mut parameter = |part, shape, init| {
            self.parameters.push(Parameter { name: format!("{name}.{part}"), shape, init });
        };
        parameter("weight", vec![width, inputs], init);
        parameter("bias", vec![width], Init::Zeros);
        self.push(Map::Linear { x: x.to_vec(), weight }, width, add)
    }

    fn class(&mut self, name: &str, add: Slot) -> Slot {
        let (table, width) = (self.parameters.len(), self.widths[add]);
        let (name, shape) = (format!("{name}.weight"), vec![self.widths[CLASS], width]);
        self.parameters.push(Parameter { name, shape, init: Init::Normal(1.0) });
        self.push(Map::Class { table }, width, Some(add))
    }
}
