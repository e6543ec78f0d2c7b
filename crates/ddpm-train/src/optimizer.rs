//! AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) together with the moving average of the weights.
//!
//! candle's own AdamW keeps its moments private, so that no run could be resumed exactly, and passes over
//! memory some fifteen times. Here a CPU reads and writes each number once; other devices use tensor
//! expressions of the same formula:
//!
//! ```text
//! m ← β₁m + (1−β₁)g      v ← β₂v + (1−β₂)g²
//! w ← w − lr·λ·w − lr · m/(1−β₁ᵏ) / (√(v/(1−β₂ᵏ)) + eps)
//! ema ← d·ema + (1−d)·w
//! ```

use std::sync::Mutex;

use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Tensor, Var, backprop::GradStore};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Result;

/// The constants of AdamW. The names are PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamWConfig {
    /// β₁, the decay of the mean of gradients.
    pub beta1: f64,
    /// β₂, the decay of the mean of squared gradients.
    pub beta2: f64,
    /// What keeps the division finite.
    pub eps: f64,
    /// λ, the decay of matrices; biases do not decay.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    /// PyTorch's betas and eps, without decay: there are more images than a small network can remember.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 }
    }
}

/// The optimiser's state for a list of named weights.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    ema_decay: f64,
    slots: Vec<Slot>,
}

/// A weight with its moments and its average, all of one shape.
#[derive(Debug)]
struct Slot {
    name: String,
    weight: Var,
    state: State,
}

/// Where the state is: in plain memory for a CPU, or on the device.
#[derive(Debug)]
enum State {
    Host { first: Vec<f32>, second: Vec<f32>, ema: Vec<f32> },
    Device { first: Tensor, second: Tensor, ema: Tensor },
}

/// The numbers of one step, computed in f64.
#[derive(Clone, Copy)]
struct StepSize {
    beta1: f64,
    beta2: f64,
    eps: f64,
    /// What a weight keeps: 1 − lr·λ.
    keep: f64,
    /// lr / (1 − β₁ᵏ).
    rate: f64,
    /// 1 / √(1 − β₂ᵏ).
    second_scale: f64,
    ema_decay: f64,
}

impl AdamW {
    /// Moments of zero, and an average that starts at the weights.
    ///
    /// # Errors
    ///
    /// If the tensor library fails.
    pub fn new(config: AdamWConfig, ema_decay: f64, weights: Vec<(String, Var)>) -> Result<Self> {
        let slots = weights
            .into_iter()
            .map(|(name, weight)| {
                let (zeros, ema) = (weight.zeros_like()?, weight.as_detached_tensor().copy()?);
                let state = State::new(&zeros, &zeros.copy()?, &ema)?;
                Ok(Slot { name, weight, state })
            })
            .collect::<Result<_>>()?;
        Ok(Self { config, ema_decay, slots })
    }

    /// Takes step number `step` (from 0). A weight without a gradient keeps its value.
    ///
    /// The average warms up: its decay is at most (1 + k)/(10 + k) at step k, so that it does not hang on
    /// the initial weights.
    ///
    /// # Errors
    ///
    /// If the tensor library fails.
    pub fn step(&mut self, gradients: &GradStore, step: u64, learning_rate: f64) -> Result<()> {
        let AdamWConfig { beta1, beta2, eps, weight_decay } = self.config;
        let k = step as f64;
        for slot in &mut self.slots {
            let Some(gradient) = gradients.get(&slot.weight) else { continue };
            let decay = if slot.weight.rank() > 1 { weight_decay } else { 0.0 };
            let size = StepSize {
                beta1,
                beta2,
                eps,
                keep: 1.0 - learning_rate * decay,
                rate: learning_rate / (1.0 - beta1.powf(k + 1.0)),
                second_scale: 1.0 / (1.0 - beta2.powf(k + 1.0)).sqrt(),
                ema_decay: self.ema_decay.min((1.0 + k) / (10.0 + k)),
            };
            slot.state.step(&slot.weight, gradient, size)?;
        }
        Ok(())
    }

    /// The weights' moving average, by name.
    ///
    /// # Errors
    ///
    /// If the tensor library fails.
    pub fn ema(&self) -> Result<Vec<(String, Tensor)>> {
        self.slots.iter().map(|slot| Ok((slot.name.clone(), slot.tensors()?.2))).collect()
    }

    /// Everything that a checkpoint needs: `weights/NAME`, `first/NAME`, `second/NAME`, `ema/NAME`.
    ///
    /// # Errors
    ///
    /// If the tensor library fails.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let mut list = Vec::new();
        for slot in &self.slots {
            let (first, second, ema) = slot.tensors()?;
            let weight = slot.weight.as_detached_tensor();
            for (part, tensor) in [("weights", weight), ("first", first), ("second", second), ("ema", ema)] {
                list.push((format!("{part}/{}", slot.name), tensor));
            }
        }
        Ok(list)
    }

    /// Takes up a state; `get` returns a tensor of [`AdamW::state`] by name and shape.
    ///
    /// # Errors
    ///
    /// If `get` fails or the tensor library does.
    pub fn restore(&mut self, get: impl Fn(&str, &[usize]) -> Result<Tensor>) -> Result<()> {
        for slot in &mut self.slots {
            let part = |part: &str| get(&format!("{part}/{}", slot.name), slot.weight.dims());
            slot.state = State::new(&part("first")?, &part("second")?, &part("ema")?)?;
            slot.weight.set(&part("weights")?)?;
        }
        Ok(())
    }
}

impl Slot {
    /// First moment, second moment and average as tensors of the weight's shape.
    fn tensors(&self) -> Result<(Tensor, Tensor, Tensor)> {
        match &self.state {
            State::Host { first, second, ema } => {
                let tensor =
                    |values: &[f32]| Tensor::from_slice(values, self.weight.shape(), self.weight.device());
                Ok((tensor(first)?, tensor(second)?, tensor(ema)?))
            }
            State::Device { first, second, ema } => Ok((first.clone(), second.clone(), ema.clone())),
        }
    }
}

impl State {
    fn new(first: &Tensor, second: &Tensor, ema: &Tensor) -> Result<Self> {
        if first.device().is_cpu() && first.dtype() == DType::F32 {
            let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
            return Ok(Self::Host { first: values(first)?, second: values(second)?, ema: values(ema)? });
        }
        Ok(Self::Device { first: first.clone(), second: second.clone(), ema: ema.clone() })
    }

    fn step(&mut self, weight: &Var, gradient: &Tensor, size: StepSize) -> Result<()> {
        match self {
            Self::Host { first, second, ema } => {
                let fused = Fused { size, state: Mutex::new((first, second, ema)) };
                Ok(weight.inplace_op2(&gradient.contiguous()?, &fused)?)
            }
            Self::Device { first, second, ema } => {
                let StepSize { beta1, beta2, eps, keep, rate, second_scale, ema_decay } = size;
                *first = ((&*first * beta1)? + (gradient * (1.0 - beta1))?)?;
                *second = ((&*second * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
                let change = ((&*first * rate)? / ((second.sqrt()? * second_scale)? + eps)?)?;
                weight.set(&((weight.as_tensor() * keep)? - change)?.detach())?;
                *ema = ((&*ema * ema_decay)? + (weight.as_detached_tensor() * (1.0 - ema_decay))?)?;
                Ok(())
            }
        }
    }
}

type HostState<'a> = (&'a mut Vec<f32>, &'a mut Vec<f32>, &'a mut Vec<f32>);

/// The step in one pass over memory. A mutex lends the state to an operation that is called by reference.
struct Fused<'a> {
    size: StepSize,
    state: Mutex<HostState<'a>>,
}

/// The length of a piece that one thread works on at a time; the result does not depend on it.
const CHUNK: usize = 16 * 1024;

impl InplaceOp2 for Fused<'_> {
    fn name(&self) -> &'static str {
        "adamw-ema"
    }

    fn cpu_fwd(
        &self,
        weight: &mut CpuStorage,
        weight_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (CpuStorage::F32(weight), CpuStorage::F32(gradient)) = (weight, gradient) else {
            candle_core::bail!("adamw-ema is for f32");
        };
        let (Some((w0, w1)), Some((g0, g1))) =
            (weight_layout.contiguous_offsets(), gradient_layout.contiguous_offsets())
        else {
            candle_core::bail!("adamw-ema is for contiguous weights");
        };
        let Ok(mut state) = self.state.lock() else { candle_core::bail!("adamw-ema failed before") };
        let (first, second, ema) = &mut *state;
        let size = self.size;
        weight[w0..w1]
            .par_chunks_mut(CHUNK)
            .zip(gradient[g0..g1].par_chunks(CHUNK))
            .zip(first.par_chunks_mut(CHUNK))
            .zip(second.par_chunks_mut(CHUNK))
            .zip(ema.par_chunks_mut(CHUNK))
            .for_each(|((((weight, gradient), first), second), ema)| {
                size.update(weight, gradient, first, second, ema);
            });
        Ok(())
    }
}

impl StepSize {
    /// One step of all numbers in a piece.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the constants are rounded once, to the weights' type"
    )]
    fn update(
        self,
        weight: &mut [f32],
        gradient: &[f32],
        first: &mut [f32],
        second: &mut [f32],
        ema: &mut [f32],
    ) {
        let [beta1, beta2, eps, keep, rate, second_scale, ema_decay] =
            [self.beta1, self.beta2, self.eps, self.keep, self.rate, self.second_scale, self.ema_decay]
                .map(|x| x as f32);
        let [one_minus_beta1, one_minus_beta2, one_minus_decay] =
            [1.0 - self.beta1, 1.0 - self.beta2, 1.0 - self.ema_decay].map(|x| x as f32);
        let moments = first.iter_mut().zip(second);
        for (((w, &g), (m, v)), e) in weight.iter_mut().zip(gradient).zip(moments).zip(ema) {
            *m = beta1 * *m + one_minus_beta1 * g;
            *v = beta2 * *v + one_minus_beta2 * (g * g);
            *w = keep * *w - rate * *m / (v.sqrt() * second_scale + eps);
            *e = ema_decay * *e + one_minus_decay * *w;
        }
    }
}
