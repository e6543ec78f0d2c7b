//! Training steps with the whole gradient in memory: its norm, clipping, and the exchange of gradients between processes.

use std::iter::zip;

use pulp::Arch;
use rayon::prelude::*;

use crate::{
    AdamwEma, Network, StatePart, Weights,
    optimizer::Update,
    panel::{PANEL, Row},
    train::Workspace,
};

/// An optimizer step that sets the first moment to the gradient and changes nothing else.
pub(crate) const GRADIENT: AdamwEma = AdamwEma {
    first: [0.0, 1.0],
    second: [1.0, 0.0],
    eps: 1.0,
    keep: 1.0,
    rate: 0.0,
    second_scale: 1.0,
    ema: [1.0, 0.0],
};

/// The least number of rows of a task: 64 KiB.
const TASK: usize = 1024;

impl Network {
    /// The backward pass into `gradient`, without an optimizer step.
    pub(crate) fn gradient(
        &self,
        state: &mut [Weights; 4],
        gradient: &mut Weights,
        workspace: &mut Workspace,
    ) {
        let first = StatePart::First as usize;
        std::mem::swap(&mut state[first], gradient);
        self.backward(state, workspace, GRADIENT);
        std::mem::swap(&mut state[first], gradient);
    }

    /// The norm of a gradient. It is summed in a fixed order, so it does not depend on the number of threads.
    fn norm(&self, gradient: &Weights) -> f64 {
        // Padding is 0.
        let square = |row: &Row| row.0.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        let sums = self.plan.layers().zip(&gradient.0).map(|(layer, rows)| -> f64 {
            let panels = rows.par_chunks(layer.stride()).map(|panel| panel.iter().map(square).sum::<f64>());
            panels.collect::<Vec<f64>>().into_iter().sum()
        });
        sums.sum::<f64>().sqrt()
    }

    /// The optimizer step from a whole gradient. Returns the gradient's norm. If it is larger than `max_norm`, the step uses
    /// the gradient multiplied by `max_norm` / norm. Without clipping the result of [`Network::gradient`] and this step is
    /// the same bits as that of [`Network::backward`].
    pub(crate) fn step(
        &self,
        state: &mut [Weights; 4],
        gradient: &mut Weights,
        step: AdamwEma,
        max_norm: Option<f64>,
    ) -> f64 {
        let norm = self.norm(gradient);
        #[allow(clippy::cast_possible_truncation, reason = "rounded once")]
        let scale = max_norm.filter(|&max| norm > max).map(|max| (max / norm) as f32);
        self.apply(state, gradient, step, scale);
        norm
    }

    /// The optimizer step from a whole gradient, which is multiplied by `scale` first.
    fn apply(&self, state: &mut [Weights; 4], gradient: &mut Weights, step: AdamwEma, scale: Option<f32>) {
        for (at, (layer, gradient)) in zip(self.plan.layers(), &mut gradient.0).enumerate() {
            let stride = layer.stride();
            let [a, b, c, d] = state.each_mut().map(|part| part.0[at].par_chunks_mut(stride));
            let panels = a.zip(b).zip(c.zip(d)).zip(gradient.par_chunks_mut(stride));
            panels.for_each(|(((a, b), (c, d)), gradient)| {
                if let Some(scale) = scale {
                    gradient.iter_mut().for_each(|row| (0..PANEL).for_each(|i| row.0[i] *= scale));
                }
                // The last row of a panel is the bias, which does not decay.
                let [a, b, c, d] = [a, b, c, d].map(|panel| panel.split_at_mut(stride - 1));
                let (weight, bias) = gradient.split_at(stride - 1);
                if layer.bias.is_some() {
                    let step = AdamwEma { keep: 1.0, ..step };
                    Arch::new().dispatch(Update { step, gradient: bias, state: [a.1, b.1, c.1, d.1] });
                }
                Arch::new().dispatch(Update { step, gradient: weight, state: [a.0, b.0, c.0, d.0] });
            });
        }
    }
}

impl Weights {
    /// The number of values, padding included. It depends on the network alone.
    #[must_use]
    pub fn value_count(&self) -> usize {
        self.0.iter().map(Vec::len).sum::<usize>() * PANEL
    }

    /// Copies all values to a list. Their order and the zeros between them depend on the network alone, so lists of equal
    /// networks may be added.
    ///
    /// # Panics
    ///
    /// If the list has not [`Weights::value_count`] values.
    pub fn copy_to(&self, values: &mut [f32]) {
        assert_eq!(values.len(), self.value_count(), "the number of values");
        let mut rest = values.as_chunks_mut().0;
        for rows in &self.0 {
            let to = rest.split_off_mut(..rows.len()).unwrap_or_default();
            to.par_iter_mut().with_min_len(TASK).zip(rows).for_each(|(to, from)| *to = from.0);
        }
    }

    /// The inverse of [`Weights::copy_to`].
    ///
    /// # Panics
    ///
    /// If the list has not [`Weights::value_count`] values.
    pub fn copy_from(&mut self, values: &[f32]) {
        assert_eq!(values.len(), self.value_count(), "the number of values");
        let mut rest = values.as_chunks().0;
        for rows in &mut self.0 {
            let from = rest.split_off(..rows.len()).unwrap_or_default();
            rows.par_iter_mut().with_min_len(TASK).zip(from).for_each(|(to, from)| to.0 = *from);
        }
    }
}
