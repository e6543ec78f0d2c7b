//! The forward pass: runs the layers that depend on the condition only, and the layers that depend on the image.

use std::{iter::zip, mem::take, ops::Range, sync::Mutex};

use pulp::Arch;
use rayon::prelude::*;

use crate::{
    Program, Shape, Slot,
    forward::{Add, Forward},
    panel::{PANEL, Row},
    plan::{Layer, Plan},
    product::group,
};

/// A network in the form that the kernels execute.
#[derive(Debug)]
pub struct Network {
    pub(crate) plan: Plan,
    /// The number of values of each parameter.
    pub(crate) lengths: Vec<usize>,
    /// The time embedding of each timestep, [T, width].
    times: Vec<f32>,
    pub(crate) pixels: usize,
    /// The pixel index at each position of each panel of an image and of the output; the number of pixels marks
    /// padding past the edge of the image.
    pub(crate) order: Vec<[usize; PANEL]>,
    /// Buffers of finished predictions, reused by later ones.
    pub(crate) buffers: Mutex<Vec<Activations>>,
}

/// The weights of a [`Network`], in the memory layout of the kernels.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights(pub(crate) Vec<Vec<Row>>);

/// The slots for a number of rows, where a row is an image or a condition.
#[derive(Debug, Default)]
pub(crate) struct Activations {
    pub(crate) rows: usize,
    /// The value of each slot.
    pub(crate) values: Vec<Vec<Row>>,
    /// In training, the derivative of SiLU at each value of a slot whose operation ends with SiLU.
    pub(crate) slopes: Vec<Vec<Row>>,
}

/// The results of the layers that do not depend on the image. A condition is a pair of timestep and class; `slots` has
/// a row for each condition, and `of_row` is the index of each image's condition.
#[derive(Clone, Copy)]
pub(crate) struct Conditions<'a> {
    pub(crate) slots: &'a Activations,
    pub(crate) of_row: &'a [usize],
}

impl Network {
    /// A network with the time embedding of each timestep, [T, width] in row-major order.
    ///
    /// # Panics
    ///
    /// If the program has no operation or breaks a rule of [`Program`], or the length of `times` is not a multiple of
    /// the width.
    #[must_use]
    pub fn new(program: &Program, times: Vec<f32>) -> Self {
        let (image, width) = (program.shape(Program::IMAGE), program.shape(Program::TIME).width);
        assert!(!program.ops().is_empty(), "a program without operations");
        assert_eq!(
            times.len() % width,
            0,
            "the length of the table of timesteps is not a multiple of its width"
        );
        let mut order = vec![[program.pixels(); PANEL]; image.panels()];
        for (i, &pixel) in program.order().iter().enumerate() {
            let place = image.place(i);
            order[place.div_euclid(PANEL)][place % PANEL] = pixel;
        }
        Self {
            plan: Plan::new(program),
            lengths: program.parameters().iter().map(crate::Parameter::len).collect(),
            times,
            pixels: program.pixels(),
            order,
            buffers: Mutex::default(),
        }
    }

    /// Packs parameters, given in the order of [`Program::parameters`], into the layout of the kernels.
    ///
    /// # Panics
    ///
    /// If a list is missing or too short.
    #[must_use]
    pub fn pack(&self, parameters: &[Vec<f32>]) -> Weights {
        Weights(self.plan.layers().map(|layer| layer.pack(parameters)).collect())
    }

    /// The inverse of [`Network::pack`].
    ///
    /// # Panics
    ///
    /// If the weights belong to another network.
    #[must_use]
    pub fn unpack(&self, weights: &Weights) -> Vec<Vec<f32>> {
        let mut parameters: Vec<Vec<f32>> = self.lengths.iter().map(|&length| vec![0.0; length]).collect();
        for (layer, rows) in self.plan.layers().zip(&weights.0) {
            layer.unpack(rows, &mut parameters);
        }
        parameters
    }

    /// Zeros in the shape of the weights.
    #[must_use]
    pub fn zeros(&self) -> Weights {
        Weights(self.plan.layers().map(Layer::zeros).collect())
    }

    /// Runs the layers that depend on the condition only, with a row of `slots` for each pair of timestep and class.
    pub(crate) fn run_conditions(
        &self,
        weights: &Weights,
        slots: &mut Activations,
        conditions: impl Iterator<Item = (usize, u32)>,
    ) {
        let (rows, width) = (slots.rows, self.plan.shapes[Program::TIME].width);
        slots.values[Program::CLASS].fill(Row::ZERO);
        for (row, (t, class)) in conditions.enumerate() {
            let time = &self.times[t * width..][..width];
            for (panel, part) in time.chunks(PANEL).enumerate() {
                slots.values[Program::TIME][panel * rows + row].0[..part.len()].copy_from_slice(part);
            }
            let class = class as usize;
            assert!(class < self.plan.shapes[Program::CLASS].width, "class {class} is out of range");
            slots.values[Program::CLASS][class.div_euclid(PANEL) * rows + row].0[class % PANEL] = 1.0;
        }
        for (layer, weight) in self.plan.conditions.iter().zip(&weights.0) {
            slots.run(layer, weight, None);
        }
    }

    /// Runs the layers that depend on the image; the caller has written the pixels to `slots`. If `keeps_all` is false, the
    /// slots that only layers of one stage read and write are not written.
    pub(crate) fn run_images(
        &self,
        weights: &Weights,
        slots: &mut Activations,
        conditions: Conditions<'_>,
        keeps_all: bool,
    ) {
        let (plan, weights) = (&self.plan, &weights.0[self.plan.conditions.len()..]);
        for stage in &plan.stages {
            let (layers, weights) = (&plan.images[stage.clone()], &weights[stage.clone()]);
            if slots.rows == 0 {
                return;
            }
            if layers.iter().all(|layer| layer.patches > 1) {
                slots.run_stage(plan, layers, weights, conditions, |slot| {
                    !keeps_all && plan.is_internal[slot]
                });
            } else {
                for (layer, weight) in zip(layers, weights) {
                    let conditions = layer.add.is_some_and(|add| !plan.of_image[add]).then_some(conditions);
                    slots.run(layer, weight, conditions);
                }
            }
        }
    }
}

impl<'a> Conditions<'a> {
    /// The panels of a slot of the conditions, to be added to rows of these images.
    pub(crate) fn add(self, slot: Slot, images: Range<usize>) -> Vec<Add<'a>> {
        let panels = self.slots.values[slot].chunks(self.slots.rows);
        panels.map(|panel| Add::Conditions(panel, &self.of_row[images.clone()])).collect()
    }
}

impl Activations {
    /// Makes room for `rows` rows in each slot for which `wanted` is true. The other slots keep arbitrary values.
    pub(crate) fn resize(&mut self, rows: usize, shapes: &[Shape], wanted: impl Fn(Slot) -> bool) {
        self.rows = rows;
        self.values.resize(shapes.len(), Vec::new());
        self.slopes.resize(shapes.len(), Vec::new());
        for (slot, (values, shape)) in self.values.iter_mut().zip(shapes).enumerate() {
            if wanted(slot) {
                values.resize(shape.panels() * rows, Row::ZERO);
            }
        }
    }

    /// Runs a layer; several panels of its output are a task. If `conditions` is `Some`, the layer's `add` is a slot of the
    /// conditions, else a slot of its own.
    fn run(&mut self, layer: &Layer, all: &[Row], conditions: Option<Conditions<'_>>) {
        let rows = self.rows * layer.patches;
        if rows == 0 {
            return;
        }
        let mut out = take(&mut self.values[layer.out]);
        let mut slope = take(&mut self.slopes[layer.out]);
        let stride = layer.stride();
        let x: Vec<&[Row]> = self.values[layer.x].chunks(rows).collect();
        let add: Vec<Add<'_>> = match (layer.add, conditions) {
            (None, _) => Vec::new(),
            (Some(slot), Some(conditions)) => conditions.add(slot, 0..self.rows),
            (Some(slot), None) => self.values[slot].chunks(rows).map(Add::Rows).collect(),
        };
        let group = group(layer.outputs.panels(), rows, rayon::current_num_threads());
        let task = |task: usize, out: &mut [Row], slope: &mut [Row]| {
            let first = task * group;
            Arch::new().dispatch(Forward {
                weight: &all[first * stride..],
                stride,
                x: &x,
                continues: layer.continues,
                add: add.get(first..).unwrap_or_default(),
                silu: layer.silu,
                out: &mut out.chunks_mut(rows).collect::<Vec<_>>(),
                slope: &mut slope.chunks_mut(rows).collect::<Vec<_>>(),
            });
        };
        let tasks = out.par_chunks_mut(group * rows).enumerate();
        if slope.is_empty() {
            tasks.for_each(|(i, out)| task(i, out, &mut []));
        } else {
            tasks.zip(slope.par_chunks_mut(group * rows)).for_each(|((i, out), slope)| task(i, out, slope));
        }
        self.values[layer.out] = out;
        self.slopes[layer.out] = slope;
    }
}
