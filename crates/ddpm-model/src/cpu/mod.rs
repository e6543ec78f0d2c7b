//! The network carried out on a CPU by kernels of our own, forward and backward.
//!
//! candle's portable path loses a factor of three on a CPU: an allocation, a zero-fill and an addition for
//! each gradient, single-threaded SiLU, a second thread pool that spins. Here every intermediate lies in a
//! buffer that lives as long as the [`Workspace`], and a gradient is written once, where it is needed.
//!
//! Intermediates are *feature-major*, [width, B]: a tile of a product is then a contiguous piece of memory,
//! so that threads share work without sharing slices. The tiles depend on the shapes alone, and so every
//! result is the same bits for any number of threads.

mod kernels;

use ddpm_core::PredictionType;
use rayon::prelude::*;

use crate::{
    DenoiserConfig,
    embedding::sinusoids,
    program::{Feature, Op, Program, Slot},
};

pub use kernels::{AdamwEma, adamw_ema};

/// A network for CPUs. Its weights are lists in the order of [`DenoiserConfig::parameters`].
#[derive(Debug)]
pub struct CpuNetwork {
    program: Program,
    /// The sinusoids of every timestep, [T, E].
    times: Vec<f32>,
    pixels: usize,
    classes: usize,
    output_type: PredictionType,
}

/// The intermediates of a batch, and their gradients if it is for training.
#[derive(Debug)]
pub struct Workspace {
    batch: usize,
    labels: Vec<u32>,
    values: Vec<Vec<f32>>,
    gradients: Vec<Vec<f32>>,
}

impl CpuNetwork {
    /// The network of a valid configuration, for a schedule of `steps` timesteps.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the table is computed in f64 and rounded once")]
    pub fn new(config: &DenoiserConfig, steps: usize) -> Self {
        let program = Program::new(config);
        Self {
            times: sinusoids(steps, program.embedding).into_iter().map(|x| x as f32).collect(),
            program,
            pixels: config.pixels(),
            classes: config.num_classes + 1,
            output_type: config.output_type,
        }
    }

    /// What the raw output is.
    #[must_use]
    pub fn output_type(&self) -> PredictionType {
        self.output_type
    }

    /// Buffers for batches of `batch` images; those of gradients only for `training`.
    #[must_use]
    pub fn workspace(&self, batch: usize, training: bool) -> Workspace {
        let buffers = |first: Slot| -> Vec<Vec<f32>> {
            let widths = self.program.widths.iter().enumerate();
            widths.map(|(slot, width)| vec![0.0; if slot < first { 0 } else { width * batch }]).collect()
        };
        let slots = self.program.widths.len();
        // Inputs have no gradient: nobody asks for it.
        let first = if training { self.program.inputs.len() } else { slots };
        Workspace { batch, labels: vec![0; batch], values: buffers(0), gradients: buffers(first) }
    }

    /// Runs the network on `x_t`, [B, pixels] image by image, with one timestep and one class for each.
    /// The raw output is in [`Workspace::output`] then.
    ///
    /// # Panics
    ///
    /// If a length does not fit the workspace, or a timestep or a class is out of range.
    pub fn forward(
        &self,
        weights: &[Vec<f32>],
        ws: &mut Workspace,
        x_t: &[f32],
        t: &[usize],
        labels: &[u32],
    ) {
        let batch = ws.batch;
        assert_eq!((x_t.len(), t.len(), labels.len()), (batch * self.pixels, batch, batch));
        ws.labels.copy_from_slice(labels);
        for (slot, features) in self.program.inputs.iter().enumerate() {
            let mut at = 0;
            for feature in features {
                let width = match feature {
                    Feature::Image => self.pixels,
                    Feature::Time => self.program.embedding,
                    Feature::Class => self.classes,
                };
                let rows = &mut ws.values[slot][at * batch..(at + width) * batch];
                match feature {
                    Feature::Image => kernels::transpose(x_t, rows, batch),
                    Feature::Time => gather_columns(rows, batch, |image| &self.times[t[image] * width..]),
                    Feature::Class => {
                        rows.fill(0.0);
                        for (image, &label) in labels.iter().enumerate() {
                            rows[label as usize * batch + image] = 1.0;
                        }
                    }
                }
                at += width;
            }
        }
        for op in &self.program.ops {
            match *op {
                Op::Linear { x, weight, add, out } => {
                    let mut result = std::mem::take(&mut ws.values[out]);
                    let add = add.map(|add| ws.values[add].as_slice());
                    kernels::linear(
                        &mut result,
                        &weights[weight],
                        &weights[weight + 1],
                        &ws.values[x],
                        add,
                        batch,
                    );
                    ws.values[out] = result;
                }
                Op::Silu { x, out } => {
                    let mut result = std::mem::take(&mut ws.values[out]);
                    kernels::silu(&ws.values[x], &mut result);
                    ws.values[out] = result;
                }
                Op::Class { table, add, out } => {
                    let mut result = std::mem::take(&mut ws.values[out]);
                    let (table, width) = (&weights[table], self.program.widths[out]);
                    gather_columns(&mut result, batch, |image| &table[labels[image] as usize * width..]);
                    kernels::add(&ws.values[add], &mut result);
                    ws.values[out] = result;
                }
            }
        }
    }

    /// Writes the gradient of every weight, given that of the output in [`Workspace::output_gradient`], for
    /// the batch of the last [`CpuNetwork::forward`].
    ///
    /// # Panics
    ///
    /// If the workspace is not one for training, or a list of weights does not fit.
    pub fn backward(&self, weights: &[Vec<f32>], ws: &mut Workspace, gradients: &mut [Vec<f32>]) {
        let batch = ws.batch;
        let inputs = self.program.inputs.len();
        // A gradient that flows into a slot from several sides is written first and added to later.
        let mut written = vec![false; self.program.widths.len()];
        for op in self.program.ops.iter().rev() {
            match *op {
                Op::Linear { x, weight, add, out } => {
                    let upstream = std::mem::take(&mut ws.gradients[out]);
                    kernels::weight_gradient(&mut gradients[weight], &upstream, &ws.values[x], batch);
                    kernels::bias_gradient(&mut gradients[weight + 1], &upstream, batch);
                    if x >= inputs {
                        let more = std::mem::replace(&mut written[x], true);
                        kernels::input_gradient(
                            &mut ws.gradients[x],
                            &weights[weight],
                            &upstream,
                            batch,
                            more,
                        );
                    }
                    if let Some(add) = add {
                        pass_on(
                            &upstream,
                            &mut ws.gradients[add],
                            std::mem::replace(&mut written[add], true),
                        );
                    }
                    ws.gradients[out] = upstream;
                }
                Op::Silu { x, out } => {
                    let upstream = std::mem::take(&mut ws.gradients[out]);
                    let more = std::mem::replace(&mut written[x], true);
                    kernels::silu_gradient(&ws.values[x], &upstream, &mut ws.gradients[x], more);
                    ws.gradients[out] = upstream;
                }
                Op::Class { table, add, out } => {
                    let upstream = std::mem::take(&mut ws.gradients[out]);
                    let width = self.program.widths[out];
                    gradients[table].fill(0.0);
                    for (image, &label) in ws.labels.iter().enumerate() {
                        let row = &mut gradients[table][label as usize * width..][..width];
                        for (sum, values) in row.iter_mut().zip(upstream.chunks(batch)) {
                            *sum += values[image];
                        }
                    }
                    pass_on(&upstream, &mut ws.gradients[add], std::mem::replace(&mut written[add], true));
                    ws.gradients[out] = upstream;
                }
            }
        }
    }
}

impl Workspace {
    /// The raw output, feature by feature: [pixels, B].
    #[must_use]
    pub fn output(&self) -> &[f32] {
        self.values.last().map_or(&[], Vec::as_slice)
    }

    /// The raw output image by image, [B, pixels], into `out`.
    pub fn output_into(&self, out: &mut [f32]) {
        kernels::transpose(self.output(), out, out.len().checked_div(self.batch).unwrap_or(0));
    }

    /// The output and where to put the gradient of the loss with respect to it, both [pixels, B].
    #[must_use]
    pub fn output_gradient(&mut self) -> (&[f32], &mut [f32]) {
        let gradient = self.gradients.last_mut().map_or(&mut [] as &mut [f32], Vec::as_mut_slice);
        (self.values.last().map_or(&[], Vec::as_slice), gradient)
    }
}

fn pass_on(upstream: &[f32], gradient: &mut [f32], more: bool) {
    if more { kernels::add(upstream, gradient) } else { gradient.copy_from_slice(upstream) }
}

/// Fills [width, B] with a column for each image, whose first `width` numbers `column` returns.
fn gather_columns<'a>(rows: &mut [f32], batch: usize, column: impl Fn(usize) -> &'a [f32] + Sync) {
    rows.par_chunks_mut(batch).enumerate().with_min_len(32).for_each(|(feature, row)| {
        for (image, value) in row.iter_mut().enumerate() {
            *value = column(image)[feature];
        }
    });
}
