//! The network carried out on a CPU by kernels of our own, forward and backward.
//!
//! Everything lies in panels of sixteen features ([`Row`]), in buffers that live as long as the
//! [`Workspace`]. A panel of a layer's output is one task: the product, the addition, SiLU, and in training
//! the gradient of the weight and the optimiser's step, while the panel is in the cache.
//!
//! Each number of a product is one chain of fused multiply-adds in a fixed order, so that results are the same
//! bits alone and in a batch, on any number of threads, and in every instruction set.

mod elementwise;
mod panel;
mod plan;
mod predict;
mod product;
mod train;

use std::{iter::zip, sync::Mutex};

use ddpm_core::{NoiseSchedule, PredictionType};
use pulp::Arch;
use rayon::prelude::*;

use crate::{
    DenoiserConfig,
    embedding::sinusoids,
    program::{CLASS, IMAGE, Program, Shape, Slot, TIME},
};
use elementwise::{Silu, Start};
use plan::{Layer, Plan};
use product::{GROUP, Next, Product};

pub use elementwise::{AdamwEma, adamw_ema};
pub use panel::{PANEL, Row, panels};
pub use train::{Training, Workspace};

/// A network for CPUs.
#[derive(Debug)]
pub struct CpuNetwork {
    plan: Plan,
    /// The length of each parameter.
    lengths: Vec<usize>,
    /// The sinusoids of every timestep, [T, E].
    times: Vec<f32>,
    pixels: usize,
    /// See [`CpuNetwork::order`].
    order: Vec<[usize; PANEL]>,
    output_type: PredictionType,
    /// Buffers of predictions for the next ones.
    buffers: Mutex<Vec<Activations>>,
}

/// The weights of a network, or what else there is one number of for each, in panels.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed(Vec<Vec<Row>>);

/// The slots of some rows: of images, or of conditions.
#[derive(Debug, Default)]
struct Activations {
    rows: usize,
    /// The value of each slot.
    values: Vec<Vec<Row>>,
    /// In training, the slope of SiLU at each number of a slot that is one.
    slopes: Vec<Vec<Row>>,
}

/// What layers add that do not depend on the image: a slot for each condition, and the condition of each image.
#[derive(Clone, Copy)]
struct Conditions<'a> {
    slots: &'a Activations,
    of_row: &'a [usize],
}

impl CpuNetwork {
    /// The network of a valid configuration, for the timesteps of a schedule.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the table is computed in f64 and rounded once")]
    pub fn new(config: &DenoiserConfig, schedule: &NoiseSchedule) -> Self {
        let program = Program::new(config);
        let image = program.shapes[IMAGE];
        let mut order = vec![[config.pixels(); PANEL]; image.panels()];
        for (i, &pixel) in program.order.iter().enumerate() {
            let place = image.place(i);
            order[place.div_euclid(PANEL)][place % PANEL] = pixel;
        }
        Self {
            times: sinusoids(schedule.num_train_timesteps(), program.shapes[TIME].width)
                .into_iter()
                .map(|x| x as f32)
                .collect(),
            plan: Plan::new(&program),
            lengths: program.parameters.iter().map(|p| p.shape.iter().product()).collect(),
            pixels: config.pixels(),
            order,
            output_type: config.output_type,
            buffers: Mutex::default(),
        }
    }

    /// What the raw output is.
    #[must_use]
    pub fn output_type(&self) -> PredictionType {
        self.output_type
    }

    /// Which pixel is where in the panels of an image and of the output, in each row of a panel the same. The number
    /// of pixels stands for a place that is none.
    #[must_use]
    pub fn order(&self) -> &[[usize; PANEL]] {
        &self.order
    }

    /// The weights in panels, from lists in the order of [`DenoiserConfig::parameters`].
    ///
    /// # Panics
    ///
    /// If a list is missing or too short.
    #[must_use]
    pub fn pack(&self, parameters: &[Vec<f32>]) -> Packed {
        Packed(self.plan.layers().map(|layer| layer.pack(parameters)).collect())
    }

    /// The way back from [`CpuNetwork::pack`].
    #[must_use]
    pub fn unpack(&self, packed: &Packed) -> Vec<Vec<f32>> {
        let mut parameters: Vec<Vec<f32>> = self.lengths.iter().map(|&length| vec![0.0; length]).collect();
        for (layer, rows) in self.plan.layers().zip(&packed.0) {
            layer.unpack(rows, &mut parameters);
        }
        parameters
    }

    /// A zero for each weight.
    #[must_use]
    pub fn zeros(&self) -> Packed {
        Packed(self.plan.layers().map(Layer::zeros).collect())
    }

    /// Runs the layers of conditions, one for each timestep and class, into `slots`.
    fn run_conditions(
        &self,
        weights: &Packed,
        slots: &mut Activations,
        conditions: impl Iterator<Item = (usize, u32)>,
    ) {
        let (rows, width) = (slots.rows, self.plan.shapes[TIME].width);
        slots.values[CLASS].fill(Row::ZERO);
        for (row, (t, label)) in conditions.enumerate() {
            let time = &self.times[t * width..][..width];
            for (panel, part) in time.chunks(PANEL).enumerate() {
                slots.values[TIME][panel * rows + row].0[..part.len()].copy_from_slice(part);
            }
            let label = label as usize;
            assert!(label < self.plan.shapes[CLASS].width, "class {label} is out of range");
            slots.values[CLASS][label.div_euclid(PANEL) * rows + row].0[label % PANEL] = 1.0;
        }
        for (layer, weight) in self.plan.conditions.iter().zip(&weights.0) {
            slots.run(layer, weight, None);
        }
    }

    /// Runs the layers of images, whose pixels are in `slots`.
    fn run_images(&self, weights: &Packed, slots: &mut Activations, conditions: Conditions<'_>) {
        let layers = self.plan.images.iter().zip(&weights.0[self.plan.conditions.len()..]);
        for (layer, weight) in layers {
            let conditions = layer.add.is_some_and(|add| !self.plan.of_image[add]).then_some(conditions);
            slots.run(layer, weight, conditions);
        }
    }
}

impl Activations {
    /// Makes room for `rows` rows in the slots that are wanted; what the others held does not matter.
    fn resize(&mut self, rows: usize, shapes: &[Shape], wanted: impl Fn(Slot) -> bool) {
        self.rows = rows;
        self.values.resize(shapes.len(), Vec::new());
        self.slopes.resize(shapes.len(), Vec::new());
        for (slot, (values, shape)) in self.values.iter_mut().zip(shapes).enumerate() {
            if wanted(slot) {
                values.resize(shape.panels() * rows, Row::ZERO);
            }
        }
    }

    /// Runs a layer; what it adds comes from `conditions` if they are given.
    fn run(&mut self, layer: &Layer, all: &[Row], conditions: Option<Conditions<'_>>) {
        if self.rows == 0 {
            return;
        }
        let (images, rows) = (self.rows, self.rows * layer.patches);
        let mut out = std::mem::take(&mut self.values[layer.out]);
        let mut slope = std::mem::take(&mut self.slopes[layer.out]);
        let stride = layer.stride();
        let x = self.values[layer.x].as_slice();
        let add = layer.add.map(|add| conditions.map_or(&self.values, |c| &c.slots.values)[add].as_slice());

        let of_row = conditions.map(|conditions| conditions.of_row);
        let add_rows = conditions.map_or(rows, |conditions| conditions.slots.rows);
        let task = |first: usize, out: &mut [Row], weight: &[Row], slope: &mut [Row]| {
            for (panel, (out, weight)) in zip(out.chunks_mut(rows), weight.chunks(stride)).enumerate() {
                let add = add.map(|add| &add[(first + panel) * add_rows..][..add_rows]);
                // A condition is that of an image, for all its patches.
                for out in out.chunks_mut(if of_row.is_some() { images } else { rows }) {
                    let add = add.map(|add| (add, of_row));
                    Arch::new().dispatch(Start { bias: &weight[stride - 1], add, out });
                }
            }
            let next = Next { rows: all.get((first + 1) * stride..).unwrap_or(&[]), first: 0, stride: PANEL };
            Arch::new().dispatch(Product { weight, stride, x, batch: rows, out, next });
            if layer.silu {
                Arch::new().dispatch(Silu { z: out, slope });
            }
        };
        let group = if rows == 1 { GROUP } else { 1 };
        let tasks = out.par_chunks_mut(group * rows).zip(all.par_chunks(group * stride)).enumerate();
        if slope.is_empty() {
            tasks.for_each(|(i, (out, weight))| task(i * group, out, weight, &mut []));
        } else {
            tasks
                .zip(slope.par_chunks_mut(group * rows))
                .for_each(|((i, (out, weight)), slope)| task(i * group, out, weight, slope));
        }
        self.values[layer.out] = out;
        self.slopes[layer.out] = slope;
    }
}
