//! The networks that the ways train: linear layers and SiLU.

use candle_core::{DType, Device, Tensor};
use candle_nn::{Linear, Module, encoding::one_hot, ops::rms_norm_slow};

use crate::{CLASSES, PIXELS, Way};

/// The residual network that reads an image as a whole.
const WIDTH: usize = 512;
const HIDDEN: usize = 1024;
const BLOCKS: usize = 2;
/// The numbers of ξ.
pub(crate) const XI: usize = 32;
/// The one that mixes tokens: seven by seven patches of four by four pixels.
const SIDE: usize = 7;
const PATCH: usize = 4;
const TOKENS: usize = SIDE * SIDE;
const CHANNELS: usize = 64;
const TOKEN_HIDDEN: usize = 64;
const CHANNEL_HIDDEN: usize = 128;
const MIXERS: usize = 3;

/// A network of the shape that its way asks for.
pub(crate) struct Network {
    way: Way,
    layers: Vec<Linear>,
}

impl Network {
    /// Inputs and outputs of each layer.
    pub(crate) fn shapes(way: Way, timesteps: usize) -> Vec<[usize; 2]> {
        let known = timesteps + CLASSES;
        let extra = match way {
            Way::Mean => 0,
            Way::Energy => XI,
            Way::SelfConditioning => PIXELS,
            Way::TokenMixing => {
                let block = [
                    [TOKENS, TOKEN_HIDDEN],
                    [TOKEN_HIDDEN, TOKENS],
                    [known, CHANNEL_HIDDEN],
                    [CHANNELS, CHANNEL_HIDDEN],
                    [CHANNEL_HIDDEN, CHANNELS],
                ];
                let (first, last) = ([PATCH * PATCH, CHANNELS], [CHANNELS, PATCH * PATCH]);
                return [vec![first], block.repeat(MIXERS), vec![last]].concat();
            }
        };
        let blocks = [[WIDTH + known, HIDDEN], [HIDDEN, WIDTH]].repeat(BLOCKS);
        [vec![[PIXELS + known + extra, WIDTH]], blocks, vec![[WIDTH, PIXELS]]].concat()
    }

    /// Of a weight and a bias for each layer.
    pub(crate) fn new(way: Way, weights: &[Tensor]) -> Self {
        let layer = |pair: &[Tensor]| Linear::new(pair[0].clone(), Some(pair[1].clone()));
        Self { way, layers: weights.chunks_exact(2).map(layer).collect() }
    }

    /// x̂ of `x_t`, [B, 784]. `known` is of [`known`], `extra` what the way tells the network besides.
    pub(crate) fn forward(
        &self,
        x_t: &Tensor,
        known: &Tensor,
        extra: Option<&Tensor>,
    ) -> candle_core::Result<Tensor> {
        let [first, blocks @ .., last] = self.layers.as_slice() else {
            return Err(candle_core::Error::msg("a network has a first and a last layer"));
        };
        if self.way == Way::TokenMixing {
            return mix([first, last], blocks, x_t, known);
        }
        let inputs: Vec<&Tensor> = [x_t, known].into_iter().chain(extra).collect();
        let mut stream = first.forward(&Tensor::cat(&inputs, 1)?)?;
        for block in blocks.chunks_exact(2) {
            let hidden = block[0].forward(&Tensor::cat(&[&stream, known], 1)?)?.silu()?;
            stream = (stream + block[1].forward(&hidden)?)?;
        }
        last.forward(&stream)
    }
}

/// Blocks that turn by turn mix the patches, channel by channel, and the channels, patch by patch (Tolstikhin et
/// al. 2021, "MLP-Mixer", arXiv 2105.01601).
fn mix(
    [first, last]: [&Linear; 2],
    blocks: &[Linear],
    x_t: &Tensor,
    known: &Tensor,
) -> candle_core::Result<Tensor> {
    let images = x_t.dim(0)?;
    let patches = x_t.reshape((images, SIDE, PATCH, SIDE, PATCH))?.transpose(2, 3)?;
    let mut stream = each(first, &patches.reshape((images, TOKENS, PATCH * PATCH))?)?;
    let ones = Tensor::ones(CHANNELS, DType::F32, x_t.device())?;
    let norm = |stream: &Tensor| rms_norm_slow(stream, &ones, 1e-5);
    for block in blocks.chunks_exact(5) {
        let [token_in, token_out, about, channel_in, channel_out] = block else {
            return Err(candle_core::Error::msg("a block has five layers"));
        };
        let tokens = norm(&stream)?.transpose(1, 2)?.contiguous()?;
        let tokens = each(token_out, &each(token_in, &tokens)?.silu()?)?;
        stream = (stream + tokens.transpose(1, 2)?)?;
        let hidden = each(channel_in, &norm(&stream)?)?;
        let hidden = hidden.broadcast_add(&about.forward(known)?.unsqueeze(1)?)?.silu()?;
        stream = (stream + each(channel_out, &hidden)?)?;
    }
    let patches = each(last, &stream)?.reshape((images, SIDE, SIDE, PATCH, PATCH))?;
    patches.transpose(2, 3)?.reshape((images, PIXELS))
}

/// A layer of each row of a [B, rows, width], in one product.
fn each(layer: &Linear, x: &Tensor) -> candle_core::Result<Tensor> {
    let (images, rows, _) = x.dims3()?;
    layer.forward(&x.flatten(0, 1)?)?.reshape((images, rows, ()))
}

/// Timesteps and classes, one-hot and side by side: a linear layer makes of each a table of embeddings.
pub(crate) fn known(t: &[usize], timesteps: usize, classes: &[u8]) -> candle_core::Result<Tensor> {
    let t = Tensor::from_iter(t.iter().map(|&t| t as i64), &Device::Cpu)?;
    let classes = Tensor::new(classes, &Device::Cpu)?;
    Tensor::cat(&[one_hot(t, timesteps, 1_f32, 0.0)?, one_hot(classes, CLASSES, 1_f32, 0.0)?], 1)
}
