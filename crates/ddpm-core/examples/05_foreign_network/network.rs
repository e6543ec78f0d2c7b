//! A third-party network. It takes images [B, 1, 16, 16], integer timesteps and classes as tensors, and predicts v. It
//! does not use this crate.
//!
//! To make its output checkable, its weights are computed instead of trained. It is the optimal denoiser of random
//! textures: normally distributed images with a known spectrum S. In the frequency domain all components are independent:
//!
//! ```text
//! x̂₀ = m + √ᾱ S / (ᾱ S + 1 − ᾱ) · (xₜ − √ᾱ m),   where m is the mean of the class
//! ```

#![allow(clippy::integer_division, reason = "rows and columns of a grid")]

use std::{collections::HashMap, f64::consts::PI};

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::{Embedding, Linear, Module, VarBuilder, embedding, linear_no_bias};

/// The width and height of an image in pixels.
pub(crate) const SIDE: usize = 16;
/// The standard deviation of a pixel.
pub(crate) const DEVIATION: f64 = 0.3;
/// The mean pixel value of each class. The last entry is "no class", which guidance needs.
pub(crate) const CLASS_MEANS: [f64; 3] = [-0.3, 0.3, 0.0];

const PIXELS: usize = SIDE * SIDE;

pub(crate) struct SpectralNet {
    /// The transform to the frequency domain. It is its own inverse.
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

    /// Predicts v for images [B, 1, 16, 16], timesteps u32 [B] and classes u32 [B].
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

    /// Makes images of a class from standard normal numbers.
    pub(crate) fn images(&self, normal: &Tensor, class: u32) -> Result<Tensor> {
        let pixels = normal.flatten_from(1)?.broadcast_mul(&self.spectrum.sqrt()?)?;
        (self.transform.forward(&pixels)? + CLASS_MEANS[class as usize])?.reshape(normal.shape())
    }
}

/// The weights by name, as in a weights file.
pub(crate) fn weights(alphas_cumprod: &[f64]) -> Result<HashMap<String, Tensor>> {
    // The Hartley transform: sine plus cosine of every pair of frequencies.
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

/// The spectrum S of images whose neighbouring pixels correlate with about ρ, in rows and in columns.
pub(crate) fn spectrum() -> Vec<f64> {
    const RHO: f64 = 0.7;
    let line: Vec<f64> = (0..SIDE)
        .map(|k| 1.0 / (1.0 - 2.0 * RHO * (2.0 * PI * k as f64 / SIDE as f64).cos() + RHO * RHO))
        .collect();
    let mean = line.iter().sum::<f64>() / SIDE as f64;
    let at = |i: usize| DEVIATION.powi(2) * line[i / SIDE] * line[i % SIDE] / (mean * mean);
    (0..PIXELS).map(at).collect()
}

/// The correlation of horizontally neighbouring pixels: the spectrum, shifted by one pixel.
pub(crate) fn neighbour_correlation() -> f64 {
    let turned = |(i, s): (usize, f64)| s * (2.0 * PI * (i % SIDE) as f64 / SIDE as f64).cos();
    spectrum().into_iter().enumerate().map(turned).sum::<f64>() / spectrum().iter().sum::<f64>()
}

/// The correlation of an image with the result of noising it to ᾱ and following the probability flow back.
pub(crate) fn kept(alpha_cumprod: f64) -> f64 {
    let flow = |s: f64| (s / (alpha_cumprod * s + 1.0 - alpha_cumprod)).sqrt();
    let both = spectrum().into_iter().map(|s| alpha_cumprod.sqrt() * s * flow(s)).sum::<f64>();
    both / spectrum().iter().sum::<f64>()
}

/// Mean and standard deviation of the pixels, and the correlation of horizontal neighbours.
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
