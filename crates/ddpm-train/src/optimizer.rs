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

use candle_core::{Tensor, Var, backprop::GradStore};
use ddpm_kernels::{AdamwEma, StatePart};
use serde::{Deserialize, Serialize};

use crate::{Result, engine::GradNorm, part::Part, post_hoc_ema::SIGMA_RELS};

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

/// The optimizer for tensors: weights, moments and average on a device.
#[derive(Debug)]
pub(crate) struct TensorAdamW {
    slots: Vec<Slot>,
}

/// A parameter with its optimizer state.
#[derive(Debug)]
struct Slot {
    name: String,
    weight: Var,
    first: Tensor,
    second: Tensor,
    ema: Tensor,
    /// The averages by power functions; empty if the run has none.
    power_averages: Vec<Tensor>,
}

impl TensorAdamW {
    /// Starts with these weights. `power_averages` is the number of averages by power functions.
    pub(crate) fn new(weights: Vec<(String, Var)>, power_averages: usize) -> Result<Self> {
        let slots = weights
            .into_iter()
            .map(|(name, weight)| {
                let (first, second) = (weight.zeros_like()?, weight.zeros_like()?);
                let ema = weight.as_detached_tensor().copy()?;
                let power_averages = vec![first.clone(); power_averages];
                Ok(Slot { name, weight, first, second, ema, power_averages })
            })
            .collect::<Result<_>>()?;
        Ok(Self { slots })
    }

    /// Takes a step, and returns the norm of the gradient before clipping unless it is ignored. Nothing is read from the
    /// device.
    pub(crate) fn step(
        &mut self,
        gradients: &GradStore,
        size: StepSize,
        norm: GradNorm,
    ) -> Result<Option<Tensor>> {
        let measured = match norm {
            GradNorm::Ignore => None,
            GradNorm::Measure | GradNorm::Clip(_) => self.norm(gradients)?,
        };
        let scale = match (&measured, norm.max()) {
            (Some(measured), Some(max)) => Some((measured.recip()? * max)?.minimum(1.0)?),
            _ => None,
        };
        let StepSize { config: AdamWConfig { beta1, beta2, eps, .. }, learning_rate, corrections, ema_decay } =
            size;
        for Slot { weight, first, second, ema, .. } in &mut self.slots {
            let Some(gradient) = gradients.get(weight) else { continue };
            // Detached: otherwise the state would keep the computation graphs of all earlier steps.
            let mut gradient = gradient.detach();
            if let Some(scale) = &scale {
                gradient = gradient.broadcast_mul(scale)?;
            }
            *first = ((&*first * beta1)? + (&gradient * (1.0 - beta1))?)?;
            *second = ((&*second * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
            let root = ((second.sqrt()? * (1.0 / corrections[1].sqrt()))? + eps)?;
            let change = ((&*first * (learning_rate / corrections[0]))? / root)?;
            let old = weight.as_detached_tensor();
            weight.set(&((&old * size.keep(old.rank()))? - change)?)?;
            *ema = ((&*ema * ema_decay)? + (weight.as_detached_tensor() * (1.0 - ema_decay))?)?;
        }
        Ok(measured)
    }

    /// The norm of the gradient of all weights, a scalar; `None` if no weight has a gradient.
    fn norm(&self, gradients: &GradStore) -> Result<Option<Tensor>> {
        let mut sum: Option<Tensor> = None;
        for gradient in self.slots.iter().filter_map(|slot| gradients.get(&slot.weight)) {
            let square = gradient.detach().sqr()?.sum_all()?;
            sum = Some(match sum {
                Some(sum) => (sum + square)?,
                None => square,
            });
        }
        Ok(sum.map(|sum| sum.sqrt()).transpose()?)
    }

    /// Moves the averages by power functions towards the weights.
    pub(crate) fn average(&mut self, rates: [f64; SIGMA_RELS.len()]) -> Result<()> {
        for Slot { weight, power_averages, .. } in &mut self.slots {
            for (average, rate) in power_averages.iter_mut().zip(rates) {
                let distance = (weight.as_detached_tensor() - &*average)?;
                *average = (&*average + (distance * rate)?)?;
            }
        }
        Ok(())
    }

    pub(crate) fn part(&self, part: Part) -> Result<Vec<(String, Tensor)>> {
        let tensor = |slot: &Slot| {
            let tensor = match part {
                Part::PowerAverage(index) => slot.power_averages[index].clone(),
                // A copy, since the next step changes the variable's memory.
                Part::Step(StatePart::Weights) => slot.weight.as_detached_tensor().copy()?,
                Part::Step(StatePart::First) => slot.first.clone(),
                Part::Step(StatePart::Second) => slot.second.clone(),
                Part::Step(StatePart::Ema) => slot.ema.clone(),
            };
            Ok((slot.name.clone(), tensor))
        };
        self.slots.iter().map(tensor).collect()
    }

    pub(crate) fn restore(&mut self, get: impl Fn(&str, &[usize]) -> Result<Tensor>) -> Result<()> {
        for slot in &mut self.slots {
            let device = slot.weight.device().clone();
            let part = |part: Part| -> Result<Tensor> {
                Ok(get(&part.tensor_name(&slot.name), slot.weight.dims())?.to_device(&device)?)
            };
            let averages = (0..slot.power_averages.len()).map(|index| part(Part::PowerAverage(index)));
            slot.power_averages = averages.collect::<Result<_>>()?;
            slot.first = part(Part::Step(StatePart::First))?;
            slot.second = part(Part::Step(StatePart::Second))?;
            slot.ema = part(Part::Step(StatePart::Ema))?;
            let weight = part(Part::Step(StatePart::Weights))?;
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

    /// Ten steps of both optimizers and of candle-nn's AdamW with the same gradients, for a matrix with weight decay.
    #[test]
    fn both_paths_take_the_steps_of_candle_nn() {
        let config = AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() };
        let start: Vec<f32> = (0..12).map(|i| (i as f32).sin()).collect();
        let var = || Var::from_slice(&start, (3, 4), &Device::Cpu).unwrap();
        let (reference, ours) = (var(), var());
        let params = ParamsAdamW { lr: 0.01, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1 };
        let mut theirs = candle_nn::AdamW::new(vec![reference.clone()], params).unwrap();
        let mut tensor = TensorAdamW::new(vec![("w".to_owned(), ours.clone())], 0).unwrap();
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
            tensor.step(&gradients, size, GradNorm::Ignore).unwrap();
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
            close(values(&tensor.part(Part::Step(StatePart::Ema)).unwrap()[0].1), &ema, "average of tensors");
            close(host[3].iter().map(|&x| f64::from(x)).collect(), &ema, "average on the host");
        }
    }
}
