//! DDPM on MNIST in one file: load the images, train a small network, draw digits.
//!
//! ```sh
//! cargo run --release -p ddpm-train --example tiny
//! ```
//!
//! Only candle is used for the mathematics, and nothing of this repository but its copy of MNIST, so that
//! everything is in sight. It writes `tiny.png`, ten digits of each class, after about a minute. The crates do
//! the same with better networks, faster, reproducibly, and with more samplers.

#![allow(clippy::print_stdout, clippy::cast_possible_truncation, reason = "an example")]

use std::error::Error;

use candle_core::{D, DType, Device, Tensor, Var};
use ddpm_data::Splits;

/// T, the number of noise levels.
const T: usize = 20;
/// Features of the hidden layers.
const WIDTH: usize = 400;
const PIXELS: usize = 784;
const CLASSES: usize = 10;
const BATCH: usize = 128;
const EPOCHS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let device = Device::Cpu;
    let schedule = Schedule::new();
    let mut network = Network::new(&device)?;

    let splits = Splits::mnist()?;
    let data = splits.train();
    let labels: Vec<u32> = data.labels().unwrap_or_default().iter().map(|&label| u32::from(label)).collect();
    // [N, 784] on the scale [−1, 1], on which the schedule is defined.
    let images = Tensor::from_slice(data.images(), (data.len(), PIXELS), &device)?;
    let images = ((images.to_dtype(DType::F32)? / 127.5)? - 1.0)?;
    let labels = Tensor::new(labels, &device)?;

    let steps = EPOCHS * data.len().div_euclid(BATCH);
    for step in 0..steps {
        // A random batch, each image with a timestep and noise of its own.
        let index = uniform(BATCH, data.len(), &device)?;
        let (x_start, class) = (images.index_select(&index, 0)?, labels.index_select(&index, 0)?);
        let t = uniform(BATCH, T, &device)?;
        let eps = Tensor::randn(0f32, 1.0, (BATCH, PIXELS), &device)?;
        let x_t = schedule.q_sample(&x_start, &t, &eps)?;

        // The network predicts x₀. A network this small cannot pass ε through.
        let error = (network.forward(&x_t, &t, &class)? - &x_start)?;
        let loss = error.sqr()?.mean_all()?;
        let rate = 1e-3 * (1.0 - step as f64 / steps as f64);
        network.adam_step(&loss, step, rate)?;
        if step % 200 == 0 {
            println!("step {step} of {steps}: loss {:.4}", loss.to_scalar::<f32>()?);
        }
    }

    let class: Vec<u32> = (0..100).map(|i| i % 10).collect();
    let digits = schedule.sample(&network, &Tensor::new(class, &device)?)?;
    write_grid(&digits, "tiny.png")?;
    println!("wrote tiny.png");
    Ok(())
}

/// `n` random whole numbers below `below`.
fn uniform(n: usize, below: usize, device: &Device) -> candle_core::Result<Tensor> {
    // Rounding may give `below` itself.
    let top = below as f64 - 1.0;
    Tensor::rand(0f32, below as f32, n, device)?.floor()?.minimum(top)?.to_dtype(DType::U32)
}

/// The noise levels of DDPM (Ho et al. 2020), β linear from 0.001 to 0.7.
struct Schedule {
    betas: [f64; T],
    /// ᾱₜ = ∏ₛ≤ₜ (1 − βₛ), the part of the image's variance that is left at t.
    alphas_cumprod: [f64; T],
}

impl Schedule {
    fn new() -> Self {
        let betas = std::array::from_fn(|t| 0.001 + (0.7 - 0.001) * t as f64 / (T - 1) as f64);
        let mut product = 1.0;
        let alphas_cumprod = betas.map(|beta: f64| {
            product *= 1.0 - beta;
            product
        });
        Self { betas, alphas_cumprod }
    }

    /// xₜ = √ᾱₜ x₀ + √(1−ᾱₜ) ε (eq. 4).
    fn q_sample(&self, x_start: &Tensor, t: &Tensor, eps: &Tensor) -> candle_core::Result<Tensor> {
        let table = Tensor::new(self.alphas_cumprod.map(|x| x as f32).as_slice(), t.device())?;
        let alpha_cumprod = table.index_select(t, 0)?.unsqueeze(1)?;
        let (signal, noise) = (alpha_cumprod.sqrt()?, (1.0 - &alpha_cumprod)?.sqrt()?);
        x_start.broadcast_mul(&signal)? + eps.broadcast_mul(&noise)?
    }

    /// Ancestral sampling (algorithm 2): from pure noise, step by step, with the posterior q(xₜ₋₁ given xₜ, x̂₀) of eq. 7.
    fn sample(&self, network: &Network, class: &Tensor) -> candle_core::Result<Tensor> {
        let (n, device) = (class.dim(0)?, class.device());
        let mut x = Tensor::randn(0f32, 1.0, (n, PIXELS), device)?;
        for t in (0..T).rev() {
            let x_start = network.forward(&x, &Tensor::full(t as u32, n, device)?, class)?;
            let x_start = x_start.clamp(-1.0, 1.0)?.detach();
            let (beta, alpha_cumprod) = (self.betas[t], self.alphas_cumprod[t]);
            let before = if t == 0 { 1.0 } else { self.alphas_cumprod[t - 1] };
            let coef1 = before.sqrt() * beta / (1.0 - alpha_cumprod);
            let coef2 = (1.0 - beta).sqrt() * (1.0 - before) / (1.0 - alpha_cumprod);
            let variance = beta * (1.0 - before) / (1.0 - alpha_cumprod);
            let noise = (x.randn_like(0.0, 1.0)? * variance.sqrt())?; // 0 in the last step
            x = (((x_start * coef1)? + (x * coef2)?)? + noise)?;
        }
        Ok(x)
    }
}

/// Linear layers with SiLU between them, over xₜ, t and the class side by side.
struct Network {
    /// Weight [inputs, outputs] and bias of each layer.
    parameters: Vec<Var>,
    /// Adam's running means of the gradients and of their squares.
    moments: Vec<(Tensor, Tensor)>,
}

impl Network {
    fn new(device: &Device) -> candle_core::Result<Self> {
        let (mut parameters, mut moments) = (Vec::new(), Vec::new());
        let widths = [PIXELS + T + CLASSES, WIDTH, WIDTH, WIDTH, PIXELS];
        for pair in widths.windows(2) {
            let std = (1.0 / pair[0] as f32).sqrt();
            parameters.push(Var::randn(0f32, std, (pair[0], pair[1]), device)?);
            parameters.push(Var::zeros(pair[1], DType::F32, device)?);
        }
        for parameter in &parameters {
            moments.push((parameter.zeros_like()?, parameter.zeros_like()?));
        }
        Ok(Self { parameters, moments })
    }

    /// x̂₀, [B, 784], from xₜ, [B, 784], the timestep and the class, [B].
    fn forward(&self, x_t: &Tensor, t: &Tensor, class: &Tensor) -> candle_core::Result<Tensor> {
        let mut h = Tensor::cat(&[x_t, &one_hot(t, T)?, &one_hot(class, CLASSES)?], D::Minus1)?;
        for (layer, pair) in self.parameters.chunks(2).enumerate() {
            if layer > 0 {
                h = h.silu()?;
            }
            h = h.matmul(&pair[0])?.broadcast_add(&pair[1])?;
        }
        Ok(h)
    }

    /// A step of Adam (Kingma & Ba 2015, arXiv 1412.6980, algorithm 1).
    fn adam_step(&mut self, loss: &Tensor, step: usize, rate: f64) -> candle_core::Result<()> {
        let (beta1, beta2, count) = (0.9, 0.99, (step + 1) as f64);
        let gradients = loss.backward()?;
        for (parameter, (first, second)) in self.parameters.iter().zip(&mut self.moments) {
            let Some(gradient) = gradients.get(parameter) else { continue };
            *first = ((&*first * beta1)? + (gradient * (1.0 - beta1))?)?.detach();
            *second = ((&*second * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?.detach();
            let mean = (&*first / (1.0 - beta1.powf(count)))?;
            let deviation = ((&*second / (1.0 - beta2.powf(count)))?.sqrt()? + 1e-8)?;
            parameter.set(&(parameter.as_tensor() - (mean / deviation)?.affine(rate, 0.0)?)?)?;
        }
        Ok(())
    }
}

/// [B] to [B, n]: 1 at the place of each number, 0 elsewhere.
fn one_hot(x: &Tensor, n: usize) -> candle_core::Result<Tensor> {
    let places = Tensor::arange(0, n as u32, x.device())?;
    x.unsqueeze(1)?.broadcast_eq(&places.unsqueeze(0)?)?.to_dtype(DType::F32)
}

/// Ten rows of ten images.
fn write_grid(images: &Tensor, path: &str) -> Result<(), Box<dyn Error>> {
    let grey = ((images + 1.0)? * 127.5)?.round()?.clamp(0.0, 255.0)?.to_dtype(DType::U8)?.to_vec2::<u8>()?;
    let picture = image::GrayImage::from_fn(280, 280, |x, y| {
        let (row, column) = (y.div_euclid(28), x.div_euclid(28));
        image::Luma([grey[(row * 10 + column) as usize][(y % 28 * 28 + x % 28) as usize]])
    });
    Ok(picture.save(path)?)
}
