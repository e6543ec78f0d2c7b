//! The training step: by the kernels of `ddpm-kernels` on a CPU, by candle's tensors on other devices.

mod cpu;
mod tensor;

use candle_core::{Device, Tensor};
use ddpm_core::{CounterRng, NoiseSchedule};
use ddpm_data::Dataset;

use crate::{
    Error, Result, TrainConfig,
    group::{Group, all_reduce},
    noise::fill_noise,
    optimizer::StepSize,
    part::Part,
    post_hoc_ema::SIGMA_RELS,
};

pub(crate) use cpu::CpuEngine;
pub(crate) use tensor::{TensorEngine, gather, upload, weighted_error};

/// The images of a training step that this process takes, and each one's noise, timestep, class and loss weight. All lists
/// have the same length.
pub(crate) struct Batch<'a> {
    /// The data set.
    pub(crate) data: &'a Dataset,
    /// The random numbers of the run.
    pub(crate) rng: CounterRng,
    /// The number of images over which the loss is a mean: those of all processes that add their gradients.
    pub(crate) total: usize,
    /// The index of each image in the data set.
    pub(crate) indices: &'a [u32],
    /// The pixels of the shifted images, [B, pixels]; `None` if the images of the data set are used unchanged.
    pub(crate) shifted: Option<Vec<u8>>,
    /// The position of each image in the stream of training images, which addresses its random numbers.
    pub(crate) positions: Vec<u64>,
    /// The timestep of each image.
    pub(crate) t: Vec<usize>,
    /// The class of each image, or the null class.
    pub(crate) labels: Vec<u32>,
    /// The weight of each image's squared error in the loss.
    pub(crate) weights: Vec<f64>,
}

impl Batch<'_> {
    /// The levels of an image by its index in the batch.
    fn image(&self, index: usize) -> &[u8] {
        let pixels = self.data.image_size();
        match &self.shifted {
            Some(shifted) => &shifted[index * pixels..][..pixels],
            None => &self.data.images()[self.indices[index] as usize * pixels..][..pixels],
        }
    }

    /// Fills `eps` [B, pixels] with the noise of the images, of which each takes the nearest of `candidates` draws.
    fn fill_noise(&self, candidates: usize, eps: &mut [f32]) -> Result<()> {
        fill_noise(self.rng, &self.positions, candidates, |index| self.image(index), eps)
    }
}

/// What a step does with the norm of the gradient.
#[derive(Clone, Copy, Debug)]
pub(crate) enum GradNorm {
    /// Nothing.
    Ignore,
    /// Measures it, which takes another pass over memory on a CPU.
    Measure,
    /// Measures it, and multiplies the gradient by max/norm if the norm is larger than this maximum.
    Clip(f64),
}

impl GradNorm {
    /// The maximum, if the gradient is clipped.
    pub(crate) fn max(self) -> Option<f64> {
        if let Self::Clip(max) = self { Some(max) } else { None }
    }
}

/// The weights, the optimizer and the code that computes a gradient.
#[derive(Debug)]
pub(crate) enum Engine {
    Cpu(Box<CpuEngine>),
    Tensor(Box<TensorEngine>),
}

impl Engine {
    /// Chooses the kernels on a CPU and tensors on other devices. `images` is the number of images of each step that this
    /// process takes.
    pub(crate) fn new(
        config: &TrainConfig,
        schedule: &NoiseSchedule,
        data: &Dataset,
        images: usize,
        device: &Device,
    ) -> Result<Self> {
        Ok(if device.is_cpu() {
            ensure_memory(config)?;
            Self::Cpu(Box::new(CpuEngine::new(config, schedule, images)?))
        } else {
            Self::Tensor(Box::new(TensorEngine::new(config, schedule, data, device)?))
        })
    }

    /// Takes a training step. Returns its loss and, unless it is ignored, the norm of the gradient before clipping, as scalar
    /// tensors.
    pub(crate) fn step(
        &mut self,
        batch: &Batch<'_>,
        schedule: &NoiseSchedule,
        size: StepSize,
        norm: GradNorm,
    ) -> Result<(Tensor, Option<Tensor>)> {
        match self {
            // Runs inside the pool: a thread outside of it would sleep and be woken for each layer.
            Self::Cpu(engine) => rayon::scope(|_| engine.step(batch, schedule, size, norm)),
            Self::Tensor(engine) => engine.step(batch, size, norm),
        }
    }

    /// [`Engine::step`] with the sum of the gradients of all processes of a group. `exchange` is a buffer, which later steps use
    /// again.
    pub(crate) fn step_in_group(
        &mut self,
        batch: &Batch<'_>,
        schedule: &NoiseSchedule,
        size: StepSize,
        norm: GradNorm,
        group: Group<'_>,
        exchange: &mut Vec<f32>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let loss = match self {
            Self::Cpu(engine) => rayon::scope(|_| engine.gradient(batch, schedule, exchange))?,
            Self::Tensor(engine) => engine.gradient(batch, exchange)?,
        };
        exchange.push(loss);
        all_reduce(group, exchange)?;
        let loss = Tensor::new(exchange.pop().unwrap_or_default(), self.device())?;
        let norm = match self {
            Self::Cpu(engine) => engine.step_with_gradient(exchange, size, norm)?,
            Self::Tensor(engine) => engine.step_with_gradient(exchange, size, norm)?,
        };
        Ok((loss, norm))
    }

    fn device(&self) -> &Device {
        match self {
            Self::Cpu(_) => &Device::Cpu,
            Self::Tensor(engine) => engine.device(),
        }
    }

    /// Moves the averages by power functions towards the weights, each with its rate.
    pub(crate) fn average(&mut self, rates: [f64; SIGMA_RELS.len()]) -> Result<()> {
        match self {
            Self::Cpu(engine) => engine.average(rates),
            Self::Tensor(engine) => engine.optimizer.average(rates)?,
        }
        Ok(())
    }

    /// A part of the training state, as pairs of parameter name and tensor.
    pub(crate) fn part(&self, part: Part) -> Result<Vec<(String, Tensor)>> {
        match self {
            Self::Cpu(engine) => engine.part(part),
            Self::Tensor(engine) => engine.optimizer.part(part),
        }
    }

    /// The values of a part of the training state, in an order that depends on the network and the engine alone.
    pub(crate) fn values(&mut self, part: Part) -> Result<Vec<f32>> {
        match self {
            Self::Cpu(engine) => Ok(engine.values(part)),
            Self::Tensor(engine) => engine.optimizer.values(part),
        }
    }

    /// The inverse of [`Engine::values`].
    pub(crate) fn set_values(&mut self, part: Part, values: &[f32]) -> Result<()> {
        match self {
            Self::Cpu(engine) => engine.packed(part).copy_from(values),
            Self::Tensor(engine) => engine.optimizer.set_values(part, values)?,
        }
        Ok(())
    }

    /// Sets the training state; `get` returns a tensor by its name in a checkpoint and its shape.
    pub(crate) fn restore(&mut self, get: impl Fn(&str, &[usize]) -> Result<Tensor>) -> Result<()> {
        match self {
            Self::Cpu(engine) => engine.restore(get),
            Self::Tensor(engine) => engine.optimizer.restore(get),
        }
    }
}

/// Checks that the machine has the memory for training on a CPU, before a part of it is used.
fn ensure_memory(config: &TrainConfig) -> Result<()> {
    let parameters = config.denoiser.parameter_count();
    // The parts of the state, and the gradient.
    let needed = parameters.saturating_mul((Part::of_run(config).len() + 1) * size_of::<f32>());
    let gib = |bytes: usize| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    let expected = match total_memory() {
        Some(total) if needed > total => format!("at most {}, the memory of this machine", gib(total)),
        // Reserved memory is not touched, so this takes no time.
        _ if Vec::<u8>::new().try_reserve_exact(needed).is_err() => "what the system gives".to_owned(),
        _ => return Ok(()),
    };
    let name = format!("memory for training a network of {parameters} parameters");
    Err(Error::out_of_range(name, gib(needed), expected + "; a smaller network needs less"))
}

/// The memory of a Linux machine with its swap space in bytes; `None` on other systems.
fn total_memory() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let size = |name: &str| -> Option<usize> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<usize>().ok()?.checked_mul(1024)
    };
    size("MemTotal:")?.checked_add(size("SwapTotal:").unwrap_or_default())
}

#[cfg(test)]
mod tests;
