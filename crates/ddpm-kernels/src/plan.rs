//! The operations of a [`Program`] as layers for the kernels.

use std::ops::Range;

use crate::{
    Map, Op, Program, Shape, Slot,
    panel::{PANEL, Row, panels, transpose},
};

/// `out = x Wᵀ (+ b) (+ add)`, then SiLU if `silu` is true.
///
/// A slot has `panels(width)` panels with a row for each patch and image, ordered by patch. So a layer that works patch
/// by patch treats the patches as further images, and a layer that reads the whole slot treats each patch of a panel
/// as a panel of its own.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) x: Slot,
    pub(crate) add: Option<Slot>,
    pub(crate) silu: bool,
    pub(crate) out: Slot,
    /// Whether the layer adds to what the previous layer wrote to `out`.
    pub(crate) continues: bool,
    /// The number of rows for each image.
    pub(crate) patches: usize,
    /// The shape of the input of one row.
    pub(crate) inputs: Shape,
    /// The shape of the output of one row.
    pub(crate) outputs: Shape,
    /// The location of W in the parameters.
    matrix: Matrix,
    /// The index of the parameter b.
    pub(crate) bias: Option<usize>,
}

/// W as part of a parameter: W[output, input] has the index `first + output · by_output + input · by_input`.
#[derive(Clone, Copy, Debug)]
struct Matrix {
    parameter: usize,
    first: usize,
    by_output: usize,
    by_input: usize,
}

/// The layers in an order in which they can be run, and their slots.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The layers that depend on timestep and class only.
    pub(crate) conditions: Vec<Layer>,
    /// The layers that depend on the image.
    pub(crate) images: Vec<Layer>,
    /// The layers that depend on the image, divided into ranges: consecutive layers that are applied to each of several
    /// patches, or a single layer.
    pub(crate) stages: Vec<Range<usize>>,
    /// Whether only layers of one stage write and read each slot.
    pub(crate) is_internal: Vec<bool>,
    /// The shape of each slot.
    pub(crate) shapes: Vec<Shape>,
    /// Whether each slot depends on the image.
    pub(crate) of_image: Vec<bool>,
    pub(crate) output: Slot,
}

impl Plan {
    /// A linear map of several slots becomes one layer for each slot, and each layer adds to the result of the previous
    /// one. The layers that do not depend on the image come first, so their results can be shared by images.
    pub(crate) fn new(program: &Program) -> Self {
        let mut plan = Self {
            conditions: Vec::new(),
            images: Vec::new(),
            stages: Vec::new(),
            is_internal: Vec::new(),
            shapes: (0..program.slots()).map(|slot| program.shape(slot)).collect(),
            of_image: vec![false; program.slots()],
            output: program.slots() - 1,
        };
        plan.of_image[Program::IMAGE] = true;
        for Op { map, patches, add, silu, out } in program.ops() {
            let (patches, shape) = (*patches, program.shape(*out));
            let row = |shape: Shape| {
                if patches == 1 { shape } else { Shape::flat(shape.size().div_euclid(patches)) }
            };
            let outputs = row(shape);
            let mut parts: Vec<(Slot, Matrix)> = match map {
                Map::Linear { x, weight } => {
                    let by_output = program.inputs(x, patches);
                    let mut first = 0;
                    let part = |&slot: &Slot| {
                        let matrix = Matrix { parameter: *weight, first, by_output, by_input: 1 };
                        first += row(program.shape(slot)).size();
                        (slot, matrix)
                    };
                    x.iter().map(part).collect()
                }
                Map::Class { table } => {
                    let by_input = outputs.size();
                    let matrix = Matrix { parameter: *table, first: 0, by_output: 1, by_input };
                    vec![(Program::CLASS, matrix)]
                }
            };
            parts.sort_by_key(|(slot, _)| plan.of_image[*slot]);
            let mut add = *add;
            let mut bias = match map {
                Map::Linear { weight, .. } => Some(weight + 1),
                Map::Class { .. } => None,
            };
            let last = parts.len() - 1;
            let reads_image = plan.of_image[parts[last].0];
            let mut previous = None;
            for (i, (x, matrix)) in parts.into_iter().enumerate() {
                let of_image = plan.of_image[x];
                // If both conditions and images are read, what the conditions contribute has a slot of its own.
                let slot = match previous {
                    _ if of_image == reads_image => *out,
                    Some(slot) => slot,
                    None => {
                        plan.shapes.push(shape);
                        plan.of_image.push(false);
                        plan.shapes.len() - 1
                    }
                };
                let continues = previous == Some(slot);
                if previous.is_some() && !continues {
                    add = previous;
                }
                let added = if continues { None } else { add };
                previous = Some(slot);
                // A layer that runs for conditions cannot read slots of images; a layer that runs for images reads both.
                assert!(of_image || added.is_none_or(|add| !plan.of_image[add]), "a condition adds an image");
                assert!(added.is_none_or(|add| add >= Program::INPUTS), "an input is added");
                if let Some(add) = added.filter(|_| of_image) {
                    let expected = if plan.of_image[add] { patches } else { 1 };
                    let found = if patches == 1 { 1 } else { plan.shapes[add].patches };
                    assert_eq!(found, expected, "the patches of the slot that is added");
                }
                plan.of_image[slot] = of_image;
                let inputs = row(plan.shapes[x]);
                let bias = bias.take();
                let silu = *silu && i == last;
                let layer = Layer {
                    x,
                    add: added,
                    silu,
                    out: slot,
                    continues,
                    patches,
                    inputs,
                    outputs,
                    matrix,
                    bias,
                };
                if of_image { plan.images.push(layer) } else { plan.conditions.push(layer) }
            }
        }
        plan.divide_into_stages();
        plan
    }

    fn divide_into_stages(&mut self) {
        for (at, layer) in self.images.iter().enumerate() {
            match self.stages.last_mut() {
                Some(stage) if layer.patches > 1 && self.images[stage.start].patches == layer.patches => {
                    stage.end = at + 1
                }
                _ => self.stages.push(at..at + 1),
            }
        }
        let internal = |slot: Slot| {
            let uses = |layer: &Layer| layer.x == slot || layer.add == Some(slot) || layer.out == slot;
            let users = self.stages.iter().filter(|stage| self.images[(*stage).clone()].iter().any(uses));
            self.of_image[slot] && ![Program::IMAGE, self.output].contains(&slot) && users.count() == 1
        };
        self.is_internal = (0..self.shapes.len()).map(internal).collect();
    }

    /// All layers, first those that depend on the condition only. [`Weights`](crate::Weights) has the same order.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.conditions.iter().chain(&self.images)
    }

    /// The number of layers that read each slot; 0 for the inputs, whose gradient is not needed.
    pub(crate) fn readers(&self) -> Vec<usize> {
        let mut readers = vec![0; self.shapes.len()];
        for layer in self.layers() {
            for slot in std::iter::once(layer.x).chain(layer.add).filter(|&slot| slot >= Program::INPUTS) {
                readers[slot] += 1;
            }
        }
        readers
    }
}

impl Layer {
    /// The number of rows in a panel of the weight: one for each input, and one for the bias.
    pub(crate) fn stride(&self) -> usize {
        self.inputs.panels() * PANEL + 1
    }

    /// Zeros in the layout of the weight.
    pub(crate) fn zeros(&self) -> Vec<Row> {
        vec![Row::ZERO; self.outputs.panels() * self.stride()]
    }

    /// Panels of Wᵀ, each with a row for each output.
    pub(crate) fn transposed(&self, weight: &[Row]) -> Vec<Row> {
        let outputs = self.outputs.panels() * PANEL;
        let mut rows = vec![Row::ZERO; self.inputs.panels() * outputs];
        for (panel, to) in rows.chunks_mut(outputs).enumerate() {
            transpose(weight, self.stride(), panel * PANEL, to);
        }
        rows
    }

    /// Packs the weight into panels.
    pub(crate) fn pack(&self, parameters: &[Vec<f32>]) -> Vec<Row> {
        let mut rows = self.zeros();
        self.for_each(|row, lane, parameter, at| rows[row].0[lane] = parameters[parameter][at]);
        rows
    }

    /// The inverse of [`Layer::pack`].
    pub(crate) fn unpack(&self, rows: &[Row], parameters: &mut [Vec<f32>]) {
        self.for_each(|row, lane, parameter, at| parameters[parameter][at] = rows[row].0[lane]);
    }

    /// Calls `f(row, lane, parameter, index)` for each number of the weight and the bias: its position in the panels,
    /// and its position in the parameters.
    fn for_each(&self, mut f: impl FnMut(usize, usize, usize, usize)) {
        let Matrix { parameter, first, by_output, by_input } = self.matrix;
        for output in 0..self.outputs.size() {
            let place = self.outputs.place(output);
            let (rows, lane) = (place.div_euclid(PANEL) * self.stride(), place % PANEL);
            for input in 0..self.inputs.size() {
                let at = first + output * by_output + input * by_input;
                f(rows + self.inputs.place(input), lane, parameter, at);
            }
            if let Some(bias) = self.bias {
                f(rows + self.stride() - 1, lane, bias, output);
            }
        }
    }
}

impl Shape {
    /// The number of panels of a slot, counting each patch of a panel as a panel of one row for each image.
    pub(crate) fn panels(self) -> usize {
        panels(self.width) * self.patches
    }

    /// The position of feature `i` of an image (in the order of the patches) in the panels of a slot, counted in lanes.
    pub(crate) fn place(self, i: usize) -> usize {
        let (patch, i) = (i.div_euclid(self.width), i % self.width);
        (i.div_euclid(PANEL) * self.patches + patch) * PANEL + i % PANEL
    }
}
