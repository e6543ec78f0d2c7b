//! AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) with a moving average of the weights.
//!
//! candle's own AdamW keeps its moments private, so a run could not be resumed exactly. Here the CPU kernels read and
//! write each number once, and other devices use tensor expressions of the same formula:
//!
//! ```text
//! m ← β₁m + (1−β₁)g      v ← β₂v + (1−β₂)g²
//! w ← w − lr·λ·w − lr · m/(1−β₁ᵏ) / (√(v/(1−β₂ᵏ)) + eps)
//! ema ← d·ema + (1−d)·w
//! ```

mod tensor;
mod variables;

use ddpm_kernels::AdamwEma;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

pub(crate) use tensor::TensorAdamW;
pub use variables::AdamW;

/// The hyperparameters of AdamW, except the learning rate, with PyTorch's names.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamWConfig {
    /// β₁, the decay of the first moment (the mean of gradients), from 0 to below 1.
    pub beta1: f64,
    /// β₂, the decay of the second moment (the mean of squared gradients), from 0 to below 1.
    pub beta2: f64,
    /// The number added to the denominator, so that the division stays finite; 1e-30 to 1.
    pub eps: f64,
    /// λ, the weight decay of matrices, 0 to 1; biases do not decay.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    /// β₁ and eps of PyTorch, no weight decay, and β₂ = 0.99. A small network cannot memorise the training images, so
    /// it needs no decay. With β₂ = 0.99, one large gradient affects only about a hundred later steps.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0 }
    }
}

impl AdamWConfig {
    /// Checks that each number is in its range.
    pub(crate) fn validate(&self) -> Result<()> {
        let Self { beta1, beta2, eps, weight_decay } = *self;
        let unit = |x: f64| (0.0..1.0).contains(&x);
        for (option, found, good, expected) in [
            ("beta1", beta1, unit(beta1), "0 to below 1"),
            ("beta2", beta2, unit(beta2), "0 to below 1"),
            // The lower limit keeps eps above 0 in f32.
            ("eps", eps, (1e-30..=1.0).contains(&eps), "1e-30 to 1"),
            ("weight_decay", weight_decay, (0.0..=1.0).contains(&weight_decay), "0 to 1"),
        ] {
            if !good {
                return Err(Error::out_of_range(format!("training option `{option}`"), found, expected));
            }
        }
        Ok(())
    }
}

/// The hyperparameters and coefficients of one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepSize {
    config: AdamWConfig,
    learning_rate: f64,
    /// The bias corrections 1 − β₁ᵏ and 1 − β₂ᵏ, since the moments start at zero.
    corrections: [f64; 2],
    /// The decay d of the moving average in this step.
    ema_decay: f64,
}

impl StepSize {
    /// The coefficients of step k = `step`, from 0.
    ///
    /// The moving average has a warm-up: its decay is at most (1 + k)/(10 + k) at step k, so that the initial weights
    /// lose their influence quickly.
    pub(crate) fn new(config: AdamWConfig, step: u64, learning_rate: f64, ema_decay: f64) -> Self {
        let k = step as f64;
        Self {
            config,
            learning_rate,
            corrections: [config.beta1, config.beta2].map(|beta| 1.0 - beta.powf(k + 1.0)),
            ema_decay: ema_decay.min((1.0 + k) / (10.0 + k)),
        }
    }

    /// The weight-decay factor for a parameter of this rank: below 1 for matrices, 1 for biases.
    fn keep(&self, rank: usize) -> f64 {
        if rank > 1 { 1.0 - self.learning_rate * self.config.weight_decay } else { 1.0 }
    }

    /// The same coefficients for the CPU kernels.
    #[allow(clippy::cast_possible_truncation, reason = "computed in f64 and rounded once")]
    pub(crate) fn rounded(&self) -> AdamwEma {
        let AdamWConfig { beta1, beta2, eps, .. } = self.config;
        let pair = |beta: f64| [beta as f32, (1.0 - beta) as f32];
        AdamwEma {
            first: pair(beta1),
            second: pair(beta2),
            eps: eps as f32,
            keep: self.keep(2) as f32,
            rate: (self.learning_rate / self.corrections[0]) as f32,
            second_scale: (1.0 / self.corrections[1].sqrt()) as f32,
            ema: pair(self.ema_decay),
        }
    }
}
