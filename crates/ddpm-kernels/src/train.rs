//! Training: the forward pass of a batch, its loss, and the backward pass fused with the optimizer step.

mod average;

use std::iter::zip;

use rayon::prelude::*;

use crate::{
    AdamwEma, Network, Program, Shape, StatePart, Weights,
    network::{Activations, Conditions},
    panel::{PANEL, Row},
};

/// A network in training: its weights, the optimizer state, and buffers for a batch.
#[derive(Debug)]
pub struct Training {
    network: Network,
    /// Each part of the training state, in the order of [`StatePart::ALL`].
    state: [Weights; 4],
    workspace: Workspace,
    /// The gradient of [`Training::gradient`]; empty before its first call.
    gradient: Option<Weights>,
}

/// The timestep, class and loss weight of each image of a batch; all lists have the batch's length.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The timestep of each image.
    pub t: &'a [usize],
    /// The class of each image.
    pub classes: &'a [u32],
    /// The weight of each image's squared error in the loss.
    pub weights: &'a [f32],
}

/// The intermediate results of a batch and their gradients.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) images: Activations,
    pub(crate) conditions: Activations,
    /// The gradient of the loss with respect to each slot before its SiLU; empty for input slots.
    pub(crate) gradients: Vec<Vec<Row>>,
    of_row: Vec<usize>,
}

impl Training {
    /// Starts training from `parameters`, in the order of [`Program::parameters`]. The average starts with the same
    /// values and the moments start at zero. `batch` is the number of images of every batch, at least 1.
    ///
    /// # Panics
    ///
    /// If a list is missing or too short.
    #[must_use]
    pub fn new(network: Network, parameters: &[Vec<f32>], batch: usize) -> Self {
        let weights = network.pack(parameters);
        let state = [weights.clone(), network.zeros(), network.zeros(), weights];
        Self { workspace: Workspace::new(&network, batch), network, state, gradient: None }
    }

    /// Takes an optimizer step and returns the loss before the step,
    ///
    /// ```text
    /// Σ weight(image) · (output(image, pixel) − target(image, pixel))²
    /// ```
    ///
    /// summed over the images of the batch and their pixels. `x` and `target` are functions of the indices of image and
    /// pixel, both from 0; several threads call them.
    ///
    /// The loss is summed in a fixed order, so the loss and the weights have the same bits on any number of threads.
    ///
    /// # Panics
    ///
    /// If the length of a list of the batch differs from `batch` in [`Training::new`], or a timestep or a class is out
    /// of range.
    pub fn step(
        &mut self,
        batch: &Batch<'_>,
        x: impl Fn(usize, usize) -> f32 + Sync,
        target: impl Fn(usize, usize) -> f32 + Sync,
        step: AdamwEma,
    ) -> f64 {
        // Runs inside the pool: a thread outside of it would sleep and be woken for each layer.
        rayon::scope(|_| {
            let loss = self.forward(batch, &x, &target);
            self.network.backward(&mut self.state, &mut self.workspace, step);
            loss
        })
    }

    /// [`Training::step`], which also returns the norm of the gradient, at the cost of another pass over memory. If the norm
    /// is larger than `max_norm`, the step uses the gradient multiplied by `max_norm` / norm (Pascanu et al. 2013,
    /// arXiv 1211.5063). Without clipping the weights are the same bits as after [`Training::step`].
    ///
    /// # Panics
    ///
    /// As [`Training::step`].
    pub fn step_with_norm(
        &mut self,
        batch: &Batch<'_>,
        x: impl Fn(usize, usize) -> f32 + Sync,
        target: impl Fn(usize, usize) -> f32 + Sync,
        step: AdamwEma,
        max_norm: Option<f64>,
    ) -> (f64, f64) {
        let loss = self.gradient(batch, x, target).0;
        (loss, self.step_with_gradient(step, max_norm))
    }

    /// Computes the loss and the gradient of a batch, as [`Training::step`] does, without an optimizer step. The gradient may
    /// be changed, for example added to gradients of other processes, before [`Training::step_with_gradient`].
    ///
    /// # Panics
    ///
    /// As [`Training::step`].
    pub fn gradient(
        &mut self,
        batch: &Batch<'_>,
        x: impl Fn(usize, usize) -> f32 + Sync,
        target: impl Fn(usize, usize) -> f32 + Sync,
    ) -> (f64, &mut Weights) {
        rayon::scope(|_| {
            let loss = self.forward(batch, &x, &target);
            let Self { network, state, workspace, gradient } = self;
            let gradient = gradient.get_or_insert_with(|| network.zeros());
            network.gradient(state, gradient, workspace);
            (loss, gradient)
        })
    }

    /// Takes an optimizer step from the gradient of [`Training::gradient`], and returns its norm. If the norm is larger than
    /// `max_norm`, the step uses the gradient multiplied by `max_norm` / norm. Before the first gradient, it is 0.
    pub fn step_with_gradient(&mut self, step: AdamwEma, max_norm: Option<f64>) -> f64 {
        rayon::scope(|_| {
            self.packed_gradient();
            let Self { network, state, gradient, .. } = self;
            gradient.as_mut().map_or(0.0, |gradient| network.step(state, gradient, step, max_norm))
        })
    }

    /// The forward pass; leaves the gradient of the output in the workspace and returns the loss.
    fn forward(
        &mut self,
        batch: &Batch<'_>,
        x: &(impl Fn(usize, usize) -> f32 + Sync),
        target: &(impl Fn(usize, usize) -> f32 + Sync),
    ) -> f64 {
        let Self { network, state, workspace, .. } = self;
        let images = workspace.of_row.len();
        assert_eq!((batch.t.len(), batch.classes.len(), batch.weights.len()), (images, images, images));
        let pixels = network.pixels;
        let inside = |order: &[usize; PANEL]| order.map(|pixel| if pixel < pixels { 1.0 } else { 0.0 });
        // For padding past the edge of an image, input and target are 0, and so is the weight of the error.
        let input = workspace.images.values[Program::IMAGE].par_chunks_mut(images);
        input.zip(&network.order).for_each(|(rows, order)| {
            for (image, row) in rows.iter_mut().enumerate() {
                row.0 = order.map(|pixel| if pixel < pixels { x(image, pixel) } else { 0.0 });
            }
        });
        let weights = &state[StatePart::Weights as usize];
        let conditions = zip(batch.t.iter().copied(), batch.classes.iter().copied());
        network.run_conditions(weights, &mut workspace.conditions, conditions);
        let conditions = Conditions { slots: &workspace.conditions, of_row: &workspace.of_row };
        network.run_images(weights, &mut workspace.images, conditions, true);
        let output = &workspace.images.values[network.plan.output];
        let gradient = &mut workspace.gradients[network.plan.output];
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
        // Sums in the order of the panels, which does not depend on the order of the threads.
        losses.iter().sum()
    }

    /// A part of the training state, in the order of [`Program::parameters`].
    #[must_use]
    pub fn part(&self, part: StatePart) -> Vec<Vec<f32>> {
        self.network.unpack(&self.state[part as usize])
    }

    /// The gradient of [`Training::gradient`]; 0 before its first call.
    pub fn packed_gradient(&mut self) -> &mut Weights {
        self.gradient.get_or_insert_with(|| self.network.zeros())
    }

    /// A part of the training state in the memory layout of the kernels.
    pub fn packed_part(&mut self, part: StatePart) -> &mut Weights {
        &mut self.state[part as usize]
    }

    /// Sets a part of the training state; the inverse of [`Training::part`].
    ///
    /// # Panics
    ///
    /// If a list is missing or too short.
    pub fn set_part(&mut self, part: StatePart, parameters: &[Vec<f32>]) {
        self.state[part as usize] = self.network.pack(parameters);
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
}

#[cfg(test)]
mod tests;
