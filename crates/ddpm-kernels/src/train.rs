//! Training: a batch forward, its loss, and backward with the optimizer's step.

use std::iter::zip;

use rayon::prelude::*;

use crate::{
    AdamwEma, Network, Program, Shape, StatePart, Weights,
    network::{Activations, Conditions},
    panel::{PANEL, Row},
};

/// A network in training: its weights, the state of their optimizer, and buffers for a batch.
#[derive(Debug)]
pub struct Training {
    network: Network,
    state: State,
    workspace: Workspace,
}

/// The conditions and weights of a batch; all lists have its length.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The timestep of each image.
    pub t: &'a [usize],
    /// The class of each image.
    pub classes: &'a [u32],
    /// The weight of each image's squared error.
    pub weights: &'a [f32],
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) weights: Weights,
    pub(crate) first: Weights,
    pub(crate) second: Weights,
    pub(crate) ema: Weights,
}

/// The intermediates of a batch and their gradients.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) images: Activations,
    pub(crate) conditions: Activations,
    /// The gradient with respect to each slot, before its SiLU; slots of inputs have none.
    pub(crate) gradients: Vec<Vec<Row>>,
    of_row: Vec<usize>,
}

impl Training {
    /// Starts with the given parameters, in the order of [`Program::parameters`], whose average they also are, and
    /// with moments of zero; for batches of `batch` images, at least 1.
    ///
    /// # Panics
    ///
    /// If a list is missing or too short.
    #[must_use]
    pub fn new(network: Network, parameters: &[Vec<f32>], batch: usize) -> Self {
        let weights = network.pack(parameters);
        let (first, second, ema) = (network.zeros(), network.zeros(), weights.clone());
        let workspace = Workspace::new(&network, batch);
        Self { network, state: State { weights, first, second, ema }, workspace }
    }

    /// Takes a step and returns the loss before it,
    ///
    /// ```text
    /// Σ weight(image) · (output(image, pixel) − target(image, pixel))²
    /// ```
    ///
    /// over the images of the batch and their pixels. `x` and `target` are functions of image and pixel, which are
    /// counted from 0; they are called from several threads.
    ///
    /// The loss is added up in a fixed order, so it and the weights are the same bits on any number of threads.
    ///
    /// # Panics
    ///
    /// If a list of the batch has not the length that [`Training::new`] was given, or a timestep or a class is out of
    /// range.
    pub fn step(
        &mut self,
        batch: &Batch<'_>,
        x: impl Fn(usize, usize) -> f32 + Sync,
        target: impl Fn(usize, usize) -> f32 + Sync,
        step: AdamwEma,
    ) -> f64 {
        // Inside of the pool: a thread from outside would fall asleep and be woken for each layer.
        rayon::scope(|_| self.step_in_pool(batch, &x, &target, step))
    }

    fn step_in_pool(
        &mut self,
        batch: &Batch<'_>,
        x: &(impl Fn(usize, usize) -> f32 + Sync),
        target: &(impl Fn(usize, usize) -> f32 + Sync),
        step: AdamwEma,
    ) -> f64 {
        let Self { network, state, workspace } = self;
        let images = workspace.of_row.len();
        assert_eq!((batch.t.len(), batch.classes.len(), batch.weights.len()), (images, images, images));
        let pixels = network.pixels;
        let inside = |order: &[usize; PANEL]| order.map(|pixel| if pixel < pixels { 1.0 } else { 0.0 });
        // Past the edge of an image, input and target are 0 and nothing counts.
        let input = workspace.images.values[Program::IMAGE].par_chunks_mut(images);
        input.zip(&network.order).for_each(|(rows, order)| {
            for (image, row) in rows.iter_mut().enumerate() {
                row.0 = order.map(|pixel| if pixel < pixels { x(image, pixel) } else { 0.0 });
            }
        });
        network.forward(&state.weights, workspace, batch);
        let (output, gradient) = workspace.output_and_gradient(network);
        let panels = gradient.par_chunks_mut(images).zip(output.par_chunks(images)).zip(&network.order);
        let losses: Vec<f64> = panels
            .map(|((gradient, output), order)| {
                let inside = inside(order);
                let mut sums = [0.0_f32; PANEL];
                for (image, (gradient, output)) in zip(gradient, output).enumerate() {
                    let target = order.map(|pixel| if pixel < pixels { target(image, pixel) } else { 0.0 });
                    for i in 0..PANEL {
                        let weight = inside[i] * batch.weights[image];
                        let error = output.0[i] - target[i];
                        gradient.0[i] = 2.0 * weight * error;
                        sums[i] += weight * error * error;
                    }
                }
                sums.into_iter().map(f64::from).sum()
            })
            .collect();
        network.backward(state, workspace, step);
        // In the order of the panels, whichever thread was first.
        losses.iter().sum()
    }

    /// A part of the state, as lists in the order of [`Program::parameters`].
    #[must_use]
    pub fn part(&self, part: StatePart) -> Vec<Vec<f32>> {
        let State { weights, first, second, ema } = &self.state;
        self.network.unpack(match part {
            StatePart::Weights => weights,
            StatePart::First => first,
            StatePart::Second => second,
            StatePart::Ema => ema,
        })
    }

    /// Sets a part of the state; the inverse of [`Training::part`].
    ///
    /// # Panics
    ///
    /// If a list is missing or too short.
    pub fn set_part(&mut self, part: StatePart, parameters: &[Vec<f32>]) {
        let State { weights, first, second, ema } = &mut self.state;
        let to = match part {
            StatePart::Weights => weights,
            StatePart::First => first,
            StatePart::Second => second,
            StatePart::Ema => ema,
        };
        *to = self.network.pack(parameters);
    }
}

impl Network {
    /// Runs the network on the images in the workspace.
    fn forward(&self, weights: &Weights, ws: &mut Workspace, batch: &Batch<'_>) {
        let conditions = zip(batch.t.iter().copied(), batch.classes.iter().copied());
        self.run_conditions(weights, &mut ws.conditions, conditions);
        let conditions = Conditions { slots: &ws.conditions, of_row: &ws.of_row };
        self.run_images(weights, &mut ws.images, conditions);
    }
}

impl Workspace {
    fn new(network: &Network, batch: usize) -> Self {
        let (plan, shapes) = (&network.plan, &network.plan.shapes);
        let mut sides = [true, false].map(|of_image| {
            let mut slots = Activations::default();
            slots.resize(batch, shapes, |slot| plan.of_image[slot] == of_image);
            slots
        });
        for layer in plan.layers().filter(|layer| layer.silu) {
            let side = usize::from(!plan.of_image[layer.out]);
            sides[side].slopes[layer.out] = vec![Row::ZERO; shapes[layer.out].panels() * batch];
        }
        let gradient = |(slot, shape): (usize, &Shape)| {
            vec![Row::ZERO; if slot < Program::INPUTS { 0 } else { shape.panels() * batch }]
        };
        let [images, conditions] = sides;
        Self {
            images,
            conditions,
            gradients: shapes.iter().enumerate().map(gradient).collect(),
            of_row: (0..batch).collect(),
        }
    }

    /// The output, and the place for the gradient of the loss with respect to it.
    fn output_and_gradient(&mut self, network: &Network) -> (&[Row], &mut [Row]) {
        let output = network.plan.output;
        (&self.images.values[output], &mut self.gradients[output])
    }
}

#[cfg(test)]
mod tests;
