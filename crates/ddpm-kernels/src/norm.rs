//! Training steps with the whole gradient in memory: its norm, and clipping.

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

impl Network {
    /// The backward pass into `gradient`, then the optimizer step. Returns the norm of the gradient. If it is larger than
    /// `max_norm`, the step uses the gradient multiplied by `max_norm` / norm (Pascanu et al. 2013, arXiv 1211.5063).
    /// Without clipping the result is the same bits as [`Network::backward`] gives.
    pub(crate) fn backward_with_norm(
        &self,
        state: &mut [Weights; 4],
        gradient: &mut Weights,
        workspace: &mut Workspace,
        step: AdamwEma,
        max_norm: Option<f64>,
    ) -> f64 {
        let first = StatePart::First as usize;
        std::mem::swap(&mut state[first], gradient);
        self.backward(state, workspace, GRADIENT);
        std::mem::swap(&mut state[first], gradient);
        // Sums in a fixed order, so that the norm does not depend on the number of threads. Padding is 0.
        let square = |row: &Row| row.0.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        let sums = self.plan.layers().zip(&gradient.0).map(|(layer, rows)| -> f64 {
            let panels = rows.par_chunks(layer.stride()).map(|panel| panel.iter().map(square).sum::<f64>());
            panels.collect::<Vec<f64>>().into_iter().sum()
        });
        let norm = sums.sum::<f64>().sqrt();
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
