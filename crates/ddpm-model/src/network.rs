//! The tensor path: candle's tensors execute the program, on every device and with autograd.

use std::collections::HashMap;

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::{Embedding, Linear, Module};
use ddpm_core::NoiseSchedule;
use ddpm_kernels::{Map, Op, Program};

use crate::{DenoiserConfig, embedding::sinusoids};

/// A network whose weights are tensors.
#[derive(Debug)]
pub(crate) struct TensorNetwork {
    program: Program,
    weights: Vec<Tensor>,
    /// The time embedding of every timestep, [T, E].
    times: Tensor,
    /// The one-hot rows of all classes: the identity matrix, [classes + 1, classes + 1].
    one_hot: Tensor,
    /// Two index lists. The first maps each position of the patch layout to its pixel, and padding to the number of
    /// pixels; the second maps each pixel to its position. `None` if the image is a single patch.
    patches: Option<[Tensor; 2]>,
}

impl TensorNetwork {
    /// Builds the network. `weights` must hold every parameter of the configuration.
    pub(crate) fn new(
        config: &DenoiserConfig,
        schedule: &NoiseSchedule,
        weights: &HashMap<String, Tensor>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let program = config.program();
        let weights = program
            .parameters()
            .iter()
            .filter_map(|parameter| weights.get(&parameter.name).cloned())
            .collect();
        let (steps, embedding) = (schedule.num_train_timesteps(), program.shape(Program::TIME).width);
        let patches = if program.shape(Program::IMAGE).patches == 1 {
            None
        } else {
            let index = |index: &[usize]| {
                let index: Vec<u32> = index.iter().map(|&i| u32::try_from(i).unwrap_or(u32::MAX)).collect();
                Tensor::new(index, device)
            };
            let mut places = vec![0; config.pixels() + 1];
            for (place, &pixel) in program.order().iter().enumerate() {
                places[pixel] = place;
            }
            Some([index(program.order())?, index(&places[..config.pixels()])?])
        };
        let times = Tensor::from_vec(sinusoids(steps, embedding), (steps, embedding), &Device::Cpu)?;
        Ok(Self {
            times: times.to_dtype(dtype)?.to_device(device)?,
            one_hot: Tensor::eye(config.num_classes + 1, dtype, device)?,
            patches,
            program,
            weights,
        })
    }

    /// The type in which the network computes.
    pub(crate) fn dtype(&self) -> DType {
        self.times.dtype()
    }

    /// Evaluates the network on `x_t` [B, pixels] with timesteps `t` [B] and classes `labels` [B], both u32. The
    /// output has the type of `x_t`.
    pub(crate) fn forward(&self, x_t: &Tensor, t: &Tensor, labels: &Tensor) -> Result<Tensor> {
        let (batch, dtype) = (x_t.dim(0)?, x_t.dtype());
        let x_t = x_t.to_dtype(self.dtype())?;
        let image = match &self.patches {
            None => x_t,
            // Padding positions have the index after the last pixel, which holds a zero.
            Some([pixels, _]) => x_t.pad_with_zeros(1, 0, 1)?.index_select(pixels, 1)?,
        };
        // In the order of the inputs: image, time, class. All are [B, patches · width].
        let mut slots = vec![image, self.times.index_select(t, 0)?, self.one_hot.index_select(labels, 0)?];
        for Op { map, patches, add, silu, .. } in self.program.ops() {
            let mut result = match map {
                Map::Linear { x, weight } => {
                    let (weight, bias) = (self.weights[*weight].clone(), self.weights[weight + 1].clone());
                    let x = x.iter().map(|&slot| slots[slot].reshape((batch * patches, ())));
                    let x = x.collect::<Result<Vec<_>>>()?;
                    Linear::new(weight, Some(bias)).forward(&Tensor::cat(&x, D::Minus1)?)?
                }
                Map::Class { table } => {
                    let table = &self.weights[*table];
                    Embedding::new(table.clone(), table.dim(1)?).forward(labels)?
                }
            };
            // As [B, patches, width]: a slot `add` with one patch is broadcast to all patches.
            result = result.reshape((batch, *patches, ()))?;
            if let Some(add) = add {
                let shared = if self.program.shape(*add).patches == *patches { *patches } else { 1 };
                result = result.broadcast_add(&slots[*add].reshape((batch, shared, ()))?)?;
            }
            let result = result.reshape((batch, ()))?;
            // Operations write their slots in order, so the result is the next slot.
            slots.push(if *silu { result.silu()? } else { result });
        }
        let output = &slots[slots.len() - 1];
        match &self.patches {
            None => output.to_dtype(dtype),
            Some([_, places]) => output.index_select(places, 1)?.to_dtype(dtype),
        }
    }
}
