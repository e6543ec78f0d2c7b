//! The forward passes, in terms of tensors: this path serves every device, and training by autograd.

use candle_core::{D, Result, Tensor};
use candle_nn::{Embedding, Linear, Module, VarBuilder};

use crate::{DenoiserConfig, Network, embedding::sinusoids};

/// The layers of either network.
#[derive(Debug)]
pub(crate) enum Layers {
    Mlp(Mlp),
    Plain(Plain),
}

/// A residual network; see [`Network::Mlp`].
#[derive(Debug)]
pub(crate) struct Mlp {
    times: Tensor,
    time: [Linear; 2],
    class: Embedding,
    input: Linear,
    blocks: Vec<Block>,
    output: Linear,
}

#[derive(Debug)]
struct Block {
    inner: Linear,
    condition: Linear,
    outer: Linear,
}

/// A chain of layers; see [`Network::Plain`].
#[derive(Debug)]
pub(crate) struct Plain {
    times: Tensor,
    one_hot: Tensor,
    layers: Vec<Linear>,
    output: Linear,
}

impl Layers {
    /// Takes the weights from `vb` for a schedule of `steps` timesteps.
    pub(crate) fn new(config: &DenoiserConfig, steps: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let (pixels, classes) = (config.pixels(), config.num_classes + 1);
        let times = |size| sinusoids(steps, size, vb.dtype(), vb.device());
        let linear = |inputs, outputs, name: &str| candle_nn::linear(inputs, outputs, vb.pp(name));
        match config.network {
            Network::Mlp { width, hidden, blocks, embedding } => Ok(Self::Mlp(Mlp {
                times: times(embedding)?,
                time: [linear(embedding, embedding, "time.0")?, linear(embedding, embedding, "time.1")?],
                class: candle_nn::embedding(classes, embedding, vb.pp("class"))?,
                input: linear(pixels, width, "input")?,
                blocks: (0..blocks)
                    .map(|block| {
                        Ok(Block {
                            inner: linear(width, hidden, &format!("blocks.{block}.in"))?,
                            condition: linear(embedding, hidden, &format!("blocks.{block}.condition"))?,
                            outer: linear(hidden, width, &format!("blocks.{block}.out"))?,
                        })
                    })
                    .collect::<Result<_>>()?,
                output: linear(width, pixels, "output")?,
            })),
            Network::Plain { width, layers, embedding } => {
                let inputs = pixels + embedding + classes;
                Ok(Self::Plain(Plain {
                    times: times(embedding)?,
                    one_hot: Tensor::eye(classes, vb.dtype(), vb.device())?,
                    layers: (0..layers)
                        .map(|layer| {
                            linear(if layer == 0 { inputs } else { width }, width, &format!("layers.{layer}"))
                        })
                        .collect::<Result<_>>()?,
                    output: linear(width, pixels, "output")?,
                }))
            }
        }
    }

    /// The raw output for `x_t` [B, pixels], timesteps `t` [B] and classes `labels` [B], both u32.
    pub(crate) fn forward(&self, x_t: &Tensor, t: &Tensor, labels: &Tensor) -> Result<Tensor> {
        match self {
            Self::Mlp(mlp) => mlp.forward(x_t, t, labels),
            Self::Plain(plain) => plain.forward(x_t, t, labels),
        }
    }
}

impl Mlp {
    fn forward(&self, x_t: &Tensor, t: &Tensor, labels: &Tensor) -> Result<Tensor> {
        let time = self.time[1].forward(&self.time[0].forward(&self.times.index_select(t, 0)?)?.silu()?)?;
        let condition = (time + self.class.forward(labels)?)?.silu()?;
        let mut h = self.input.forward(x_t)?;
        for block in &self.blocks {
            let inner = (block.inner.forward(&h)? + block.condition.forward(&condition)?)?.silu()?;
            h = (h + block.outer.forward(&inner)?)?;
        }
        self.output.forward(&h.silu()?)
    }
}

impl Plain {
    fn forward(&self, x_t: &Tensor, t: &Tensor, labels: &Tensor) -> Result<Tensor> {
        let (time, class) = (self.times.index_select(t, 0)?, self.one_hot.index_select(labels, 0)?);
        let mut h = Tensor::cat(&[x_t, &time, &class], D::Minus1)?;
        for layer in &self.layers {
            h = layer.forward(&h)?.silu()?;
        }
        self.output.forward(&h)
    }
}
