//! The network, described once: a list of operations on numbered slots.
//!
//! [`network`](crate::network) carries it out with tensors, on every device; [`cpu`](crate::cpu) with
//! kernels of our own, forward and backward. Both run the same list over the same weights.

use crate::{DenoiserConfig, FlopCount, Init, Network, Parameter};

/// The number of an intermediate result. The first ones are [`INPUTS`], the last one is the output.
pub(crate) type Slot = usize;

/// The shape of a slot: [B, patches, width]. What is not of patches has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) patches: usize,
    pub(crate) width: usize,
}

impl Shape {
    pub(crate) fn flat(width: usize) -> Self {
        Self { patches: 1, width }
    }

    pub(crate) fn size(self) -> usize {
        self.patches * self.width
    }
}

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
///
/// With `patches` > 1 the map is that of one patch, shared by all, and what it reads and adds has as many patches
/// or is the same for all. With one it reads the whole of each slot, patch after patch.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) map: Map,
    pub(crate) patches: usize,
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
    /// The shape of each slot.
    pub(crate) shapes: Vec<Shape>,
    /// Which pixel each number of [`IMAGE`] and of the outputs is; past the edge of an image, the number of pixels.
    pub(crate) order: Vec<usize>,
    /// The operations, in order; each writes a slot of its own, the next one.
    pub(crate) ops: Vec<Op>,
    /// The weights.
    pub(crate) parameters: Vec<Parameter>,
}

impl Program {
    pub(crate) fn new(config: &DenoiserConfig) -> Self {
        match config.network {
            Network::Mlp { width, hidden, blocks, embedding } => {
                let mut p = Self::with_inputs(config, embedding, config.rows.max(config.cols));
                let condition = p.condition(embedding);
                let h = p.linear("input", &[IMAGE], Shape::flat(width), 1.0, None);
                let h = p.residual(h, condition, hidden, blocks);
                p.output(h);
                p
            }
            Network::PatchMlp { patch, local, code, width, hidden, blocks, embedding } => {
                let mut p = Self::with_inputs(config, embedding, patch);
                let condition = p.condition(embedding);
                let patches = p.shapes[IMAGE].patches;
                let [local, code] = [local, code].map(|width| Shape { patches, width });
                let about = p.linear("encode.condition", &[condition], Shape::flat(local.width), 1.0, None);
                let h = p.local("encode.in", &[IMAGE], local, Some(about));
                p.silu();
                let h = p.local("encode.out", &[h], code, None);
                let h = p.linear("input", &[h], Shape::flat(width), 1.0, None);
                let h = p.residual(h, condition, hidden, blocks);
                let h = p.linear("expand", &[h], code, 1.0, None);
                let about = p.linear("decode.condition", &[condition], Shape::flat(local.width), 1.0, None);
                let h = p.local("decode.in", &[h, IMAGE], local, Some(about));
                p.silu();
                let h = p.local("decode.inner", &[h], local, None);
                p.silu();
                p.output(h);
                p
            }
            Network::Plain { width, layers, embedding } => {
                let mut p = Self::with_inputs(config, embedding, config.rows.max(config.cols));
                let mut h = vec![IMAGE, TIME, CLASS];
                for layer in 0..layers {
                    h = vec![p.linear(&format!("layers.{layer}"), &h, Shape::flat(width), 1.0, None)];
                    p.silu();
                }
                p.output(h[0]);
                p
            }
        }
    }

    /// With square patches of `side` pixels, from the first row and column on, row by row; the last ones may go past
    /// the edge. With one patch that is the image.
    fn with_inputs(config: &DenoiserConfig, embedding: usize, side: usize) -> Self {
        let DenoiserConfig { rows, cols, .. } = *config;
        let whole = side >= rows.max(cols);
        let [height, width] = if whole { [rows, cols] } else { [side, side] };
        let (down, across) = (rows.div_ceil(height), cols.div_ceil(width));
        let pixel = |i: usize| {
            let (patch, place) = (i.div_euclid(height * width), i % (height * width));
            let row = patch.div_euclid(across) * height + place.div_euclid(width);
            let col = patch % across * width + place % width;
            if row < rows && col < cols { row * cols + col } else { rows * cols }
        };
        let image = Shape { patches: down * across, width: height * width };
        Self {
            shapes: vec![image, Shape::flat(embedding), Shape::flat(config.num_classes + 1)],
            order: (0..image.size()).map(pixel).collect(),
            ops: Vec::new(),
            parameters: Vec::new(),
        }
    }

    /// What is told about time and class.
    fn condition(&mut self, embedding: usize) -> Slot {
        let embedding = Shape::flat(embedding);
        let e = self.linear("time.0", &[TIME], embedding, 1.0, None);
        self.silu();
        let e = self.linear("time.1", &[e], embedding, 1.0, None);
        let condition = self.class("class", e);
        self.silu();
        condition
    }

    /// Residual blocks, and SiLU at the end.
    fn residual(&mut self, mut h: Slot, condition: Slot, hidden: usize, blocks: usize) -> Slot {
        let (width, hidden) = (self.shapes[h], Shape::flat(hidden));
        for block in 0..blocks {
            let name = |part| format!("blocks.{block}.{part}");
            let inner = self.linear(&name("condition"), &[condition], hidden, 1.0, None);
            let inner = self.linear(&name("in"), &[h], hidden, 1.0, Some(inner));
            self.silu();
            // A block starts as the identity, so depth does not change the scale of what enters.
            h = self.linear(&name("out"), &[inner], width, 0.0, Some(h));
        }
        self.silu();
        h
    }

    fn output(&mut self, x: Slot) {
        self.local("output", &[x], self.shapes[IMAGE], None);
    }

    /// The numbers that a map reads of each slot.
    pub(crate) fn inputs(&self, slots: &[Slot], patches: usize) -> usize {
        slots.iter().map(|&slot| self.shapes[slot].size().div_euclid(patches)).sum()
    }

    /// See [`FlopCount`].
    pub(crate) fn flop_count(&self) -> FlopCount {
        let mut of_image = vec![false; self.shapes.len()];
        of_image[IMAGE] = true;
        let mut count = FlopCount { predict: 0, train: 0 };
        for Op { map, patches, out, .. } in &self.ops {
            // A row of a table is looked up.
            let Map::Linear { x, .. } = map else { continue };
            of_image[*out] = x.iter().any(|&slot| of_image[slot]);
            for &slot in x {
                let product = 2 * self.inputs(&[slot], *patches) * self.shapes[*out].size();
                if of_image[slot] {
                    count.predict += product;
                }
                count.train += product * if slot < INPUTS { 2 } else { 3 };
            }
        }
        count
    }

    fn push(&mut self, map: Map, shape: Shape, patches: usize, add: Option<Slot>) -> Slot {
        let out = self.shapes.len();
        self.shapes.push(shape);
        self.ops.push(Op { map, patches, add, silu: false, out });
        out
    }

    /// The last operation ends with SiLU.
    fn silu(&mut self) {
        if let Some(op) = self.ops.last_mut() {
            op.silu = true;
        }
    }

    /// A linear map of all that is in `x`.
    fn linear(&mut self, name: &str, x: &[Slot], shape: Shape, gain: f64, add: Option<Slot>) -> Slot {
        self.map(name, x, shape, 1, gain, add)
    }

    /// A linear map of each patch, the same for all.
    fn local(&mut self, name: &str, x: &[Slot], shape: Shape, add: Option<Slot>) -> Slot {
        self.map(name, x, shape, shape.patches, 1.0, add)
    }

    /// A weight [outputs, inputs] of the variance `gain`²/(3·inputs), which is PyTorch's for a gain of 1, and a bias of
    /// zero.
    fn map(
        &mut self,
        name: &str,
        x: &[Slot],
        shape: Shape,
        patches: usize,
        gain: f64,
        add: Option<Slot>,
    ) -> Slot {
        let (weight, inputs) = (self.parameters.len(), self.inputs(x, patches));
        let outputs = shape.size().div_euclid(patches);
        let init = if gain == 0.0 { Init::Zeros } else { Init::Normal(gain / (3.0 * inputs as f64).sqrt()) };
        let mut parameter = |part, shape, init| {
            self.parameters.push(Parameter { name: format!("{name}.{part}"), shape, init });
        };
        parameter("weight", vec![outputs, inputs], init);
        parameter("bias", vec![outputs], Init::Zeros);
        self.push(Map::Linear { x: x.to_vec(), weight }, shape, patches, add)
    }

    fn class(&mut self, name: &str, add: Slot) -> Slot {
        let (table, shape) = (self.parameters.len(), self.shapes[add]);
        let (name, weight) = (format!("{name}.weight"), vec![self.shapes[CLASS].width, shape.width]);
        self.parameters.push(Parameter { name, shape: weight, init: Init::Normal(1.0) });
        self.push(Map::Class { table }, shape, 1, Some(add))
    }
}
