//! Training: a batch forward, backward, and the optimiser's step.

use pulp::Arch;
use rayon::prelude::*;

use super::{
    Activations, AdamwEma, Conditions, CpuNetwork, Packed,
    elementwise::{Multiply, adamw_ema, add, sum},
    panel::{PANEL, Row, transpose},
    plan::Layer,
    product::{Next, Product, WeightGradient},
};
use crate::program::{IMAGE, INPUTS, Shape, Slot};

/// The intermediates of a batch and their gradients.
#[derive(Debug)]
pub struct Workspace {
    images: Activations,
    conditions: Activations,
    /// The gradient with respect to each slot, before its SiLU; slots of inputs have none.
    gradients: Vec<Vec<Row>>,
    of_row: Vec<usize>,
    output: Slot,
}

/// The weights with the state of their optimiser.
#[derive(Clone, Debug)]
pub struct Training {
    /// The weights.
    pub weights: Packed,
    /// The moving average of their gradients.
    pub first: Packed,
    /// The moving average of their squared gradients.
    pub second: Packed,
    /// The moving average of the weights.
    pub ema: Packed,
}

impl CpuNetwork {
    /// Buffers for training on batches of `batch` images.
    #[must_use]
    pub fn workspace(&self, batch: usize) -> Workspace {
        let shapes = &self.plan.shapes;
        let mut sides = [true, false].map(|of_image| {
            let mut slots = Activations::default();
            slots.resize(batch, shapes, |slot| self.plan.of_image[slot] == of_image);
            slots
        });
        for layer in self.plan.layers().filter(|layer| layer.silu) {
            let side = usize::from(!self.plan.of_image[layer.out]);
            sides[side].slopes[layer.out] = vec![Row::ZERO; shapes[layer.out].panels() * batch];
        }
        let gradient = |(slot, shape): (usize, &Shape)| {
            vec![Row::ZERO; if slot < INPUTS { 0 } else { shape.panels() * batch }]
        };
        let [images, conditions] = sides;
        Workspace {
            images,
            conditions,
            gradients: shapes.iter().enumerate().map(gradient).collect(),
            of_row: (0..batch).collect(),
            output: self.plan.output,
        }
    }

    /// Runs the network on the images in [`Workspace::input_mut`], with a timestep and a class for each. The
    /// raw output is in [`Workspace::output_and_gradient`] then.
    ///
    /// # Panics
    ///
    /// If a length does not fit the workspace, or a timestep or a class is out of range.
    pub fn forward(&self, weights: &Packed, ws: &mut Workspace, t: &[usize], labels: &[u32]) {
        let batch = ws.of_row.len();
        assert_eq!((t.len(), labels.len()), (batch, batch));
        let conditions = std::iter::zip(t.iter().copied(), labels.iter().copied());
        self.run_conditions(weights, &mut ws.conditions, conditions);
        let conditions = Conditions { slots: &ws.conditions, of_row: &ws.of_row };
        self.run_images(weights, &mut ws.images, conditions);
    }

    /// Computes the gradient of every weight, given that of the output in
    /// [`Workspace::output_and_gradient`], for the batch of the last [`CpuNetwork::forward`], and takes an
    /// optimiser's step with it at once: a gradient is never all in memory.
    ///
    /// # Panics
    ///
    /// If the training state is that of another network.
    pub fn backward(&self, training: &mut Training, ws: &mut Workspace, step: AdamwEma) {
        let mut unread = self.plan.readers();
        let mut written = vec![false; self.plan.shapes.len()];
        let slopes: Vec<&[Row]> = std::iter::zip(&ws.images.slopes, &ws.conditions.slopes)
            .map(|(image, condition)| if image.is_empty() { condition } else { image }.as_slice())
            .collect();
        let Training { weights, first, second, ema } = training;
        for packed in [&*weights, first, second, ema] {
            let lengths = packed.0.iter().map(Vec::len);
            assert!(lengths.eq(self.plan.layers().map(Layer::rows)), "the state is of another network");
        }
        let state = weights.0.iter_mut().zip(&mut first.0).zip(&mut second.0).zip(&mut ema.0);
        let layers: Vec<_> = self.plan.layers().zip(state).collect();
        for (layer, (((weight, first), second), ema)) in layers.into_iter().rev() {
            let side = if self.plan.of_image[layer.x] { &ws.images } else { &ws.conditions };
            let (images, rows) = (side.rows, side.rows * layer.patches);
            let upstream = std::mem::take(&mut ws.gradients[layer.out]);
            // All that has flowed into a slot passes through its SiLU once, with the last of it.
            let mut last_slope = |slot: usize| {
                unread[slot] -= 1;
                if unread[slot] == 0 { slopes[slot] } else { &[] }
            };
            if layer.x >= INPUTS {
                let gradient = &mut ws.gradients[layer.x];
                if !std::mem::replace(&mut written[layer.x], true) {
                    gradient.fill(Row::ZERO);
                }
                input_gradient(layer, weight, &upstream, gradient, last_slope(layer.x), rows);
            }
            let state = [weight, first, second, ema].map(Vec::as_mut_slice);
            update(layer, state, &upstream, &side.values[layer.x], rows, step);
            if let Some(slot) = layer.add {
                let slope = last_slope(slot);
                let gradient = &mut ws.gradients[slot];
                let first = !std::mem::replace(&mut written[slot], true);
                if upstream.len() == gradient.len() && first {
                    // Nobody needs it where it was.
                    ws.gradients[layer.out] = std::mem::replace(gradient, upstream);
                } else {
                    if first {
                        gradient.fill(Row::ZERO);
                    }
                    // A condition is added to all patches of an image.
                    let patches = upstream.len().div_euclid(gradient.len().max(1));
                    let panels = gradient.par_chunks_mut(images);
                    panels.zip(upstream.par_chunks(patches * images)).for_each(|(gradient, upstream)| {
                        upstream.chunks(images).for_each(|upstream| add(gradient, upstream));
                    });
                    ws.gradients[layer.out] = upstream;
                }
                if !slope.is_empty() {
                    Arch::new().dispatch(Multiply { to: &mut ws.gradients[slot], by: slope });
                }
            } else {
                ws.gradients[layer.out] = upstream;
            }
        }
    }
}

impl Workspace {
    /// Where the noised images go: for each entry of [`CpuNetwork::order`] a row for each image.
    #[must_use]
    pub fn input_mut(&mut self) -> &mut [Row] {
        &mut self.images.values[IMAGE]
    }

    /// The output, and where to put the gradient of the loss with respect to it, both in panels.
    #[must_use]
    pub fn output_and_gradient(&mut self) -> (&[Row], &mut [Row]) {
        (&self.images.values[self.output], &mut self.gradients[self.output])
    }
}

/// ∂x += ∂out · W for each panel of inputs, and then times `slope` if there is one.
fn input_gradient(
    layer: &Layer,
    weight: &[Row],
    upstream: &[Row],
    gradient: &mut [Row],
    slope: &[Row],
    rows: usize,
) {
    let outputs = layer.outputs.panels() * PANEL;
    gradient.par_chunks_mut(rows).enumerate().for_each_init(
        || vec![Row::ZERO; outputs],
        |transposed, (panel, gradient)| {
            transpose(weight, layer.stride(), panel * PANEL, transposed);
            Arch::new().dispatch(Product {
                weight: transposed,
                stride: outputs,
                x: upstream,
                batch: rows,
                out: gradient,
                // What the next panel's transpose reads.
                next: Next { rows: weight, first: (panel + 1) * PANEL, stride: layer.stride() },
            });
            if !slope.is_empty() {
                Arch::new().dispatch(Multiply { to: gradient, by: &slope[panel * rows..][..rows] });
            }
        },
    );
}

/// The gradient ∂outᵀ · x of each panel of a weight and of its bias, and the optimiser's step with it, for
/// the weight, its moments and its average.
fn update(
    layer: &Layer,
    [weight, first, second, ema]: [&mut [Row]; 4],
    upstream: &[Row],
    x: &[Row],
    rows: usize,
    step: AdamwEma,
) {
    let stride = layer.stride();
    let state = weight
        .par_chunks_mut(stride)
        .zip(first.par_chunks_mut(stride))
        .zip(second.par_chunks_mut(stride))
        .zip(ema.par_chunks_mut(stride));
    state.zip(upstream.par_chunks(rows)).for_each(|((((weight, first), second), ema), upstream)| {
        let (weight, bias) = weight.split_at_mut(stride - 1);
        let (first, first_bias) = first.split_at_mut(stride - 1);
        let (second, second_bias) = second.split_at_mut(stride - 1);
        let (ema, ema_bias) = ema.split_at_mut(stride - 1);
        if layer.bias.is_some() {
            let gradient = upstream.iter().fold(Row::ZERO, |total, row| sum(&total, row));
            let step = AdamwEma { keep: 1.0, ..step };
            adamw_ema(step, &[gradient], [bias, first_bias, second_bias, ema_bias]);
        }
        Arch::new().dispatch(WeightGradient { upstream, x, weight, first, second, ema, step });
    });
}
