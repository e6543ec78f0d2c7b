//! A step of optimisation, on a CPU by kernels of our own and on any device by tensors.

mod cpu;
mod tensor;

use candle_core::{Device, Tensor};
use ddpm_core::{AddressedRng, NoiseSchedule};
use ddpm_data::DataSet;

use crate::{
    Result, TrainConfig,
    optimizer::{StatePart, StepSize},
};

pub(crate) use cpu::CpuEngine;
pub(crate) use tensor::{TensorEngine, gather, upload, weighted_error};

/// Which images to train on, and how each is noised. All lists are of one length.
pub(crate) struct Batch<'a> {
    /// Indices into the data set.
    pub(crate) indices: &'a [u32],
    /// The images themselves, [B, pixels], where they are not as they stand in the data set.
    pub(crate) moved: Option<Vec<u8>>,
    /// Positions in the stream of training images: the addresses of their noise.
    pub(crate) positions: Vec<u64>,
    /// A timestep for each.
    pub(crate) t: Vec<usize>,
    /// A class for each, perhaps the null class.
    pub(crate) labels: Vec<u32>,
    /// The weight of each squared error.
    pub(crate) weights: Vec<f64>,
}

/// Weights, optimiser and the means to compute a gradient.
#[derive(Debug)]
pub(crate) enum Engine {
    Cpu(Box<CpuEngine>),
    Tensor(Box<TensorEngine>),
}

impl Engine {
    /// The kernels on a CPU, tensors elsewhere.
    pub(crate) fn new(
        config: &TrainConfig,
        schedule: &NoiseSchedule,
        data: &DataSet,
        device: &Device,
    ) -> Result<Self> {
        if device.is_cpu() {
            Self::cpu(config, schedule)
        } else {
            Self::tensor(config, schedule, data, device)
        }
    }

    fn cpu(config: &TrainConfig, schedule: &NoiseSchedule) -> Result<Self> {
        Ok(Self::Cpu(Box::new(CpuEngine::new(config, schedule)?)))
    }

    fn tensor(
        config: &TrainConfig,
        schedule: &NoiseSchedule,
        data: &DataSet,
        device: &Device,
    ) -> Result<Self> {
        Ok(Self::Tensor(Box::new(TensorEngine::new(config, schedule, data, device)?)))
    }

    /// Takes a step and returns its loss, a scalar.
    pub(crate) fn step(
        &mut self,
        batch: &Batch<'_>,
        data: &DataSet,
        schedule: &NoiseSchedule,
        rng: AddressedRng,
        size: StepSize,
    ) -> Result<Tensor> {
        match self {
            // Inside of the pool: a thread from outside would fall asleep and be woken for each layer.
            Self::Cpu(engine) => rayon::scope(|_| engine.step(batch, data, schedule, rng, size)),
            Self::Tensor(engine) => engine.step(batch, rng, size),
        }
    }

    /// A part of the state, by the names of the parameters.
    pub(crate) fn part(&self, part: StatePart) -> Result<Vec<(String, Tensor)>> {
        match self {
            Self::Cpu(engine) => engine.part(part),
            Self::Tensor(engine) => engine.optimizer.part(part),
        }
    }

    pub(crate) fn restore(&mut self, get: impl Fn(&str, &[usize]) -> Result<Tensor>) -> Result<()> {
        match self {
            Self::Cpu(engine) => engine.restore(get),
            Self::Tensor(engine) => engine.optimizer.restore(get),
        }
    }
}

/// f and s of σ² = f + s·Var x₀, the variance of the reverse step from t (the law of total variance; Bao et al.
/// 2022, arXiv 2201.06503): β̃ₜ and the square of the posterior's factor of x₀. A pixel's level is known to half a
/// bin only, so f is at least the variance of a bin.
pub(crate) fn reverse_variance(schedule: &NoiseSchedule, t: usize) -> Result<[f64; 2]> {
    const BIN: f64 = 2.0 / 255.0;
    let posterior = schedule.posterior_step(t, t.checked_sub(1))?;
    Ok([posterior.variance.max(BIN * BIN / 12.0), posterior.x_start_coef.powi(2)])
}

/// The squared error, in units of its expected size, from which on the bound counts its logarithm: h(r) = r up to
/// k = 20 and k (1 + ln(r/k)) beyond, which has the same slope at k. One stroke where the network was sure of none
/// would otherwise outweigh all other pixels of many batches.
pub(crate) const SURPRISE: f32 = 20.0;

#[cfg(test)]
mod tests {
    use ddpm_core::{LossWeighting, PredictionType, ScheduleConfig};
    use ddpm_data::{Images, Labels};
    use ddpm_model::{DenoiserConfig, Head, Network};

    use super::*;
    use crate::{AdamWConfig, Preset};

    /// The same steps from the same weights by kernels and by tensors, for every kind of output.
    #[test]
    #[allow(clippy::cast_possible_truncation, reason = "small numbers")]
    fn kernels_and_tensors_train_alike() {
        let pixels: Vec<u8> = (0..40 * 30_usize).map(|i| (i * 37 % 256) as u8).collect();
        let images = Images::new("test", 5, 6, pixels).unwrap();
        let labels = Labels { file: "test".into(), values: (0..40).map(|i| i % 3).collect() };
        let data = DataSet::new("test", images, Some(labels)).unwrap();
        let schedule = NoiseSchedule::new(&ScheduleConfig::mnist20()).unwrap();
        let rng = AddressedRng::new(5);
        // The weight of the bound is none, that of the presets, or one beside which the error hardly counts.
        let cases = [
            (PredictionType::Epsilon, Head::Direct, 0.03),
            (PredictionType::Sample, Head::Direct, 0.03),
            (PredictionType::VPrediction, Head::Direct, 0.03),
            (PredictionType::Sample, Head::Gaussian, 0.0),
            (PredictionType::Sample, Head::Gaussian, 0.03),
            (PredictionType::Sample, Head::Gaussian, 10.0),
        ];
        let mlp = Network::Mlp { width: 33, hidden: 70, blocks: 2, embedding: 8 };
        // Patches that go past both edges.
        let patches = Network::PatchMlp {
            patch: 4,
            local: 20,
            code: 18,
            width: 33,
            hidden: 40,
            blocks: 1,
            embedding: 8,
        };
        let cases = [mlp, patches].into_iter().flat_map(|n| cases.map(|case| (n.clone(), case)));
        for (network, (output_type, head, bound)) in cases {
            let config = DenoiserConfig { output_type, head, network, ..DenoiserConfig::mlp(5, 6, 3) };
            let of_t = LossWeighting::VPrediction.weights(&schedule, output_type).unwrap();
            let preset = TrainConfig::preset(Preset::Quick, &data);
            let config = TrainConfig { batch_size: 16, denoiser: config, bound, ..preset };
            let mut kernels = Engine::cpu(&config, &schedule).unwrap();
            let mut tensors = Engine::tensor(&config, &schedule, &data, &Device::Cpu).unwrap();
            for step in 0..8 {
                let t: Vec<usize> = (0..16).map(|i| (i * 3 + step as usize) % 20).collect();
                let indices: Vec<u32> = (0..16).map(|i| (i * 5 + step as u32) % 40).collect();
                let batch = Batch {
                    indices: &indices,
                    moved: (step % 2 == 1).then(|| (0..16 * 30).map(|i| (i * 11 % 256) as u8).collect()),
                    positions: (step * 16..).take(16).collect(),
                    labels: (0..16).map(|i| i % 4).collect(),
                    weights: t.iter().map(|&t| of_t[t]).collect(),
                    t,
                };
                // A large eps keeps the steps smooth in the gradient, which differs in its last bits.
                let adamw = AdamWConfig { eps: 1e-3, ..AdamWConfig::default() };
                let size = StepSize::new(adamw, step, 1e-2, 0.99);
                let loss = |engine: &mut Engine| {
                    let loss = engine.step(&batch, &data, &schedule, rng, size).unwrap();
                    loss.to_scalar::<f32>().unwrap()
                };
                let (ours, theirs) = (loss(&mut kernels), loss(&mut tensors));
                assert!(
                    (ours - theirs).abs() < 1e-4 * theirs,
                    "{output_type:?} {head:?} {bound} step {step}: {ours} {theirs}"
                );
            }
            let state = |engine: &Engine| {
                StatePart::ALL
                    .map(|part| engine.part(part).unwrap())
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
            };
            let (kernels, tensors) = (state(&kernels), state(&tensors));
            for ((name, ours), (other, theirs)) in std::iter::zip(&kernels, &tensors) {
                assert_eq!(name, other);
                let difference = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap();
                let scale = theirs.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                let difference = difference.to_scalar::<f32>().unwrap();
                assert!(
                    difference <= 2e-3 * scale,
                    "{output_type:?} {head:?} {bound} {name}: {difference} of {scale}"
                );
            }
            assert_eq!(kernels.len(), tensors.len());
        }
    }
}
