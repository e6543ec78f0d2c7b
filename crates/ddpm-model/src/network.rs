//! The network carried out with tensors: this path serves every device, and autograd.

use std::collections::HashMap;

use candle_core::{D, DType, Device, Result, Tensor, bail};
use candle_nn::{Embedding, Linear, Module};

use crate::{
    DenoiserConfig,
    embedding::sinusoids,
    program::{Map, Op, Program, TIME},
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
        let embedding = program.widths[TIME];
        let times = Tensor::from_vec(sinusoids(steps, embedding), (steps, embedding), &Device::Cpu)?;
        Ok(Self {
            times: times.to_dtype(dtype)?.to_device(device)?,
            one_hot: Tensor::eye(config.num_classes + 1, dtype, device)?,
            program,
            weights,
        })
    }

    /// The raw output for `x_t` [B, pixels], timesteps `t` [B] and classes `labels` [B], both u32.
    pub(crate) fn forward(&self, x_t: &Tensor, t: &Tensor, labels: &Tensor) -> Result<Tensor> {
        // In the order of the inputs: image, time, class.
        let mut slots =
            vec![x_t.clone(), self.times.index_select(t, 0)?, self.one_hot.index_select(labels, 0)?];
        for Op { map, add, silu, .. } in &self.program.ops {
            let mut result = match map {
                Map::Linear { x, weight } => {
                    let (weight, bias) = (self.weights[*weight].clone(), self.weights[weight + 1].clone());
                    let x: Vec<&Tensor> = x.iter().map(|&slot| &slots[slot]).collect();
                    Linear::new(weight, Some(bias)).forward(&Tensor::cat(&x, D::Minus1)?)?
                }
                Map::Class { table } => {
                    let table = &self.weights[*table];
                    Embedding::new(table.clone(), table.dim(1)?).forward(labels)?
                }
            };
            if let Some(add) = add {
                result = (result + &slots[*add])?;
            }
            // Operations write their slots in order, so the new one is the next.
            slots.push(if *silu { result.silu()? } else { result });
        }
        slots.pop().map_or_else(|| bail!("a network without operations"), Ok)
    }
}
