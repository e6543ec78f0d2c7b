//! The network carried out with tensors: this path serves every device, and autograd.

use std::collections::HashMap;

use candle_core::{D, DType, Device, Result, Tensor, bail};
use candle_nn::{Embedding, Linear, Module};
use ddpm_core::NoiseSchedule;

use crate::{
    Belief, DenoiserConfig,
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
    /// √ᾱ and 1−ᾱ of every timestep, [T, 1] each.
    signals: Tensor,
    noises: Tensor,
}

impl TensorNetwork {
    /// Takes the weights by name, all of which are there.
    pub(crate) fn new(
        config: &DenoiserConfig,
        schedule: &NoiseSchedule,
        weights: &HashMap<String, Tensor>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let program = Program::new(config);
        let weights =
            program.parameters.iter().filter_map(|parameter| weights.get(&parameter.name).cloned()).collect();
        let (steps, embedding) = (schedule.num_train_timesteps(), program.widths[TIME]);
        let column = |f: fn(f64) -> f64| {
            let column: Vec<f64> = schedule.alphas_cumprod().iter().map(|&alpha_bar| f(alpha_bar)).collect();
            Tensor::from_vec(column, (steps, 1), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
        };
        let times = Tensor::from_vec(sinusoids(steps, embedding), (steps, embedding), &Device::Cpu)?;
        Ok(Self {
            times: times.to_dtype(dtype)?.to_device(device)?,
            one_hot: Tensor::eye(config.num_classes + 1, dtype, device)?,
            signals: column(f64::sqrt)?,
            noises: column(|alpha_bar| 1.0 - alpha_bar)?,
            program,
            weights,
        })
    }

    /// The output for `x_t` [B, pixels], timesteps `t` [B] and classes `labels` [B], both u32, and the belief of
    /// a Gaussian head.
    pub(crate) fn forward(
        &self,
        x_t: &Tensor,
        t: &Tensor,
        labels: &Tensor,
    ) -> Result<(Tensor, Option<Belief>)> {
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
        let Some(spread) = self.program.spread else {
            return slots
                .pop()
                .map_or_else(|| bail!("a network without operations"), |output| Ok((output, None)));
        };
        let (m, u) = (&slots[self.program.output()], &slots[spread]);
        let (signal, noise) = (self.signals.index_select(t, 0)?, self.noises.index_select(t, 0)?);
        let p = candle_nn::ops::sigmoid(&u.broadcast_sub(&noise.log()?)?)?;
        let surprise = (x_t - m.broadcast_mul(&signal)?)?;
        let x_start = (m + (&p * surprise.broadcast_mul(&signal)?)?)?;
        Ok((m.clone(), Some(Belief { x_start, variance: p.broadcast_mul(&noise)? })))
    }
}
