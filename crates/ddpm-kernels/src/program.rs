//! The description of a network: a list of operations on numbered slots.

/// The number of an intermediate result. The first ones are the inputs, the last one is the output.
pub type Slot = usize;

/// The shape of a slot: [B, patches, width]. A slot that is not divided into patches has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The number of patches.
    pub patches: usize,
    /// The features of a patch.
    pub width: usize,
}

impl Shape {
    /// One patch of `width` features.
    #[must_use]
    pub fn flat(width: usize) -> Self {
        Self { patches: 1, width }
    }

    /// All features of an image.
    #[must_use]
    pub fn size(self) -> usize {
        self.patches * self.width
    }
}

/// The inputs of a network; all numbers are at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// Rows of an image in pixels.
    pub rows: usize,
    /// Columns of an image in pixels.
    pub cols: usize,
    /// The side of a square patch in pixels. An image that fits into one patch is not divided.
    pub patch: usize,
    /// The width of the table of timesteps.
    pub time: usize,
    /// The number of classes; a class stands as a one-hot row of this width.
    pub classes: usize,
}

/// An operation: a linear map, plus the slot `add` if there is one, and then SiLU if `silu`.
///
/// With `patches` > 1 the map is that of one patch, the same for all patches; what it reads and adds has as many
/// patches or one for all. With one it reads the whole of each slot, patch after patch.
#[derive(Clone, Debug)]
pub struct Op {
    /// The linear map.
    pub map: Map,
    /// The number of patches that the map is applied to.
    pub patches: usize,
    /// A slot whose values are added.
    pub add: Option<Slot>,
    /// Whether SiLU follows.
    pub silu: bool,
    /// The slot that is written: always the next one.
    pub out: Slot,
}

/// The linear part of an operation. Weights are indices into [`Program::parameters`].
#[derive(Clone, Debug)]
pub enum Map {
    /// `x Wᵀ + b` with the slots `x` side by side, and the bias in the parameter after `weight`.
    Linear {
        /// The slots that are read.
        x: Vec<Slot>,
        /// W, [outputs, inputs].
        weight: usize,
    },
    /// `table[class]`.
    Class {
        /// The table, [classes, outputs].
        table: usize,
    },
}

/// The distribution of the initial values of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Zero.
    Zeros,
}

/// A parameter of the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its name, as in the weights file.
    pub name: String,
    /// Its shape; [outputs, inputs] for a matrix.
    pub shape: Vec<usize>,
    /// Its initial values.
    pub init: Init,
}

impl Parameter {
    /// The number of its values.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "no parameter is empty")]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Floating-point operations of a network's matrix products for one image; a multiply-add counts as two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlopCount {
    /// A prediction while sampling. Operations that depend on timestep and class alone run once for all images
    /// and are not counted.
    pub predict: usize,
    /// A training step: the forward pass, the gradient of every weight, and the gradient of everything that a layer
    /// reads except the network's inputs.
    pub train: usize,
}

/// A network as data.
///
/// Operations that depend on timestep and class only, and not on the image, are run once for all images that share
/// them. So an operation without the image must not add a slot with it, and no operation adds an input.
#[derive(Clone, Debug)]
pub struct Program {
    shapes: Vec<Shape>,
    pixels: usize,
    order: Vec<usize>,
    ops: Vec<Op>,
    parameters: Vec<Parameter>,
}

impl Program {
    /// The input image x.
    pub const IMAGE: Slot = 0;
    /// The input row of the timestep's table.
    pub const TIME: Slot = 1;
    /// The input class, one-hot.
    pub const CLASS: Slot = 2;
    /// The number of inputs.
    pub(crate) const INPUTS: usize = 3;

    /// A program without operations. Patches are squares from the first row and column on, row by row; the last ones
    /// may go past the edge of the image, where the input is 0.
    #[must_use]
    pub fn new(inputs: Inputs) -> Self {
        let Inputs { rows, cols, patch, time, classes } = inputs;
        let whole = patch >= rows.max(cols);
        let [height, width] = if whole { [rows, cols] } else { [patch, patch] };
        let (down, across) = (rows.div_ceil(height), cols.div_ceil(width));
        let pixel = |i: usize| {
            let (patch, place) = (i.div_euclid(height * width), i % (height * width));
            let row = patch.div_euclid(across) * height + place.div_euclid(width);
            let col = patch % across * width + place % width;
            if row < rows && col < cols { row * cols + col } else { rows * cols }
        };
        let image = Shape { patches: down * across, width: height * width };
        Self {
            shapes: vec![image, Shape::flat(time), Shape::flat(classes)],
            pixels: rows * cols,
            order: (0..image.size()).map(pixel).collect(),
            ops: Vec::new(),
            parameters: Vec::new(),
        }
    }

    /// Adds a linear map of the slots `x` side by side, from all their features to all features of `shape`, and
    /// returns the slot that it writes.
    ///
    /// The weight [outputs, inputs] starts with the variance `gain`²/(3·inputs), which is PyTorch's for a gain of 1,
    /// or as zeros for a gain of 0; the bias starts as zeros. They are named `NAME.weight` and `NAME.bias`.
    pub fn linear(&mut self, name: &str, x: &[Slot], shape: Shape, gain: f64, add: Option<Slot>) -> Slot {
        self.map(name, x, shape, 1, gain, add)
    }

    /// [`Program::linear`] of each patch of `shape` by itself, with the same weight for all patches and a gain of 1.
    pub fn local(&mut self, name: &str, x: &[Slot], shape: Shape, add: Option<Slot>) -> Slot {
        self.map(name, x, shape, shape.patches, 1.0, add)
    }

    /// Adds a table with a row for each class, named `NAME.weight`, to the slot `add`.
    pub fn class(&mut self, name: &str, add: Slot) -> Slot {
        let (table, shape) = (self.parameters.len(), self.shapes[add]);
        let (name, weight) = (format!("{name}.weight"), vec![self.shapes[Self::CLASS].width, shape.width]);
        self.parameters.push(Parameter { name, shape: weight, init: Init::Normal(1.0) });
        self.push(Map::Class { table }, shape, 1, Some(add))
    }

    /// Ends the last operation with SiLU.
    pub fn silu(&mut self) {
        if let Some(op) = self.ops.last_mut() {
            op.silu = true;
        }
    }

    /// The shape of a slot.
    ///
    /// # Panics
    ///
    /// If there is no such slot.
    #[must_use]
    pub fn shape(&self, slot: Slot) -> Shape {
        self.shapes[slot]
    }

    /// The number of slots.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.shapes.len()
    }

    /// Pixels of an image.
    #[must_use]
    pub fn pixels(&self) -> usize {
        self.pixels
    }

    /// The pixel that each feature of the image's slot and of the output holds, patch after patch; past the edge of an
    /// image, the number of pixels.
    #[must_use]
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// The operations, in order.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// The parameters, in the order of the operations.
    #[must_use]
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The cost of the matrix products.
    #[must_use]
    pub fn flop_count(&self) -> FlopCount {
        let mut of_image = vec![false; self.shapes.len()];
        of_image[Self::IMAGE] = true;
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
                count.train += product * if slot < Self::INPUTS { 2 } else { 3 };
            }
        }
        count
    }

    /// The features that a map of one of `patches` patches reads of the slots.
    pub(crate) fn inputs(&self, slots: &[Slot], patches: usize) -> usize {
        slots.iter().map(|&slot| self.shapes[slot].size().div_euclid(patches)).sum()
    }

    fn push(&mut self, map: Map, shape: Shape, patches: usize, add: Option<Slot>) -> Slot {
        let out = self.shapes.len();
        self.shapes.push(shape);
        self.ops.push(Op { map, patches, add, silu: false, out });
        out
    }

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
}
