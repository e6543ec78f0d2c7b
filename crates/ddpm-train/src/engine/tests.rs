//! The engines beside each other, and engines of several processes.

use std::{cell::RefCell, collections::VecDeque, iter::zip, ops::Range};

use ddpm_core::{LossWeighting, NoiseScheduleConfig, PredictionType};
use ddpm_data::{Images, Labels};
use ddpm_model::{DenoiserConfig, Network};

use super::*;
use crate::{AdamWConfig, GroupError, Preset, ProcessGroup, local_sgd::LocalSgd};

const BATCH: usize = 16;
const MLP: Network = Network::Mlp { width: 33, hidden: 70, blocks: 2, embedding: 8 };
/// The patches extend past both edges.
const PATCHES: Network =
    Network::PatchMlp { patch: 4, local: 20, code: 18, width: 33, hidden: 40, blocks: 1, embedding: 8 };
/// Of each kind one, with a maximum that the gradient exceeds.
const NORMS: [GradNorm; 3] = [GradNorm::Ignore, GradNorm::Measure, GradNorm::Clip(1e-3)];

/// What the engines of a test have in common.
struct Setting {
    data: Dataset,
    schedule: NoiseSchedule,
    config: TrainConfig,
}

impl Setting {
    #[allow(clippy::cast_possible_truncation, reason = "small numbers")]
    fn new(network: Network, parameterization: PredictionType) -> Self {
        let pixels: Vec<u8> = (0..40 * 30_usize).map(|i| (i * 37 % 256) as u8).collect();
        let images = Images::new("test", 5, 6, pixels).unwrap();
        let labels = Labels { file: "test".into(), values: (0..40).map(|i| i % 3).collect() };
        let data = Dataset::new("test", images, Some(labels)).unwrap();
        let config = TrainConfig {
            batch_size: BATCH,
            denoiser: DenoiserConfig { parameterization, network, ..DenoiserConfig::mlp(5, 6, 3) },
            ema_snapshots: 1,
            noise_candidates: 2,
            ..TrainConfig::preset(Preset::Quick, &data)
        };
        let schedule = NoiseSchedule::new(&NoiseScheduleConfig::mnist20()).unwrap();
        Self { data, schedule, config }
    }

    fn kernels(&self) -> Engine {
        Engine::new(&self.config, &self.schedule, &self.data, BATCH, &Device::Cpu).unwrap()
    }

    fn tensor_engine(&self) -> TensorEngine {
        TensorEngine::new(&self.config, &self.schedule, &self.data, &Device::Cpu).unwrap()
    }

    fn tensors(&self) -> Engine {
        Engine::Tensor(Box::new(self.tensor_engine()))
    }

    /// A range of the batch of a step.
    #[allow(clippy::cast_possible_truncation, reason = "small numbers")]
    fn with_batch<T>(&self, step: u64, range: Range<usize>, run: impl FnOnce(&Batch<'_>) -> T) -> T {
        let parameterization = self.config.denoiser.parameterization;
        let of_t = LossWeighting::VPrediction.weights(&self.schedule, parameterization).unwrap();
        let indices: Vec<u32> = range.clone().map(|i| (i as u32 * 5 + step as u32) % 40).collect();
        let t: Vec<usize> = range.clone().map(|i| (i * 3 + step as usize) % 20).collect();
        let pixel = |i: usize| (i * 11 % 256) as u8;
        run(&Batch {
            data: &self.data,
            rng: CounterRng::new(5),
            total: BATCH,
            indices: &indices,
            shifted: (step % 2 == 1).then(|| (range.start * 30..range.end * 30).map(pixel).collect()),
            positions: range.clone().map(|i| step * 16 + i as u64).collect(),
            labels: range.map(|i| i as u32 % 4).collect(),
            weights: t.iter().map(|&t| of_t[t]).collect(),
            t,
        })
    }

    /// Takes a step with the whole batch, and returns the loss and the norm.
    fn step(&self, engine: &mut Engine, step: u64) -> (f32, Option<f32>) {
        self.with_batch(step, 0..BATCH, |batch| {
            numbers(engine.step(batch, &self.schedule, size(step), norm(step)).unwrap())
        })
    }
}

/// With a large eps, the step depends smoothly on the gradient, whose last bits differ.
fn size(step: u64) -> StepSize {
    StepSize::new(AdamWConfig { eps: 1e-3, ..AdamWConfig::default() }, step, 1e-2, 0.99)
}

fn norm(step: u64) -> GradNorm {
    NORMS[usize::try_from(step % 3).unwrap()]
}

fn numbers((loss, norm): (Tensor, Option<Tensor>)) -> (f32, Option<f32>) {
    (loss.to_scalar().unwrap(), norm.map(|norm| norm.to_scalar().unwrap()))
}

/// Compares all parts of the state: each difference is at most `tolerance` of the largest number of its tensor.
fn check_near(config: &TrainConfig, ours: &Engine, theirs: &Engine, tolerance: f32) {
    for part in Part::of_run(config) {
        let (ours, theirs) = (ours.part(part).unwrap(), theirs.part(part).unwrap());
        assert_eq!(ours.len(), theirs.len());
        for ((name, ours), (other, theirs)) in zip(ours, theirs) {
            assert_eq!(name, other);
            let largest =
                |tensor: &Tensor| tensor.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            let (difference, scale) = (largest(&(ours - &theirs).unwrap()), largest(&theirs));
            assert!(difference <= tolerance * scale, "{part:?} {name}: {difference} of {scale}");
        }
    }
}

/// Compares training steps by kernels and by tensors from the same weights, for every parameterization.
#[test]
fn kernels_and_tensors_train_alike() {
    let outputs = [PredictionType::Epsilon, PredictionType::Sample, PredictionType::VPrediction];
    let cases = [MLP, PATCHES].into_iter().flat_map(|n| outputs.map(|output| (n.clone(), output)));
    for (network, parameterization) in cases {
        let setting = Setting::new(network, parameterization);
        let (mut kernels, mut tensors) = (setting.kernels(), setting.tensors());
        for step in 0..8 {
            let (ours, our_norm) = setting.step(&mut kernels, step);
            let (theirs, their_norm) = setting.step(&mut tensors, step);
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
        check_near(&setting.config, &kernels, &tensors, 2e-3);
    }
}

/// The process of rank 0 of two. The other one has sent these values.
#[derive(Debug)]
struct WithOther(RefCell<VecDeque<Vec<f32>>>);

impl WithOther {
    fn new(sent: impl IntoIterator<Item = Vec<f32>>) -> Self {
        Self(RefCell::new(sent.into_iter().collect()))
    }
}

impl ProcessGroup for WithOther {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        2
    }

    fn all_reduce(&self, values: &mut [f32]) -> std::result::Result<(), GroupError> {
        let sent = self.0.borrow_mut().pop_front().ok_or("nothing was sent")?;
        assert_eq!(sent.len(), values.len());
        zip(values, sent).for_each(|(sum, value)| *sum += value);
        Ok(())
    }

    fn broadcast(&self, _: &mut Vec<u8>) -> std::result::Result<(), GroupError> {
        Ok(())
    }
}

/// Steps of a process with 7 of 16 images, and the gradients of another one with the rest, against steps with all images.
#[test]
fn tensors_of_two_processes_train_as_those_of_one() {
    let setting = Setting::new(PATCHES, PredictionType::VPrediction);
    let (mut first, mut alone) = (setting.tensors(), setting.tensors());
    let mut exchange = Vec::new();
    for step in 0..6 {
        // The other process has the same weights.
        let mut other = setting.tensor_engine();
        let weights = first.values(Part::WEIGHTS).unwrap();
        other.optimizer.set_values(Part::WEIGHTS, &weights).unwrap();
        let sent = setting.with_batch(step, 7..BATCH, |batch| {
            let mut gradient = Vec::new();
            let loss = other.gradient(batch, &mut gradient).unwrap();
            gradient.push(loss);
            gradient
        });
        let group = WithOther::new([sent]);
        let (loss, norm) = setting.with_batch(step, 0..7, |batch| {
            let (size, norm) = (size(step), norm(step));
            let group = Some(&group as &dyn ProcessGroup);
            numbers(first.step_in_group(batch, &setting.schedule, size, norm, group, &mut exchange).unwrap())
        });
        let (of_all, norm_of_all) = setting.step(&mut alone, step);
        assert!((loss / of_all - 1.0).abs() < 1e-5, "step {step}: {loss} {of_all}");
        assert_eq!(norm.is_some(), norm_of_all.is_some());
        for (norm, of_all) in zip(norm, norm_of_all) {
            assert!((norm / of_all - 1.0).abs() < 1e-4, "step {step}: {norm} {of_all}");
        }
    }
    check_near(&setting.config, &first, &alone, 2e-4);
}

/// A synchronisation without momentum gives the network, too, the mean of both processes.
#[test]
fn tensors_of_two_processes_are_averaged() {
    let mut setting = Setting::new(MLP, PredictionType::Epsilon);
    setting.config.sync_every = Some(3);
    let parts = Part::of_run(&setting.config);
    let (mut first, mut second) = (setting.tensors(), setting.tensors());
    let mut local_sgd = LocalSgd::of_run(&setting.config, &mut first).unwrap().unwrap();
    for step in 0..3 {
        setting.step(&mut first, step);
        setting.step(&mut second, step + 3);
    }
    let values =
        |engine: &mut Engine| parts.iter().map(|&part| engine.values(part).unwrap()).collect::<Vec<_>>();
    let (before, sent) = (values(&mut first), values(&mut second));
    assert_ne!(before, sent);
    // The outer momentum is the last part, which is not sent.
    assert_eq!(parts.last(), Some(&Part::Outer));
    let group = WithOther::new(sent[..sent.len() - 1].iter().cloned());
    local_sgd.synchronise(&mut first, &parts, Some(&group)).unwrap();
    assert!(group.0.borrow().is_empty());
    let mean = |a: &f32, b: &f32| (a + b) / 2.0;
    for (at, after) in values(&mut first).iter().enumerate().take(parts.len() - 1) {
        let near = |(after, mean): (&f32, f32)| (after - mean).abs() < 1e-6;
        let means = zip(&before[at], &sent[at]).map(|(a, b)| mean(a, b));
        assert!(zip(after, means).all(near), "{:?}", parts[at]);
    }
    // The next step starts from the common weights: its loss is that of an engine that was given them.
    let mut given = setting.tensors();
    given.set_values(Part::WEIGHTS, &first.values(Part::WEIGHTS).unwrap()).unwrap();
    assert_eq!(setting.step(&mut first, 6).0, setting.step(&mut given, 6).0);
}
