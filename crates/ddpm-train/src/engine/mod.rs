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
mod tests {
    use ddpm_core::{LossWeighting, NoiseScheduleConfig, PredictionType};
    use ddpm_data::{Images, Labels};
    use ddpm_model::{DenoiserConfig, Network};

    use super::*;
    use crate::{AdamWConfig, Preset};

    /// Compares training steps by kernels and by tensors from the same weights, for every parameterization.
    #[test]
    #[allow(clippy::cast_possible_truncation, reason = "small numbers")]
    fn kernels_and_tensors_train_alike() {
        let pixels: Vec<u8> = (0..40 * 30_usize).map(|i| (i * 37 % 256) as u8).collect();
        let images = Images::new("test", 5, 6, pixels).unwrap();
        let labels = Labels { file: "test".into(), values: (0..40).map(|i| i % 3).collect() };
        let data = Dataset::new("test", images, Some(labels)).unwrap();
        let schedule = NoiseSchedule::new(&NoiseScheduleConfig::mnist20()).unwrap();
        let rng = CounterRng::new(5);
        let outputs = [PredictionType::Epsilon, PredictionType::Sample, PredictionType::VPrediction];
        let mlp = Network::Mlp { width: 33, hidden: 70, blocks: 2, embedding: 8 };
        // The patches extend past both edges.
        let patches = Network::PatchMlp {
            patch: 4,
            local: 20,
            code: 18,
            width: 33,
            hidden: 40,
            blocks: 1,
            embedding: 8,
        };
        let cases = [mlp, patches].into_iter().flat_map(|n| outputs.map(|output| (n.clone(), output)));
        for (network, parameterization) in cases {
            let config = DenoiserConfig { parameterization, network, ..DenoiserConfig::mlp(5, 6, 3) };
            let of_t = LossWeighting::VPrediction.weights(&schedule, parameterization).unwrap();
            let preset = TrainConfig::preset(Preset::Quick, &data);
            let config = TrainConfig {
                batch_size: 16,
                denoiser: config,
                ema_snapshots: 1,
                noise_candidates: 2,
                ..preset
            };
            let mut kernels = Engine::new(&config, &schedule, &data, 16, &Device::Cpu).unwrap();
            let tensors = TensorEngine::new(&config, &schedule, &data, &Device::Cpu).unwrap();
            let mut tensors = Engine::Tensor(Box::new(tensors));
            for step in 0..8 {
                let t: Vec<usize> = (0..16).map(|i| (i * 3 + step as usize) % 20).collect();
                let indices: Vec<u32> = (0..16).map(|i| (i * 5 + step as u32) % 40).collect();
                let batch = Batch {
                    data: &data,
                    rng,
                    total: 16,
                    indices: &indices,
                    shifted: (step % 2 == 1).then(|| (0..16 * 30).map(|i| (i * 11 % 256) as u8).collect()),
                    positions: (step * 16..).take(16).collect(),
                    labels: (0..16).map(|i| i % 4).collect(),
                    weights: t.iter().map(|&t| of_t[t]).collect(),
                    t,
                };
                // With a large eps, the step depends smoothly on the gradient, whose last bits differ.
                let adamw = AdamWConfig { eps: 1e-3, ..AdamWConfig::default() };
                let size = StepSize::new(adamw, step, 1e-2, 0.99);
                // Each kind of step, with a gradient that is longer than the maximum.
                let norm = [GradNorm::Ignore, GradNorm::Measure, GradNorm::Clip(1e-3)][step as usize % 3];
                let run = |engine: &mut Engine| {
                    let (loss, norm) = engine.step(&batch, &schedule, size, norm).unwrap();
                    let norm = norm.map(|norm| norm.to_scalar::<f32>().unwrap());
                    (loss.to_scalar::<f32>().unwrap(), norm)
                };
                let ((ours, our_norm), (theirs, their_norm)) = (run(&mut kernels), run(&mut tensors));
                for engine in [&mut kernels, &mut tensors] {
                    engine.average([1.0 / (step as f64 + 1.0), 0.9]).unwrap();
                }
                let what = format!("{parameterization:?} step {step}: {ours} {theirs}");
                assert!((ours - theirs).abs() < 1e-4 * theirs, "{what}");
                assert_eq!(our_norm.is_some(), step % 3 > 0, "{what}");
                if let (Some(ours), Some(theirs)) = (our_norm, their_norm) {
                    assert!((ours - theirs).abs() < 1e-3 * theirs && ours > 1e-3, "{what}: {ours} {theirs}");
                }
            }
            let state = |engine: &Engine| {
                Part::of_run(&config)
                    .into_iter()
                    .flat_map(|part| engine.part(part).unwrap())
                    .collect::<Vec<_>>()
            };
            let (kernels, tensors) = (state(&kernels), state(&tensors));
            for ((name, ours), (other, theirs)) in std::iter::zip(&kernels, &tensors) {
                assert_eq!(name, other);
                let difference = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap();
                let scale = theirs.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                let difference = difference.to_scalar::<f32>().unwrap();
                assert!(difference <= 2e-3 * scale, "{parameterization:?} {name}: {difference} of {scale}");
            }
            assert_eq!(kernels.len(), tensors.len());
        }
    }
}
