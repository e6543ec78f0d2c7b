//! From pixels to features and logits.
//!
//! A convolution is a gather and a product: the inputs that an output pixel looks at are laid side by side, and
//! multiplied by the matrix of the layer. On a CPU that takes half of the time of the tensor library's own
//! convolution, forward and backward.

use std::collections::HashMap;

use candle_core::{Device, Result, Tensor};

use super::config::{Convolution, FeatureConfig};

/// The layers of a net: where its weights are in the computation.
#[derive(Clone, Debug)]
pub(super) struct Layers {
    gathers: Vec<Gather>,
}

/// Which pixels the outputs of a convolution look at.
#[derive(Clone, Debug)]
struct Gather {
    /// For each output pixel the input pixels of its square, [outputs · kernel²]. The number of the input's
    /// pixels stands for one outside of the image.
    pixels: Tensor,
    /// The number of output pixels.
    outputs: usize,
}

/// A matrix and a bias for each layer, in the order of the layers.
pub(super) type Weights = Vec<[Tensor; 2]>;

impl Layers {
    pub(super) fn new(config: &FeatureConfig, device: &Device) -> Result<Self> {
        let mut size = [config.rows, config.cols];
        let gather = |convolution: &Convolution| {
            let outputs = size.map(|length| length.div_ceil(convolution.stride));
            let pixels = gathered(size, outputs, *convolution);
            size = outputs;
            let pixels = Tensor::new(pixels, device)?;
            Ok(Gather { pixels, outputs: outputs[0] * outputs[1] })
        };
        Ok(Self { gathers: config.convolutions.iter().map(gather).collect::<Result<_>>()? })
    }

    /// Features and logits, [N, features] and [N, answers], of images [N, pixels] in [0, 1].
    pub(super) fn forward(&self, images: &Tensor, weights: &[[Tensor; 2]]) -> Result<(Tensor, Tensor)> {
        let batch = images.dim(0)?;
        let (convolutions, linear) = weights.split_at(self.gathers.len());
        let mut x = images.unsqueeze(2)?; // [N, pixels, channels]
        for (Gather { pixels, outputs }, layer) in std::iter::zip(&self.gathers, convolutions) {
            let squares = x.pad_with_zeros(1, 0, 1)?.index_select(pixels, 1)?;
            let squares = squares.reshape((batch * outputs, ()))?;
            x = apply(&squares, layer)?.relu()?.reshape((batch, *outputs, ()))?;
        }
        let mut x = x.flatten_from(1)?;
        let [features, logits] = linear else { candle_core::bail!("the net has two linear layers") };
        x = apply(&x, features)?.relu()?;
        let logits = apply(&x, logits)?;
        Ok((x, logits))
    }
}

/// x Wᵀ + b.
fn apply(x: &Tensor, [weight, bias]: &[Tensor; 2]) -> Result<Tensor> {
    x.matmul(&weight.t()?)?.broadcast_add(bias)
}

/// The weights in the order of the layers, out of a map that has all of them.
pub(super) fn in_order(config: &FeatureConfig, map: &HashMap<String, Tensor>) -> Result<Weights> {
    let get = |name: &str| match map.get(name) {
        Some(tensor) => Ok(tensor.clone()),
        None => Err(candle_core::Error::CannotFindTensor { path: name.to_owned() }.bt()),
    };
    let parameters = config.parameters();
    let layers = parameters.chunks_exact(2);
    layers.map(|layer| Ok([get(&layer[0].name)?, get(&layer[1].name)?])).collect()
}

fn gathered(inputs: [usize; 2], outputs: [usize; 2], convolution: Convolution) -> Vec<u32> {
    let Convolution { kernel, stride, .. } = convolution;
    let margin = kernel.div_euclid(2);
    // The inputs that one output looks at, along one axis; none where they are outside.
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
                    // There are 64 · 64 pixels at most.
                    pixels.push(u32::try_from(pixel).unwrap_or(u32::MAX));
                }
            }
        }
    }
    pixels
}
