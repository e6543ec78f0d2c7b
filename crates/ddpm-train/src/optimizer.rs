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

use candle_core::{Tensor, Var, backprop::GradStore};
use ddpm_kernels::{AdamwEma, StatePart};
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
    /// PyTorch's β₁ and eps, without decay: there are more images than a small network can remember. With β₂ = 0.99 no
    /// gradient, however large, moves a weight by more than about the learning rate, and it is soon forgotten.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0 }
    }
}

/// The numbers of one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepSize {
    config: AdamWConfig,
    learning_rate: f64,
    /// 1 − β₁ᵏ and 1 − β₂ᵏ, which correct moments that began at zero.
    corrections: [f64; 2],
    /// The part of the old average that is kept.
    ema_decay: f64,
}

impl StepSize {
    /// The numbers of step number `step`, from 0.
    ///
    /// The average warms up: its decay is at most (1 + k)/(10 + k) at step k, so that it does not hang on
    /// the initial weights.
    pub(crate) fn new(config: AdamWConfig, step: u64, learning_rate: f64, ema_decay: f64) -> Self {
        let k = step as f64;
        Self {
            config,
            learning_rate,
            corrections: [config.beta1, config.beta2].map(|beta| 1.0 - beta.powf(k + 1.0)),
            ema_decay: ema_decay.min((1.0 + k) / (10.0 + k)),
        }
    }

    /// What a weight of this rank keeps: only matrices decay.
    fn keep(&self, rank: usize) -> f64 {
        if rank > 1 { 1.0 - self.learning_rate * self.config.weight_decay } else { 1.0 }
    }

    /// The same numbers for the kernels of a CPU.
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

/// The name of a part of a parameter's state, as in a checkpoint.
pub(crate) fn state_name(part: StatePart, parameter: &str) -> String {
    let part = match part {
        StatePart::Ema => "ema",
        StatePart::First => "first",
        StatePart::Second => "second",
        StatePart::Weights => "weights",
    };
    format!("{part}/{parameter}")
}

/// Weights and state as tensors of a device.
#[derive(Debug)]
pub(crate) struct TensorAdamW {
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    name: String,
    weight: Var,
    first: Tensor,
    second: Tensor,
    ema: Tensor,
}

impl TensorAdamW {
    pub(crate) fn new(weights: Vec<(String, Var)>) -> Result<Self> {
        let slots = weights
            .into_iter()
            .map(|(name, weight)| {
                let (first, second) = (weight.zeros_like()?, weight.zeros_like()?);
                let ema = weight.as_detached_tensor().copy()?;
                Ok(Slot { name, weight, first, second, ema })
            })
            .collect::<Result<_>>()?;
        Ok(Self { slots })
    }

    pub(crate) fn step(&mut self, gradients: &GradStore, size: StepSize) -> Result<()> {
        let StepSize { config: AdamWConfig { beta1, beta2, eps, .. }, learning_rate, corrections, ema_decay } =
            size;
        for Slot { weight, first, second, ema, .. } in &mut self.slots {
            let Some(gradient) = gradients.get(weight) else { continue };
            // Detached, or the state would hold on to the graph of every step before.
            let gradient = gradient.detach();
            *first = ((&*first * beta1)? + (&gradient * (1.0 - beta1))?)?;
            *second = ((&*second * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
            let root = ((second.sqrt()? * (1.0 / corrections[1].sqrt()))? + eps)?;
            let change = ((&*first * (learning_rate / corrections[0]))? / root)?;
            let old = weight.as_detached_tensor();
            weight.set(&((&old * size.keep(old.rank()))? - change)?)?;
            *ema = ((&*ema * ema_decay)? + (weight.as_detached_tensor() * (1.0 - ema_decay))?)?;
        }
        Ok(())
    }

    pub(crate) fn part(&self, part: StatePart) -> Result<Vec<(String, Tensor)>> {
        let tensor = |slot: &Slot| {
            let tensor = match part {
                // A copy: the variable's own memory changes with the next step.
                StatePart::Weights => slot.weight.as_detached_tensor().copy()?,
                StatePart::First => slot.first.clone(),
                StatePart::Second => slot.second.clone(),
                StatePart::Ema => slot.ema.clone(),
            };
            Ok((slot.name.clone(), tensor))
        };
        self.slots.iter().map(tensor).collect()
    }

    pub(crate) fn restore(&mut self, get: impl Fn(&str, &[usize]) -> Result<Tensor>) -> Result<()> {
        for slot in &mut self.slots {
            let device = slot.weight.device().clone();
            let part = |part: StatePart| -> Result<Tensor> {
                Ok(get(&state_name(part, &slot.name), slot.weight.dims())?.to_device(&device)?)
            };
            (slot.first, slot.second) = (part(StatePart::First)?, part(StatePart::Second)?);
            slot.ema = part(StatePart::Ema)?;
            let weight = part(StatePart::Weights)?;
            slot.weight.set(&weight)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use candle_nn::{Optimizer, ParamsAdamW};

    use super::*;

    const DECAY: f64 = 0.9;

    /// Ten steps of both of ours and of candle-nn's AdamW on the same gradients, a matrix with decay.
    #[test]
    fn both_paths_take_the_steps_of_candle_nn() {
        let config = AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() };
        let start: Vec<f32> = (0..12).map(|i| (i as f32).sin()).collect();
        let var = || Var::from_slice(&start, (3, 4), &Device::Cpu).unwrap();
        let (reference, ours) = (var(), var());
        let params = ParamsAdamW { lr: 0.01, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1 };
        let mut theirs = candle_nn::AdamW::new(vec![reference.clone()], params).unwrap();
        let mut tensor = TensorAdamW::new(vec![("w".to_owned(), ours.clone())]).unwrap();
        let mut host = [start.clone(), vec![0.0; 12], vec![0.0; 12], start.clone()];
        let mut ema: Vec<f64> = start.iter().map(|&x| f64::from(x)).collect();

        for step in 0..10 {
            let loss = |var: &Var| {
                let scale = Tensor::arange(0.0_f32, 12.0, &Device::Cpu).unwrap().reshape((3, 4)).unwrap();
                ((var.as_tensor() - 0.3).unwrap() * scale).unwrap().sqr().unwrap().sum_all().unwrap()
            };
            let size = StepSize::new(config, step, 0.01, DECAY);
            let gradients = loss(&ours).backward().unwrap();
            let gradient: Vec<f32> = gradients.get(&ours).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let [weights, first, second, average] = &mut host;
            for (i, &gradient) in gradient.iter().enumerate() {
                let (weight, first, second) = (&mut weights[i], &mut first[i], &mut second[i]);
                size.rounded().update(gradient, weight, first, second, &mut average[i]);
            }
            tensor.step(&gradients, size).unwrap();
            theirs.step(&loss(&reference).backward().unwrap()).unwrap();

            let values = |t: &Tensor| -> Vec<f64> {
                t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
            };
            let expected = values(&reference);
            let decay = DECAY.min((1.0 + step as f64) / (10.0 + step as f64));
            for (ema, w) in ema.iter_mut().zip(&expected) {
                *ema = decay * *ema + (1.0 - decay) * w;
            }
            let close = |found: Vec<f64>, expected: &[f64], what: &str| {
                for (a, b) in found.iter().zip(expected) {
                    assert!((a - b).abs() < 2e-6, "{what} at step {step}: {a} {b}");
                }
            };
            close(values(&ours), &expected, "tensors");
            close(host[0].iter().map(|&x| f64::from(x)).collect(), &expected, "host");
            close(values(&tensor.part(StatePart::Ema).unwrap()[0].1), &ema, "average of tensors");
            close(host[3].iter().map(|&x| f64::from(x)).collect(), &ema, "average on the host");
        }
    }
}
