//! The description of a network: a list of operations on numbered slots.

/// The index of an intermediate result. The first three slots are the inputs, the last slot is the output.
pub type Slot = usize;

/// The shape of a slot for one image: [patches, width]. A slot that is not divided into patches has one patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The number of patches.
    pub patches: usize,
    /// The number of features of a patch.
    pub width: usize,
}

impl Shape {
    /// One patch of `width` features.
    #[must_use]
    pub fn flat(width: usize) -> Self {
        Self { patches: 1, width }
    }

    /// The number of features of an image: `patches · width`.
    #[must_use]
    pub fn size(self) -> usize {
        self.patches * self.width
    }
}

/// The sizes of a network's inputs, all at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// Rows of an image in pixels.
    pub rows: usize,
    /// Columns of an image in pixels.
    pub cols: usize,
    /// The side of a square patch in pixels. An image that fits into one patch is not divided.
    pub patch: usize,
    /// The width of the time embedding.
    pub time: usize,
    /// The number of classes, which is the width of the one-hot class input.
    pub classes: usize,
}

/// An operation: a linear map, plus the slot `add` if it is `Some`, then SiLU if `silu` is true.
///
/// With `patches` > 1, the same map is applied to each patch. Each slot that the operation reads has `patches` patches, and
/// so has the slot that it adds if that depends on the image; otherwise it has one patch, which all patches share. With
/// `patches` = 1, the map reads all features of each slot, in the order of the patches.
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
    /// The slot that is written: the first one after all earlier slots.
    pub out: Slot,
}

/// The linear part of an operation. Weights are indices into [`Program::parameters`].
#[derive(Clone, Debug)]
pub enum Map {
    /// `x Wᵀ + b`, where x is the concatenation of the slots `x`, and b is the parameter after `weight`.
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

/// The number of floating-point operations of a network's matrix products for one image; a multiply-add counts as two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlopCount {
    /// One network evaluation in sampling. Operations that depend on timestep and class only run once for all images
    /// and are not counted.
    pub predict: usize,
    /// A training step: the forward pass, the gradient of every weight, and the gradient of every slot that a layer
    /// reads except the network's inputs.
    pub train: usize,
}

/// The description of a network as a list of operations.
///
/// Operations that depend on timestep and class only are run once for all images that share both. So an operation that
/// does not read the image must not add a slot that depends on it. No operation may add an input slot.
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
    /// The input time embedding.
    pub const TIME: Slot = 1;
    /// The input class, one-hot.
    pub const CLASS: Slot = 2;
    /// The number of inputs.
    pub(crate) const INPUTS: usize = 3;

    /// A program without operations. The patches are squares in row-major order from the first row and column on. The
    /// last patches may extend past the edge of the image, where the input is 0.
    #[must_use]
    pub fn new(inputs: Inputs) -> Self {
        let Inputs { rows, cols, patch, time, classes } = inputs;
        let single_patch = patch >= rows.max(cols);
        let [height, width] = if single_patch { [rows, cols] } else { [patch, patch] };
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

    /// Adds a linear map from all features of the concatenated slots `x` to all features of `shape`, and returns the
    /// slot that it writes.
    ///
    /// The weight `NAME.weight`, [outputs, inputs], is initialised with the variance `gain`²/(3·inputs), which equals
    /// PyTorch's default for a gain of 1, or with zeros for a gain of 0. The bias `NAME.bias` is initialised with zeros.
    pub fn linear(&mut self, name: &str, x: &[Slot], shape: Shape, gain: f64, add: Option<Slot>) -> Slot {
        self.map(name, x, shape, 1, gain, add)
    }

    /// Adds a linear map of each patch separately, with the same weight for all patches and a gain of 1; otherwise like
    /// [`Program::linear`].
    pub fn local(&mut self, name: &str, x: &[Slot], shape: Shape, add: Option<Slot>) -> Slot {
        self.map(name, x, shape, shape.patches, 1.0, add)
    }

    /// Adds a class embedding, the table `NAME.weight` with a row for each class, to the slot `add`. Returns the slot
    /// with the sum.
    pub fn class(&mut self, name: &str, add: Slot) -> Slot {
        let (table, shape) = (self.parameters.len(), self.shapes[add]);
        let (name, weight) = (format!("{name}.weight"), vec![self.shapes[Self::CLASS].width, shape.width]);
        self.parameters.push(Parameter { name, shape: weight, init: Init::Normal(1.0) });
        self.push(Map::Class { table }, shape, 1, Some(add))
    }

    /// Applies SiLU to the result of the last operation.
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

    /// The number of pixels of an image.
    #[must_use]
    pub fn pixels(&self) -> usize {
        self.pixels
    }

    /// The pixel index of each feature of the image slot and of the output, in the order of the patches; the number of
    /// pixels for padding past the edge of the image.
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

    /// The floating-point operations of the matrix products.
    #[must_use]
    pub fn flop_count(&self) -> FlopCount {
        let mut of_image = vec![false; self.shapes.len()];
        of_image[Self::IMAGE] = true;
        let mut count = FlopCount { predict: 0, train: 0 };
        for Op { map, patches, out, .. } in &self.ops {
            // The class embedding is a table lookup and needs no operations.
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

    /// The number of features that a map reads from the slots for one of `patches` patches.
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
