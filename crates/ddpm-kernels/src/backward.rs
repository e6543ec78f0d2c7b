//! The backward pass: the gradient of every weight, fused with the optimizer step.

use std::{iter::zip, mem::take};

use pulp::Arch;
use rayon::prelude::*;

use crate::{
    AdamwEma, Network, Program, Slot, StatePart, Weights,
    elementwise::{Multiply, add, sum},
    optimizer::Update,
    panel::{PANEL, Row, transpose},
    plan::{Layer, Plan},
    product::{PAIR, Product, group},
    stage::{Strip, split, strips},
    train::Workspace,
    weight_gradient::WeightGradient,
};

/// A term of the sum that is the gradient of a slot: whether it is the first term, and whether it is the last one, after
/// which the sum is multiplied by the derivative of the slot's SiLU.
#[derive(Clone, Copy, Debug)]
struct Term {
    slot: Slot,
    is_first: bool,
    is_last: bool,
}

/// The terms to which the gradient of a layer's output contributes.
#[derive(Clone, Copy, Debug)]
struct Flow {
    x: Option<Term>,
    add: Option<Term>,
}

/// The flow of gradients through the layers of a plan, in the order of the layers.
fn flows(plan: &Plan) -> Vec<Flow> {
    let mut unread = plan.readers();
    let mut written = vec![false; plan.shapes.len()];
    let mut term = |slot: Slot| {
        if slot < Program::INPUTS {
            return None;
        }
        unread[slot] -= 1;
        let is_first = !std::mem::replace(&mut written[slot], true);
        Some(Term { slot, is_first, is_last: unread[slot] == 0 })
    };
    let layers: Vec<&Layer> = plan.layers().collect();
    let flow = |layer: &&Layer| Flow { x: term(layer.x), add: layer.add.and_then(&mut term) };
    let mut flows: Vec<Flow> = layers.iter().rev().map(flow).collect();
    flows.reverse();
    flows
}

impl Network {
    /// Computes the gradient of every weight for the batch of the last forward pass, from the gradient of the output.
    /// Each piece of a gradient is used for the optimizer step at once, so no whole gradient is kept in memory.
    pub(crate) fn backward(&self, state: &mut [Weights; 4], ws: &mut Workspace, step: AdamwEma) {
        let (plan, flows) = (&self.plan, flows(&self.plan));
        let first = plan.conditions.len();
        for stage in plan.stages.iter().rev() {
            let at = first + stage.start..first + stage.end;
            let (layers, flows) = (&plan.images[stage.clone()], &flows[at.clone()]);
            let weights = &state[StatePart::Weights as usize].0[at.clone()];
            let is_divided = layers.iter().all(|layer| layer.patches > 1);
            if is_divided {
                stage_gradients(plan, layers, flows, weights, ws);
            }
            for (at, (layer, flow)) in at.zip(zip(layers, flows)).rev() {
                self.layer(at, layer, *flow, state, ws, step, is_divided);
            }
        }
        for (at, layer) in plan.conditions.iter().enumerate().rev() {
            self.layer(at, layer, flows[at], state, ws, step, false);
        }
    }

    /// The backward pass of a layer. If `has_gradients` is true, the gradients of slots of images are known already.
    #[allow(clippy::too_many_arguments, reason = "private")]
    fn layer(
        &self,
        at: usize,
        layer: &Layer,
        flow: Flow,
        state: &mut [Weights; 4],
        ws: &mut Workspace,
        step: AdamwEma,
        has_gradients: bool,
    ) {
        let is_known = |term: &Term| has_gradients && self.plan.of_image[term.slot];
        let side = if self.plan.of_image[layer.x] { &ws.images } else { &ws.conditions };
        let (images, rows) = (side.rows, side.rows * layer.patches);
        let mut upstream = take(&mut ws.gradients[layer.out]);
        if let Some(term) = flow.x.filter(|term| !is_known(term)) {
            let weight = &state[StatePart::Weights as usize].0[at];
            let slope = side.slopes[term.slot].as_slice();
            let slope = if term.is_last { slope } else { &[] };
            input_gradient(
                layer,
                weight,
                &upstream,
                &mut ws.gradients[term.slot],
                term.is_first,
                slope,
                rows,
            );
        }
        update(
            layer,
            state.each_mut().map(|part| part.0[at].as_mut_slice()),
            &upstream,
            &side.values[layer.x],
            rows,
            step,
        );
        if let Some(term) = flow.add.filter(|term| !is_known(term)) {
            let gradient = &mut ws.gradients[term.slot];
            if upstream.len() == gradient.len() && term.is_first {
                // The upstream buffer is not needed any more, so swap it in instead of copying it.
                std::mem::swap(gradient, &mut upstream);
            } else {
                if term.is_first {
                    gradient.fill(Row::ZERO);
                }
                // The forward pass added this slot to all patches of an image, so sum over the patches.
                let patches = upstream.len().div_euclid(gradient.len().max(1));
                let panels = gradient.par_chunks_mut(images);
                panels.zip(upstream.par_chunks(patches * images)).for_each(|(gradient, upstream)| {
                    upstream.chunks(images).for_each(|upstream| add(gradient, upstream));
                });
            }
            let slopes =
                if self.plan.of_image[term.slot] { &ws.images.slopes } else { &ws.conditions.slopes };
            if term.is_last && !slopes[term.slot].is_empty() {
                Arch::new().dispatch(Multiply { to: gradient, by: &slopes[term.slot] });
            }
        }
        ws.gradients[layer.out] = upstream;
    }
}

/// The gradients of all slots of images that the layers of a stage read, strip by strip.
fn stage_gradients(plan: &Plan, layers: &[Layer], flows: &[Flow], weights: &[Vec<Row>], ws: &mut Workspace) {
    let (images, patches) = (ws.images.rows, layers.first().map_or(0, |layer| layer.patches));
    let (rows, strips) = (images * patches, strips(patches, images, rayon::current_num_threads()));
    let mut slots: Vec<Slot> =
        layers.iter().flat_map(|layer| [Some(layer.out), Some(layer.x), layer.add]).flatten().collect();
    slots.retain(|&slot| slot >= Program::INPUTS && plan.of_image[slot]);
    slots.sort_unstable();
    slots.dedup();
    let mut taken: Vec<(Slot, Vec<Row>)> =
        slots.iter().map(|&slot| (slot, take(&mut ws.gradients[slot]))).collect();
    let mut tasks: Vec<(&Strip, Vec<Vec<&mut [Row]>>)> =
        strips.iter().map(|strip| (strip, Vec::new())).collect();
    for (_, gradient) in &mut taken {
        for ((_, task), part) in zip(&mut tasks, split(gradient, rows, &strips)) {
            task.push(part);
        }
    }
    let transposed: Vec<Vec<Row>> =
        zip(layers, weights).map(|(layer, weight)| layer.transposed(weight)).collect();
    let place = |slot: Slot| slots.binary_search(&slot).unwrap_or_default();
    tasks.into_par_iter().for_each(|(strip, mut gradients)| {
        for ((layer, flow), weight) in zip(layers, flows).zip(&transposed).rev() {
            for (term, weight) in [(flow.x, Some(weight)), (flow.add, None)] {
                let Some(term) = term.filter(|term| plan.of_image[term.slot]) else { continue };
                let mut to = take(&mut gradients[place(term.slot)]);
                let upstream: Vec<&[Row]> =
                    gradients[place(layer.out)].iter().map(|panel| &**panel).collect();
                match weight {
                    Some(weight) => Arch::new().dispatch(Product {
                        weight,
                        stride: upstream.len() * PANEL,
                        x: &upstream,
                        from_zero: term.is_first,
                        out: &mut to,
                    }),
                    None if term.is_first => {
                        zip(&mut to, upstream).for_each(|(to, from)| to.copy_from_slice(from))
                    }
                    None => zip(&mut to, upstream).for_each(|(to, from)| add(to, from)),
                }
                let slope = ws.images.slopes[term.slot].as_slice();
                if term.is_last && !slope.is_empty() {
                    for (to, by) in zip(&mut to, slope.chunks(rows)) {
                        Arch::new().dispatch(Multiply { to, by: &by[strip.rows.clone()] });
                    }
                }
                gradients[place(term.slot)] = to;
            }
        }
    });
    for (slot, gradient) in taken {
        ws.gradients[slot] = gradient;
    }
}

/// ∂x += ∂out · W for each panel of inputs, then ∂x *= `slope` if `slope` is not empty.
fn input_gradient(
    layer: &Layer,
    weight: &[Row],
    upstream: &[Row],
    gradient: &mut [Row],
    is_first: bool,
    slope: &[Row],
    rows: usize,
) {
    let outputs = layer.outputs.panels() * PANEL;
    let upstream: Vec<&[Row]> = upstream.chunks(rows).collect();
    let group = group(layer.inputs.panels(), rows, rayon::current_num_threads());
    gradient.par_chunks_mut(group * rows).enumerate().for_each_init(
        || vec![Row::ZERO; group * outputs],
        |transposed, (task, gradient)| {
            let first = task * group;
            let mut out: Vec<&mut [Row]> = gradient.chunks_mut(rows).collect();
            for (panel, transposed) in zip(0..out.len(), transposed.chunks_mut(outputs)) {
                transpose(weight, layer.stride(), (first + panel) * PANEL, transposed);
            }
            Arch::new().dispatch(Product {
                weight: transposed,
                stride: outputs,
                x: &upstream,
                from_zero: is_first,
                out: &mut out,
            });
            for (to, by) in zip(out, slope.chunks(rows).skip(first)) {
                Arch::new().dispatch(Multiply { to, by });
            }
        },
    );
}

/// The number of tasks into which a weight is divided at least, if it has as many panels of inputs.
const TASKS: usize = 8;

/// For each panel of a weight and its bias: computes the gradient ∂outᵀ · x and takes the optimizer step, which updates
/// the weight, its moments and its average.
fn update(layer: &Layer, state: [&mut [Row]; 4], upstream: &[Row], x: &[Row], rows: usize, step: AdamwEma) {
    let stride = layer.stride();
    let (upstream, x): (Vec<&[Row]>, Vec<&[Row]>) =
        (upstream.chunks(rows).collect(), x.chunks(rows).collect());
    let parts = TASKS.div_ceil(upstream.len().div_ceil(PAIR)).clamp(1, x.len());
    let inputs = x.len().div_ceil(parts);
    let [a, b, c, d] = state.map(|part| part.chunks_mut(stride));
    let mut panels: Vec<[&mut [Row]; 4]> =
        zip(a, b).zip(zip(c, d)).map(|((a, b), (c, d))| [a, b, c, d]).collect();
    let mut tasks = Vec::new();
    for (panels, upstream) in zip(panels.chunks_mut(PAIR), upstream.chunks(PAIR)) {
        let mut rest: Vec<[&mut [Row]; 4]> =
            panels.iter_mut().map(|panel| panel.each_mut().map(|part| &mut **part)).collect();
        for x in x.chunks(inputs) {
            let state: Vec<[&mut [Row]; 4]> = rest
                .iter_mut()
                .map(|panel| {
                    panel.each_mut().map(|part| part.split_off_mut(..x.len() * PANEL).unwrap_or_default())
                })
                .collect();
            tasks.push((upstream, x, state));
        }
        // What is left are the biases.
        tasks.push((upstream, &[], rest));
    }
    tasks.into_par_iter().for_each(|(upstream, x, mut state)| {
        if !x.is_empty() {
            return Arch::new().dispatch(WeightGradient { upstream, x, step, state: &mut state });
        }
        for (state, upstream) in zip(state, upstream).filter(|_| layer.bias.is_some()) {
            let gradient = &[upstream.iter().fold(Row::ZERO, |total, row| sum(&total, row))];
            let step = AdamwEma { keep: 1.0, ..step };
            Arch::new().dispatch(Update { step, gradient, state });
        }
    });
}
