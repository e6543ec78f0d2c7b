//! The forward pass, from pixels to features and logits.
//!
//! A convolution is a gather (im2col) and a matrix product: the inputs of each output pixel are gathered into a row,
//! and multiplied by the weight matrix. On a CPU this is faster than the convolution of candle, forward and backward.

use std::collections::HashMap;

use candle_core::{Device, Result, Tensor};

use super::config::{Convolution, FeatureConfig};

/// The forward pass of a net, without its weights.
#[derive(Clone, Debug)]
pub(super) struct Layers {
    im2cols: Vec<Im2col>,
}

/// The input pixels of each output pixel of a convolution.
#[derive(Clone, Debug)]
struct Im2col {
    /// For each output pixel, the indices of its input pixels, [outputs · kernel²]. An index equal to the number of
    /// input pixels is a pixel of the zero padding.
    pixels: Tensor,
    /// The number of output pixels.
    outputs: usize,
}

/// A matrix and a bias for each layer, from input to output.
pub(super) type Weights = Vec<[Tensor; 2]>;

impl Layers {
    pub(super) fn new(config: &FeatureConfig, device: &Device) -> Result<Self> {
        let mut size = [config.rows, config.cols];
        let im2col = |convolution: &Convolution| {
            let outputs = size.map(|length| length.div_ceil(convolution.stride));
            let pixels = im2col_indices(size, outputs, *convolution);
            size = outputs;
            let pixels = Tensor::new(pixels, device)?;
            Ok(Im2col { pixels, outputs: outputs[0] * outputs[1] })
        };
        Ok(Self { im2cols: config.convolutions.iter().map(im2col).collect::<Result<_>>()? })
    }

    /// Features [N, features] and logits [N, outputs] of images [N, pixels] in [0, 1].
    pub(super) fn forward(&self, images: &Tensor, weights: &[[Tensor; 2]]) -> Result<(Tensor, Tensor)> {
        let batch = images.dim(0)?;
        let (convolutions, linear) = weights.split_at(self.im2cols.len());
        let mut x = images.unsqueeze(2)?; // [N, pixels, channels]
        for (Im2col { pixels, outputs }, layer) in std::iter::zip(&self.im2cols, convolutions) {
            let patches = x.pad_with_zeros(1, 0, 1)?.index_select(pixels, 1)?;
            let patches = patches.reshape((batch * outputs, ()))?;
            x = linear_layer(&patches, layer)?.relu()?.reshape((batch, *outputs, ()))?;
        }
        let mut x = x.flatten_from(1)?;
        let [features, logits] = linear else { candle_core::bail!("a feature net has two linear layers") };
        x = linear_layer(&x, features)?.relu()?;
        let logits = linear_layer(&x, logits)?;
        Ok((x, logits))
    }
}

/// x Wᵀ + b.
fn linear_layer(x: &Tensor, [weight, bias]: &[Tensor; 2]) -> Result<Tensor> {
    x.matmul(&weight.t()?)?.broadcast_add(bias)
}

/// The weights of the layers from input to output. `map` holds them by name.
pub(super) fn in_order(config: &FeatureConfig, map: &HashMap<String, Tensor>) -> Result<Weights> {
    let get = |name: &str| match map.get(name) {
        Some(tensor) => Ok(tensor.clone()),
        None => Err(candle_core::Error::CannotFindTensor { path: name.to_owned() }.bt()),
    };
    let parameters = config.parameters();
    let layers = parameters.chunks_exact(2);
    layers.map(|layer| Ok([get(&layer[0].0)?, get(&layer[1].0)?])).collect()
}

fn im2col_indices(inputs: [usize; 2], outputs: [usize; 2], convolution: Convolution) -> Vec<u32> {
    let Convolution { kernel, stride, .. } = convolution;
    let margin = kernel.div_euclid(2);
    // The inputs of an output along one axis; `None` for padding.
    let along = |output: usize, length: usize| {
        (0..kernel).map(move |tap| (output * stride + tap).checked_sub(margin).filter(|&at| at < length))
    };
    let outside = inputs[0] * inputs[1];
    let mut pixels = Vec::new();
    for row in 0..outputs[0] {
        for col in 0..outputs[1] {
            for y in along(row, inputs[0]) {
                for x in along(col, inputs[1]) {
                    let pixel = y.zip(x).map_or(outside, |(y, x)| y * inputs[1] + x);
                    // At most 64 · 64.
                    pixels.push(u32::try_from(pixel).unwrap_or(u32::MAX));
                }
            }
        }
    }
    pixels
}
