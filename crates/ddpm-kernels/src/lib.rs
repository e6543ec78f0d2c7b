//! CPU kernels for small networks of linear layers and SiLU: prediction, gradients, and a training step that updates
//! the weights while it computes their gradient. The crate needs no tensor library.
//!
//! A [`Program`] describes a network as a list of operations on numbered [`Slot`]s. A slot holds an intermediate result
//! of shape [B, patches, width], where B is the number of images. Each operation writes one new slot:
//!
//! ```text
//! out = silu?( x Wᵀ + b  (+ add) )        a linear map of one or more concatenated slots
//! out = silu?( table[class]  (+ add) )    a row of a table
//!
//! silu(z) = z / (1 + e⁻ᶻ)
//! ```
//!
//! The inputs are an image x, the time embedding of a timestep (a row of a table), and a class. The last slot is the
//! output, which has the shape of the image.
//!
//! | | |
//! | --- | --- |
//! | [`Program`] | the description: slots, operations, names and shapes of parameters |
//! | [`Network`] | executes a program: [`Network::predict`] |
//! | [`Training`] | weights with the state of their optimizer: [`Training::step`] |
//! | [`AdamwEma`] | the coefficients of one optimizer step |
//! | [`peak_flops`], [`simd_lanes`] | the speed that no product can exceed on this machine, and its instructions |
//!
//! Each element of a matrix product is one chain of fused multiply-adds in a fixed order. So the result for an image
//! has the same bits alone and in a batch, on any number of threads, and in every instruction set.
//!
//! Arguments of the wrong length and indices out of range are programming errors of the caller, so they panic; each
//! method documents its panics.
//!
//! # Example
//!
//! A network with one hidden layer learns to output the negative of its input:
//!
//! ```
//! use ddpm_kernels::{AdamwEma, Batch, Init, Inputs, Network, Program, Shape, Training};
//!
//! let mut program = Program::new(Inputs { rows: 2, cols: 2, patch: 2, time: 2, classes: 1 });
//! let h = program.linear("hidden", &[Program::IMAGE, Program::TIME], Shape::flat(16), 1.0, None);
//! program.silu();
//! program.linear("output", &[h], program.shape(Program::IMAGE), 1.0, None);
//!
//! // Any distinct numbers; a real program samples them from `Parameter::init`.
//! let start = |i: usize| ((i * 37 % 101) as f32 / 50.0 - 1.0) * 0.3;
//! let weights: Vec<Vec<f32>> = program.parameters().iter().map(|p| (0..p.len()).map(start).collect()).collect();
//! let times = vec![0.0, 1.0]; // the time embedding of a single timestep, of width 2
//! let mut training = Training::new(Network::new(&program, times), &weights, 2);
//!
//! let x = [[0.1, 0.4, -0.2, 0.8], [-0.5, 0.3, 0.9, -0.1]];
//! let mut losses = Vec::new();
//! for step in 1..=100 {
//!     let batch = Batch { t: &[0, 0], classes: &[0, 0], weights: &[0.125, 0.125] };
//!     let adamw = AdamwEma {
//!         first: [0.9, 0.1],
//!         second: [0.99, 0.01],
//!         eps: 1e-8,
//!         keep: 1.0,
//!         rate: 0.01 / (1.0 - 0.9_f32.powi(step)),
//!         second_scale: (1.0 - 0.99_f32.powi(step)).sqrt().recip(),
//!         ema: [0.9, 0.1],
//!     };
//!     losses.push(training.step(&batch, |image, pixel| x[image][pixel], |image, pixel| -x[image][pixel], adamw));
//! }
//! assert!(losses[99] < 0.01 * losses[0], "{losses:?}");
//! ```

mod backward;
mod elementwise;
mod forward;
mod gradient;
mod network;
mod optimizer;
mod panel;
mod peak;
mod plan;
mod predict;
mod product;
mod program;
#[cfg(test)]
mod sets;
mod stage;
mod train;
mod weight_gradient;

pub use network::{Network, Weights};
pub use optimizer::{AdamwEma, StatePart};
pub use peak::{peak_flops, simd_lanes};
pub use program::{FlopCount, Init, Inputs, Map, Op, Parameter, Program, Shape, Slot};
pub use train::{Batch, Training};
