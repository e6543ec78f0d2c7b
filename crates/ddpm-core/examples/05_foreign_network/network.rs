//! Somebody else's network: images [B, 1, 16, 16], whole timesteps and classes as tensors, a prediction of v.
//! It knows nothing of this crate.
//!
//! So that its output can be checked, its weights are not trained but computed: it is the best denoiser of
//! random textures, normal images with a known spectrum S. In the frequencies all pixels are independent,
//!
//! ```text
//! x̂₀ = m + √ᾱ S / (ᾱ S + 1 − ᾱ) · (xₜ − √ᾱ m),   m the mean of the class
//! ```

#![allow(clippy::integer_division, reason = "rows and columns of a grid")]

use std::{collections::HashMap, f64::consts::PI};

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::{Embedding, Linear, Module, VarBuilder, embedding, linear_no_bias};

/// Pixels on a side.
pub(crate) const SIDE: usize = 16;
/// The standard deviation of a pixel.
pub(crate) const DEVIATION: f64 = 0.3;
/// The mean of a pixel of each class; the last class is "none", as guidance needs it.
pub(crate) const CLASS_MEANS: [f64; 3] = [-0.3, 0.3, 0.0];

const PIXELS: usize = SIDE * SIDE;

pub(crate) struct SpectralNet {
    /// Into the frequencies and, since it is its own inverse, back.
    transform: Linear,
    class_mean: Embedding,
    spectrum: Tensor,
    alphas_cumprod: Tensor,
}

impl SpectralNet {
    pub(crate) fn new(vb: VarBuilder<'_>, timesteps: usize) -> Result<Self> {
        Ok(Self {
            transform: linear_no_bias(PIXELS, PIXELS, vb.pp("transform"))?,
            class_mean: embedding(CLASS_MEANS.len(), 1, vb.pp("class_mean"))?,
            spectrum: vb.get(PIXELS, "spectrum")?,
            alphas_cumprod: vb.get(timesteps, "alphas_cumprod")?,
        })
    }

    /// v for images [B, 1, 16, 16], timesteps u32 [B] and classes u32 [B].
    pub(crate) fn forward(&self, x: &Tensor, t: &Tensor, class: &Tensor) -> Result<Tensor> {
        let alpha_cumprod = self.alphas_cumprod.index_select(t, 0)?.unsqueeze(1)?;
        let (signal, noise_variance) = (alpha_cumprod.sqrt()?, alpha_cumprod.affine(-1.0, 1.0)?);
        let gain = signal
            .broadcast_mul(&self.spectrum)?
            .broadcast_div(&alpha_cumprod.broadcast_mul(&self.spectrum)?.broadcast_add(&noise_variance)?)?;
        let (pixels, mean) = (x.flatten_from(1)?, self.class_mean.forward(class)?);
        let centred = pixels.broadcast_sub(&(&signal * &mean)?)?;
        let filtered = self.transform.forward(&(self.transform.forward(&centred)? * gain)?)?;
        let x_start = filtered.broadcast_add(&mean)?;
        let v = (pixels.broadcast_mul(&signal)? - x_start)?.broadcast_div(&noise_variance.sqrt()?)?;
        v.reshape(x.shape())
    }

    /// Images of a class, from standard normal numbers: what the network would have been trained on.
    pub(crate) fn draw(&self, normal: &Tensor, class: u32) -> Result<Tensor> {
        let pixels = normal.flatten_from(1)?.broadcast_mul(&self.spectrum.sqrt()?)?;
        (self.transform.forward(&pixels)? + CLASS_MEANS[class as usize])?.reshape(normal.shape())
    }
}

/// The weights, by the names under which a file would have them.
pub(crate) fn weights(alphas_cumprod: &[f64]) -> Result<HashMap<String, Tensor>> {
    // The transform of Hartley: sine plus cosine of every pair of frequencies.
    let turn = |a: usize, b: usize| 2.0 * PI * (a * b) as f64 / SIDE as f64;
    let hartley = |i: usize| {
        let [row, column] = [(i / PIXELS), (i % PIXELS)].map(|i| (i / SIDE, i % SIDE));
        let angle = turn(row.0, column.0) + turn(row.1, column.1);
        (angle.sin() + angle.cos()) / SIDE as f64
    };
    let tensor = |values: Vec<f64>| Tensor::new(values, &Device::Cpu)?.to_dtype(DType::F32);
    Ok(HashMap::from([
        (
            "transform.weight".to_owned(),
            tensor((0..PIXELS * PIXELS).map(hartley).collect())?.reshape((PIXELS, PIXELS))?,
        ),
        ("class_mean.weight".to_owned(), tensor(CLASS_MEANS.to_vec())?.unsqueeze(1)?),
        ("spectrum".to_owned(), tensor(spectrum())?),
        ("alphas_cumprod".to_owned(), tensor(alphas_cumprod.to_vec())?),
    ]))
}

/// S: neighbours are alike by the factor ρ, in rows and in columns.
pub(crate) fn spectrum() -> Vec<f64> {
    const RHO: f64 = 0.7;
    let line: Vec<f64> = (0..SIDE)
        .map(|k| 1.0 / (1.0 - 2.0 * RHO * (2.0 * PI * k as f64 / SIDE as f64).cos() + RHO * RHO))
        .collect();
    let mean = line.iter().sum::<f64>() / SIDE as f64;
    let at = |i: usize| DEVIATION.powi(2) * line[i / SIDE] * line[i % SIDE] / (mean * mean);
    (0..PIXELS).map(at).collect()
}

/// The correlation of neighbours: that of the whole spectrum, turned by one pixel.
pub(crate) fn neighbour_correlation() -> f64 {
    let turned = |(i, s): (usize, f64)| s * (2.0 * PI * (i % SIDE) as f64 / SIDE as f64).cos();
    spectrum().into_iter().enumerate().map(turned).sum::<f64>() / spectrum().iter().sum::<f64>()
}

/// How much of an image is left after noise to ᾱ and the flow of probability back: the correlation of the two.
pub(crate) fn kept(alpha_cumprod: f64) -> f64 {
    let flow = |s: f64| (s / (alpha_cumprod * s + 1.0 - alpha_cumprod)).sqrt();
    let both = spectrum().into_iter().map(|s| alpha_cumprod.sqrt() * s * flow(s)).sum::<f64>();
    both / spectrum().iter().sum::<f64>()
}

/// Mean and standard deviation of the pixels, and the correlation of each with its right neighbour.
pub(crate) fn measure(images: &Tensor) -> Result<[f64; 3]> {
    let mean = |x: &Tensor| x.to_dtype(DType::F64)?.mean_all()?.to_scalar::<f64>();
    let average = mean(images)?;
    let centred = (images - average)?;
    let variance = mean(&centred.sqr()?)?;
    let products = mean(&(&centred * centred.roll(1, D::Minus1)?)?)?;
    Ok([average, variance.sqrt(), products / variance])
}

pub(crate) fn correlation(a: &Tensor, b: &Tensor) -> Result<f64> {
    let product = |x: &Tensor, y: &Tensor| (x * y)?.mean_all()?.to_dtype(DType::F64)?.to_scalar::<f64>();
    Ok(product(a, b)? / (product(a, a)? * product(b, b)?).sqrt())
}
