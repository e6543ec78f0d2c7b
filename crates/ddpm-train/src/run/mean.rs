//! Sums and means of losses.

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The sum of a number of losses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sum {
    pub(super) sum: f64,
    pub(super) count: f64,
}

/// A running mean of losses in f32, whose sum stays on the device until it is read.
#[derive(Default)]
pub(super) struct Mean {
    sum: Option<Tensor>,
    count: f64,
}

impl Mean {
    /// Continues a mean from its [`Mean::sum`].
    #[allow(clippy::cast_possible_truncation, reason = "it was an f32")]
    pub(super) fn from_sum(Sum { sum, count }: Sum, device: &Device) -> Result<Self> {
        let sum = (count > 0.0).then(|| Tensor::new(sum as f32, device)).transpose()?;
        Ok(Self { sum, count })
    }

    /// Adds the loss of a step.
    pub(super) fn add(&mut self, loss: &Tensor) -> Result<()> {
        self.sum = Some(match self.sum.take() {
            Some(sum) => (sum + loss)?,
            None => loss.clone(),
        });
        self.count += 1.0;
        Ok(())
    }

    /// The sum, which must be finite, of the losses up to a step.
    pub(super) fn sum(&self, step: u64) -> Result<Sum> {
        let Some(sum) = &self.sum else { return Ok(Sum::default()) };
        // Converts on the CPU, since not every device supports f64.
        let sum = sum.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        if sum.is_finite() {
            Ok(Sum { sum, count: self.count })
        } else {
            Err(Error::Diverged { step, loss: sum })
        }
    }
}
