//! The optimizer for the variables of any network.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var, backprop::GradStore};

use super::{AdamWConfig, StepSize, TensorAdamW};
use crate::{Error, Result, engine::GradNorm, part::Part};

/// AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) with a moving average of the weights, for the variables of any candle
/// network. Its whole state can be saved, so a resumed training takes the same steps, bit for bit on a CPU.
///
/// ```text
/// m ← β₁m + (1−β₁)g      v ← β₂v + (1−β₂)g²
/// w ← w − lr·λ·w − lr · m/(1−β₁ᵏ) / (√(v/(1−β₂ᵏ)) + eps)
/// ema ← d·ema + (1−d)·w
/// ```
///
/// Only weights of two or more dimensions decay. The decay d of the average is at most (1 + k)/(10 + k) in step k = 0, 1, …,
/// so that the initial weights lose their influence quickly. The gradient of a variable on which the loss does not depend
/// counts as 0.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::{Module, VarBuilder, VarMap, linear};
/// use ddpm_train::{AdamW, AdamWConfig};
///
/// let variables = VarMap::new();
/// let layer = linear(2, 1, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
/// let named = variables.data().lock().expect("no thread has panicked").clone();
/// let mut optimizer = AdamW::new(named, AdamWConfig::default(), 0.999)?;
///
/// let x = Tensor::new(&[[0.5_f32, -1.0], [2.0, 0.1]], &Device::Cpu)?;
/// for _ in 0..3 {
///     let loss = layer.forward(&x)?.sqr()?.mean_all()?;
///     optimizer.step(&loss.backward()?, 1e-3)?;
/// }
/// let state = optimizer.state()?; // for `candle_core::safetensors::save`
/// optimizer.restore(&state)?;
/// assert_eq!(optimizer.steps(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AdamW {
    tensors: TensorAdamW,
    config: AdamWConfig,
    ema_decay: f64,
    steps: u32,
}

/// The name of the number of steps in [`AdamW::state`].
const STEPS: &str = "steps";

impl AdamW {
    /// An optimizer of these variables, which have the type f32, are on one device and have distinct names. `ema_decay` is the
    /// decay of the moving average, at least 0 and below 1: 0.999 averages about the last 1000 steps.
    ///
    /// # Errors
    ///
    /// If there is no variable, a variable has another type, a number is outside its range, or the tensor library fails, for
    /// example because of two devices.
    pub fn new(
        variables: impl IntoIterator<Item = (String, Var)>,
        config: AdamWConfig,
        ema_decay: f64,
    ) -> Result<Self> {
        config.validate()?;
        if !(0.0..1.0).contains(&ema_decay) {
            return Err(Error::out_of_range("`ema_decay`", ema_decay, "0 to below 1"));
        }
        let mut variables: Vec<(String, Var)> = variables.into_iter().collect();
        // The order of a hash map differs between runs, and the norm of the gradient depends on the order.
        variables.sort_by(|(a, _), (b, _)| a.cmp(b));
        if variables.is_empty() {
            return Err(Error::out_of_range("the number of variables", 0, "at least 1"));
        }
        for (name, variable) in &variables {
            if variable.dtype() != DType::F32 {
                let name = format!("the type of the variable `{name}`");
                return Err(Error::out_of_range(name, variable.dtype().as_str(), "f32"));
            }
        }
        let tensors = TensorAdamW::new(variables, &Part::all(0, false))?;
        Ok(Self { tensors, config, ema_decay, steps: 0 })
    }

    /// Takes a step with this learning rate, which is 0 or more, and sets the variables.
    ///
    /// # Errors
    ///
    /// If the tensor library fails.
    pub fn step(&mut self, gradients: &GradStore, learning_rate: f64) -> Result<()> {
        let size = StepSize::new(self.config, u64::from(self.steps), learning_rate, self.ema_decay);
        self.tensors.step(self.tensors.gradient(gradients)?, size, GradNorm::Ignore)?;
        self.steps += 1;
        Ok(())
    }

    /// The number of steps taken.
    #[must_use]
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// The moving average of each variable, by the variable's name.
    ///
    /// # Errors
    ///
    /// If the tensor library fails.
    pub fn ema(&self) -> Result<HashMap<String, Tensor>> {
        Ok(self.tensors.part(Part::EMA)?.into_iter().collect())
    }

    /// The whole state with the weights: tensors named `weights/NAME`, `first/NAME` and `second/NAME` (the moments m and v),
    /// `ema/NAME`, and `steps`, a number of the type u32.
    ///
    /// # Errors
    ///
    /// If the tensor library fails.
    pub fn state(&self) -> Result<HashMap<String, Tensor>> {
        let mut state = HashMap::from([(STEPS.to_owned(), Tensor::new(self.steps, &Device::Cpu)?)]);
        for part in Part::all(0, false) {
            let named = |(name, tensor): (String, Tensor)| (part.tensor_name(&name), tensor);
            state.extend(self.tensors.part(part)?.into_iter().map(named));
        }
        Ok(state)
    }

    /// Sets the state and the variables to those of [`AdamW::state`]. If it fails before the variables are set, nothing
    /// changes.
    ///
    /// # Errors
    ///
    /// If a tensor is missing or has another shape or type, or the tensor library fails.
    pub fn restore(&mut self, state: &HashMap<String, Tensor>) -> Result<()> {
        let get = |name: &str, shape: &[usize], dtype: DType| {
            let found = state.get(name).filter(|tensor| tensor.dims() == shape && tensor.dtype() == dtype);
            let missing =
                || Error::StateTensor { name: name.to_owned(), shape: shape.to_vec(), dtype: dtype.as_str() };
            found.cloned().ok_or_else(missing)
        };
        let steps = get(STEPS, &[], DType::U32)?.to_scalar()?;
        self.tensors.restore(|name, shape| get(name, shape, DType::F32))?;
        self.steps = steps;
        Ok(())
    }
}
