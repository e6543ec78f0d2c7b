//! The operations of each architecture.

use ddpm_core::NoiseSchedule;
use ddpm_kernels::{Inputs, Program, Shape, Slot};

use crate::{DenoiserConfig, Network, embedding::sinusoids};

impl DenoiserConfig {
    /// The network as a list of operations. The tensor path and the CPU kernels both execute this list.
    #[must_use]
    pub fn program(&self) -> Program {
        match self.network {
            Network::Mlp { width, hidden, blocks, embedding } => {
                let mut p = self.inputs(embedding, self.rows.max(self.cols));
                let condition = condition(&mut p, embedding);
                let h = p.linear("input", &[Program::IMAGE], Shape::flat(width), 1.0, None);
                let h = residual(&mut p, h, condition, hidden, blocks);
                output(&mut p, h);
                p
            }
            Network::PatchMlp { patch, local, code, width, hidden, blocks, embedding } => {
                let mut p = self.inputs(embedding, patch);
                let condition = condition(&mut p, embedding);
                let patches = p.shape(Program::IMAGE).patches;
                let [local, code] = [local, code].map(|width| Shape { patches, width });
                let about = p.linear("encode.condition", &[condition], Shape::flat(local.width), 1.0, None);
                let h = p.local("encode.in", &[Program::IMAGE], local, Some(about));
                p.silu();
                let h = p.local("encode.out", &[h], code, None);
                let h = p.linear("input", &[h], Shape::flat(width), 1.0, None);
                let h = residual(&mut p, h, condition, hidden, blocks);
                let h = p.linear("expand", &[h], code, 1.0, None);
                let about = p.linear("decode.condition", &[condition], Shape::flat(local.width), 1.0, None);
                let h = p.local("decode.in", &[h, Program::IMAGE], local, Some(about));
                p.silu();
                let h = p.local("decode.inner", &[h], local, None);
                p.silu();
                output(&mut p, h);
                p
            }
            Network::Plain { width, layers, embedding } => {
                let mut p = self.inputs(embedding, self.rows.max(self.cols));
                let mut h = vec![Program::IMAGE, Program::TIME, Program::CLASS];
                for layer in 0..layers {
                    h = vec![p.linear(&format!("layers.{layer}"), &h, Shape::flat(width), 1.0, None)];
                    p.silu();
                }
                output(&mut p, h[0]);
                p
            }
        }
    }

    /// The network for the CPU kernels, with the time embedding of each timestep of the schedule.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the table is computed in f64 and rounded once")]
    pub fn cpu_network(&self, schedule: &NoiseSchedule) -> ddpm_kernels::Network {
        let program = self.program();
        let width = program.shape(Program::TIME).width;
        let times = sinusoids(schedule.num_train_timesteps(), width);
        ddpm_kernels::Network::new(&program, times.into_iter().map(|x| x as f32).collect())
    }

    /// An empty program with the model's image size and its `num_classes + 1` classes; the last is the null class.
    fn inputs(&self, embedding: usize, patch: usize) -> Program {
        let (rows, cols, classes) = (self.rows, self.cols, self.num_classes + 1);
        Program::new(Inputs { rows, cols, patch, time: embedding, classes })
    }
}

/// Adds the embedding of timestep and class, and returns its slot.
fn condition(p: &mut Program, embedding: usize) -> Slot {
    let embedding = Shape::flat(embedding);
    let e = p.linear("time.0", &[Program::TIME], embedding, 1.0, None);
    p.silu();
    let e = p.linear("time.1", &[e], embedding, 1.0, None);
    let condition = p.class("class", e);
    p.silu();
    condition
}

/// Adds `blocks` residual blocks and a final SiLU.
fn residual(p: &mut Program, mut h: Slot, condition: Slot, hidden: usize, blocks: usize) -> Slot {
    let (width, hidden) = (p.shape(h), Shape::flat(hidden));
    for block in 0..blocks {
        let name = |part| format!("blocks.{block}.{part}");
        let inner = p.linear(&name("condition"), &[condition], hidden, 1.0, None);
        let inner = p.linear(&name("in"), &[h], hidden, 1.0, Some(inner));
        p.silu();
        // With zero weights a block starts as the identity, so depth does not change the scale of its input.
        h = p.linear(&name("out"), &[inner], width, 0.0, Some(h));
    }
    p.silu();
    h
}

/// Adds the linear output layer.
fn output(p: &mut Program, x: Slot) {
    p.local("output", &[x], p.shape(Program::IMAGE), None);
}
