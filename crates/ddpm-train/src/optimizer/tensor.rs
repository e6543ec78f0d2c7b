//! The optimizer for tensors on any device.

use std::{collections::BTreeMap, iter::zip};

use candle_core::{Tensor, Var, backprop::GradStore};

use super::{AdamWConfig, StepSize};
use crate::{Result, engine::GradNorm, part::Part, post_hoc_ema::SIGMA_RELS};

/// AdamW with a moving average. Each part of the state is one flat tensor with the values of all variables, so a step has few
/// operations: on a GPU, starting an operation takes longer than carrying it out.
#[derive(Debug)]
pub(crate) struct TensorAdamW {
    /// The variables, in the order of their values in the flat tensors.
    vars: Vec<(String, Var)>,
    /// The parts of the state; the weights are a copy of the variables.
    state: BTreeMap<Part, Tensor>,
    /// 1 for weights that decay, which are those of matrices, and 0 for biases.
    decays: Tensor,
}

impl TensorAdamW {
    /// Starts with these variables, at least one, which have the type f32 and are on one device.
    pub(crate) fn new(vars: Vec<(String, Var)>, parts: &[Part]) -> Result<Self> {
        let flat = |of_var: fn(&Var) -> candle_core::Result<Tensor>| {
            let tensors = vars.iter().map(|(_, var)| of_var(var)?.flatten_all());
            Tensor::cat(&tensors.collect::<candle_core::Result<Vec<_>>>()?, 0)
        };
        let weights = flat(|var| Ok(var.as_detached_tensor()))?.copy()?;
        let zeros = weights.zeros_like()?;
        let start = |&part: &Part| {
            let is_of_weights = [Part::WEIGHTS, Part::EMA].contains(&part);
            (part, if is_of_weights { weights.clone() } else { zeros.clone() })
        };
        let decays = flat(|var| if var.rank() > 1 { var.ones_like() } else { var.zeros_like() })?;
        Ok(Self { state: parts.iter().map(start).collect(), decays, vars })
    }

    /// The gradient of all variables as one tensor. It is 0 for a variable on which the loss does not depend.
    pub(crate) fn gradient(&self, gradients: &GradStore) -> Result<Tensor> {
        let flat = |(_, var): &(String, Var)| match gradients.get(var) {
            // Detached: otherwise the state would keep the computation graphs of all earlier steps.
            Some(gradient) => gradient.detach().flatten_all(),
            None => var.as_detached_tensor().zeros_like()?.flatten_all(),
        };
        let parts = self.vars.iter().map(flat).collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// Takes a step from a gradient, and returns its norm before clipping unless it is ignored. Nothing is read from the
    /// device.
    pub(crate) fn step(
        &mut self,
        gradient: Tensor,
        size: StepSize,
        norm: GradNorm,
    ) -> Result<Option<Tensor>> {
        let measured = match norm {
            GradNorm::Ignore => None,
            GradNorm::Measure | GradNorm::Clip(_) => Some(gradient.sqr()?.sum_all()?.sqrt()?),
        };
        let gradient = match (&measured, norm.max()) {
            (Some(measured), Some(max)) => {
                gradient.broadcast_mul(&(measured.recip()? * max)?.minimum(1.0)?)?
            }
            _ => gradient,
        };
        let StepSize { config: AdamWConfig { beta1, beta2, eps, .. }, learning_rate, corrections, ema_decay } =
            size;
        let [weights, first, second, ema] =
            [Part::WEIGHTS, Part::FIRST, Part::SECOND, Part::EMA].map(|part| &self.state[&part]);
        let first = ((first * beta1)? + (&gradient * (1.0 - beta1))?)?;
        let second = ((second * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
        let root = second.sqrt()?.affine(1.0 / corrections[1].sqrt(), eps)?;
        let change = ((&first * (learning_rate / corrections[0]))? / root)?;
        let decay = learning_rate * size.config.weight_decay;
        let kept =
            if decay > 0.0 { (weights - ((weights * &self.decays)? * decay)?)? } else { weights.clone() };
        let weights = (kept - change)?;
        let ema = ((ema * ema_decay)? + (&weights * (1.0 - ema_decay))?)?;
        let new = [(Part::FIRST, first), (Part::SECOND, second), (Part::WEIGHTS, weights), (Part::EMA, ema)];
        self.state.extend(new);
        self.set_vars()?;
        Ok(measured)
    }

    /// Moves the averages by power functions towards the weights.
    pub(crate) fn average(&mut self, rates: [f64; SIGMA_RELS.len()]) -> Result<()> {
        for (index, rate) in rates.into_iter().enumerate() {
            let part = Part::PowerAverage(index);
            let Some(average) = self.state.get(&part) else { continue };
            let distance = (&self.state[&Part::WEIGHTS] - average)?;
            let average = (average + (distance * rate)?)?;
            self.state.insert(part, average);
        }
        Ok(())
    }

    /// The names of the variables with the values of a part.
    pub(crate) fn part(&self, part: Part) -> Result<Vec<(String, Tensor)>> {
        let names = self.vars.iter().map(|(name, _)| name.clone());
        Ok(zip(names, self.split(&self.state[&part])?).collect())
    }

    /// The values of a part, in the order of the flat tensors.
    pub(crate) fn values(&self, part: Part) -> Result<Vec<f32>> {
        Ok(self.state[&part].to_vec1()?)
    }

    /// The inverse of [`TensorAdamW::values`].
    pub(crate) fn set_values(&mut self, part: Part, values: &[f32]) -> Result<()> {
        self.state.insert(part, Tensor::from_slice(values, values.len(), self.decays.device())?);
        if part == Part::WEIGHTS { self.set_vars() } else { Ok(()) }
    }

    /// Sets the state; `get` returns a tensor by its name in a checkpoint and its shape. If it fails, nothing changes.
    pub(crate) fn restore(&mut self, get: impl Fn(&str, &[usize]) -> Result<Tensor>) -> Result<()> {
        let part = |&part: &Part| {
            let flat = |(name, var): &(String, Var)| -> Result<Tensor> {
                Ok(get(&part.tensor_name(name), var.dims())?.flatten_all()?)
            };
            let flat = self.vars.iter().map(flat).collect::<Result<Vec<_>>>()?;
            Ok((part, Tensor::cat(&flat, 0)?.to_device(self.decays.device())?))
        };
        self.state = self.state.keys().map(part).collect::<Result<_>>()?;
        self.set_vars()
    }

    /// The values of each variable in a flat tensor, in the variable's shape.
    fn split(&self, flat: &Tensor) -> Result<Vec<Tensor>> {
        let mut start = 0;
        let part = |(_, var): &(String, Var)| {
            let part = flat.narrow(0, start, var.elem_count())?.reshape(var.shape())?;
            start += var.elem_count();
            Ok(part)
        };
        self.vars.iter().map(part).collect()
    }

    /// Sets the variables to the weights.
    fn set_vars(&self) -> Result<()> {
        for ((_, var), weight) in zip(&self.vars, self.split(&self.state[&Part::WEIGHTS])?) {
            var.set(&weight)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
