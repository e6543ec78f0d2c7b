//! The backward pass: the gradient of every weight, fused with the optimizer step.

use pulp::Arch;
use rayon::prelude::*;

use crate::{
    AdamwEma, Network, Program, StatePart, Weights,
    elementwise::{Multiply, add, sum},
    optimizer::Update,
    panel::{PANEL, Row, transpose},
    plan::Layer,
    product::{Next, Product, WeightGradient},
    train::Workspace,
};

impl Network {
    /// Computes the gradient of every weight for the batch of the last forward pass, from the gradient of the output.
    /// Each piece of a gradient is used for the optimizer step at once, so no whole gradient is kept in memory.
    pub(crate) fn backward(&self, state: &mut [Weights; 4], ws: &mut Workspace, step: AdamwEma) {
        let mut unread = self.plan.readers();
        let mut written = vec![false; self.plan.shapes.len()];
        let slopes: Vec<&[Row]> = std::iter::zip(&ws.images.slopes, &ws.conditions.slopes)
            .map(|(image, condition)| if image.is_empty() { condition } else { image }.as_slice())
            .collect();
        for (at, layer) in self.plan.layers().enumerate().collect::<Vec<_>>().into_iter().rev() {
            let side = if self.plan.of_image[layer.x] { &ws.images } else { &ws.conditions };
            let (images, rows) = (side.rows, side.rows * layer.patches);
            let upstream = std::mem::take(&mut ws.gradients[layer.out]);
            // The sum of all gradients of a slot is multiplied by the slope of its SiLU once: together with the last
            // term of the sum.
            let mut last_slope = |slot: usize| {
                unread[slot] -= 1;
                if unread[slot] == 0 { slopes[slot] } else { &[] }
            };
            if layer.x >= Program::INPUTS {
                let gradient = &mut ws.gradients[layer.x];
                if !std::mem::replace(&mut written[layer.x], true) {
                    gradient.fill(Row::ZERO);
                }
                let weight = &state[StatePart::Weights as usize].0[at];
                input_gradient(layer, weight, &upstream, gradient, last_slope(layer.x), rows);
            }
            let state = state.each_mut().map(|part| part.0[at].as_mut_slice());
            update(layer, state, &upstream, &side.values[layer.x], rows, step);
            if let Some(slot) = layer.add {
                let slope = last_slope(slot);
                let gradient = &mut ws.gradients[slot];
                let first = !std::mem::replace(&mut written[slot], true);
                if upstream.len() == gradient.len() && first {
                    // The upstream buffer is not needed any more, so swap it in instead of copying it.
                    ws.gradients[layer.out] = std::mem::replace(gradient, upstream);
                } else {
                    if first {
                        gradient.fill(Row::ZERO);
                    }
                    // The forward pass added this slot to all patches of an image, so sum over the patches.
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

/// ∂x += ∂out · W for each panel of inputs, then ∂x *= `slope` if `slope` is not empty.
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
                // The rows that the transpose of the next panel reads.
                next: Next { rows: weight, first: (panel + 1) * PANEL, stride: layer.stride() },
            });
            if !slope.is_empty() {
                Arch::new().dispatch(Multiply { to: gradient, by: &slope[panel * rows..][..rows] });
            }
        },
    );
}

/// For each panel of a weight and its bias: computes the gradient ∂outᵀ · x and takes the optimizer step, which updates
/// the weight, its moments and its average.
fn update(layer: &Layer, state: [&mut [Row]; 4], upstream: &[Row], x: &[Row], rows: usize, step: AdamwEma) {
    let stride = layer.stride();
    let [a, b, c, d] = state.map(|part| part.par_chunks_mut(stride));
    a.zip(b).zip(c.zip(d)).zip(upstream.par_chunks(rows)).for_each(|(((a, b), (c, d)), upstream)| {
        let [a, b, c, d] = [a, b, c, d].map(|panel| panel.split_at_mut(stride - 1));
        if layer.bias.is_some() {
            let gradient = &[upstream.iter().fold(Row::ZERO, |total, row| sum(&total, row))];
            let step = AdamwEma { keep: 1.0, ..step };
            Arch::new().dispatch(Update { step, gradient, state: [a.1, b.1, c.1, d.1] });
        }
        Arch::new().dispatch(WeightGradient { upstream, x, step, state: [a.0, b.0, c.0, d.0] });
    });
}
