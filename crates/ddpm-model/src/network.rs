//! The network carried out with tensors: this path serves every device, and autograd.

use std::collections::HashMap;

use candle_core::{D, DType, Device, Result, Tensor, bail};
use candle_nn::{Embedding, Linear, Module};

use crate::{
    DenoiserConfig,
    embedding::sinusoids,
    program::{Feature, Op, Program},
};

/// A network on tensors.
#[derive(Debug)]
pub(crate) struct TensorNetwork {
    program: Program,
    weights: Vec<Tensor>,
    /// The sinusoids of every timestep, [T, E].
    times: Tensor,
    /// The rows of the identity, [classes + 1, classes + 1].
    one_hot: Tensor,
}

impl TensorNetwork {
    /// Takes the weights by name, all of which are there, for a schedule of `steps` timesteps.
    pub(crate) fn new(
        config: &DenoiserConfig,
        steps: usize,
        weights: &HashMap<String, Tensor>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let program = Program::new(config);
        let weights =
            program.parameters.iter().filter_map(|parameter| weights.get(&parameter.name).cloned()).collect();
        let times = sinusoids(steps, program.embedding);
        let times = Tensor::from_vec(times, (steps, program.embedding), &Device::Cpu)?;
        Ok(Self {
            times: times.to_dtype(dtype)?.to_device(device)?,
            one_hot: Tensor::eye(config.num_classes + 1, dtype, device)?,
            program,
            weights,
        })
    }

    /// The raw output for `x_t` [B, pixels], timesteps `t` [B] and classes `labels` [B], both u32.
    pub(crate) fn forward(&self, x_t: &Tensor, t: &Tensor, labels: &Tensor) -> Result<Tensor> {
        let mut slots: Vec<Tensor> = self
            .program
            .inputs
            .iter()
            .map(|features| {
                let parts = features.iter().map(|feature| match feature {
                    Feature::Image => Ok(x_t.clone()),
                    Feature::Time => self.times.index_select(t, 0),
                    Feature::Class => self.one_hot.index_select(labels, 0),
                });
                Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, D::Minus1)
            })
            .collect::<Result<_>>()?;
        for op in &self.program.ops {
            let result = match *op {
                Op::Linear { x, weight, add, .. } => {
                    let (weight, bias) = (self.weights[weight].clone(), self.weights[weight + 1].clone());
                    let result = Linear::new(weight, Some(bias)).forward(&slots[x])?;
                    match add {
                        Some(add) => (result + &slots[add])?,
                        None => result,
                    }
                }
                Op::Silu { x, .. } => slots[x].silu()?,
                Op::Class { table, add, .. } => {
                    let table = Embedding::new(self.weights[table].clone(), self.program.widths[add]);
                    (&slots[add] + table.forward(labels)?)?
                }
            };
            // Operations write their slots in order, so the new one is the next.
            slots.push(result);
        }
        slots.pop().map_or_else(|| bail!("a network without operations"), Ok)
    }
}
