//! A step of optimisation, on a CPU by kernels of our own and on any device by tensors.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use ddpm_core::{AddressedRng, NoiseSchedule, PredictionType, Purpose};
use ddpm_data::{DataSet, to_model_scale};
use ddpm_model::{
    Denoiser, Parameter,
    cpu::{CpuNetwork, Workspace},
    initial_weights,
};
use rayon::prelude::*;

use crate::{
    Result, TrainConfig,
    optimizer::{HostAdamW, StepSize, TensorAdamW},
};

/// Which images to train on, and how each is noised. All lists are of one length.
pub(crate) struct Batch<'a> {
    /// Indices into the data set.
    pub(crate) indices: &'a [u32],
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

    /// Tensors, on any device.
    pub(crate) fn tensor(
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
            Self::Cpu(engine) => engine.step(batch, data, schedule, rng, size),
            Self::Tensor(engine) => engine.step(batch, rng, size),
        }
    }

    pub(crate) fn ema(&self) -> Result<HashMap<String, Tensor>> {
        let list = match self {
            Self::Cpu(engine) => engine.optimizer.ema()?,
            Self::Tensor(engine) => engine.optimizer.ema(),
        };
        Ok(list.into_iter().collect())
    }

    pub(crate) fn state(&self) -> Result<Vec<(String, Tensor)>> {
        match self {
            Self::Cpu(engine) => engine.optimizer.state(),
            Self::Tensor(engine) => engine.optimizer.state(),
        }
    }

    pub(crate) fn restore(&mut self, get: impl Fn(&str, &[usize]) -> Result<Tensor>) -> Result<()> {
        match self {
            Self::Cpu(engine) => engine.optimizer.restore(get),
            Self::Tensor(engine) => engine.optimizer.restore(get),
        }
    }
}

/// Plain memory throughout; nothing is allocated in a step but the lists of the batch.
#[derive(Debug)]
pub(crate) struct CpuEngine {
    network: CpuNetwork,
    workspace: Workspace,
    gradients: Vec<Vec<f32>>,
    optimizer: HostAdamW,
    /// Noised images, [B, pixels].
    x_t: Vec<f32>,
    /// What the output should be, [B, pixels]; holds ε on the way.
    target: Vec<f32>,
}

impl CpuEngine {
    fn new(train: &TrainConfig, schedule: &NoiseSchedule) -> Result<Self> {
        let (config, batch) = (&train.denoiser, train.batch_size);
        let weights = initial_weights(config, train.seed, &Device::Cpu)?;
        let parameters = config.parameters();
        let values = parameters.iter().map(|p| weights[&p.name].flatten_all()?.to_vec1());
        let values = values.collect::<candle_core::Result<_>>()?;
        let network = CpuNetwork::new(config, schedule.num_train_timesteps());
        let pixels = batch * config.pixels();
        Ok(Self {
            workspace: network.workspace(batch, true),
            network,
            gradients: parameters.iter().map(|p| vec![0.0; p.shape.iter().product()]).collect(),
            optimizer: HostAdamW::new(parameters, values),
            x_t: vec![0.0; pixels],
            target: vec![0.0; pixels],
        })
    }

    #[allow(clippy::cast_possible_truncation, reason = "coefficients are computed in f64 and rounded once")]
    fn step(
        &mut self,
        batch: &Batch<'_>,
        data: &DataSet,
        schedule: &NoiseSchedule,
        rng: AddressedRng,
        size: StepSize,
    ) -> Result<Tensor> {
        let (images, pixels) = (batch.indices.len(), data.image_size());
        rng.fill_normal(Purpose::TrainNoise, &batch.positions, 0, &mut self.target)?;
        let kind = self.network.output_type();
        let rows = self.x_t.par_chunks_mut(pixels).zip(self.target.par_chunks_mut(pixels));
        rows.zip(batch.indices).zip(&batch.t).for_each(|(((x_t, target), &index), &t)| {
            let alpha_bar = schedule.alphas_cumprod()[t];
            let (signal, noise) = (alpha_bar.sqrt() as f32, (1.0 - alpha_bar).sqrt() as f32);
            let image = &data.images()[index as usize * pixels..][..pixels];
            for ((x_t, target), &pixel) in x_t.iter_mut().zip(target).zip(image) {
                let (x_start, eps) = (to_model_scale(pixel), *target);
                *x_t = signal * x_start + noise * eps;
                *target = match kind {
                    PredictionType::Epsilon => eps,
                    PredictionType::Sample => x_start,
                    PredictionType::VPrediction => signal * eps - noise * x_start,
                };
            }
        });
        self.network.forward(
            &self.optimizer.weights,
            &mut self.workspace,
            &self.x_t,
            &batch.t,
            &batch.labels,
        );

        // The mean over pixels and images of weight · (output − target)², and its gradient.
        let scale = 1.0 / (images * pixels) as f64;
        let weights: Vec<f32> = batch.weights.iter().map(|weight| (weight * scale) as f32).collect();
        let (output, gradient) = self.workspace.output_gradient();
        let target = &self.target;
        let rows = gradient.par_chunks_mut(images).zip(output.par_chunks(images)).enumerate();
        let losses: Vec<f64> = rows
            .map(|(pixel, (gradient, output))| {
                let mut sum = 0.0;
                for (image, ((gradient, output), weight)) in
                    gradient.iter_mut().zip(output).zip(&weights).enumerate()
                {
                    let error = output - target[image * pixels + pixel];
                    *gradient = 2.0 * weight * error;
                    sum += weight * error * error;
                }
                f64::from(sum)
            })
            .collect();
        self.network.backward(&self.optimizer.weights, &mut self.workspace, &mut self.gradients);
        self.optimizer.step(&self.gradients, size);
        // Summed in the order of the pixels, whichever thread was first.
        Ok(Tensor::new(losses.iter().sum::<f64>() as f32, &Device::Cpu)?)
    }
}

/// Tensors and autograd; the data set is on the device, so that a step copies only noise to it.
#[derive(Debug)]
pub(crate) struct TensorEngine {
    denoiser: Denoiser,
    /// [N, pixels], as bytes: a quarter of the memory of f32.
    images: Tensor,
    optimizer: TensorAdamW,
}

impl TensorEngine {
    fn new(train: &TrainConfig, schedule: &NoiseSchedule, data: &DataSet, device: &Device) -> Result<Self> {
        let config = &train.denoiser;
        let weights = initial_weights(config, train.seed, device)?;
        // In the order of the layers, not of the hash map, so that every run is alike.
        let var = |p: Parameter| Ok((p.name.clone(), Var::from_tensor(&weights[&p.name])?));
        let vars: Vec<(String, Var)> = config.parameters().into_iter().map(var).collect::<Result<_>>()?;
        let tensors = vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        Ok(Self {
            denoiser: Denoiser::new(config, schedule.config(), tensors)?,
            images: upload(data, device)?,
            optimizer: TensorAdamW::new(vars)?,
        })
    }

    fn step(&mut self, batch: &Batch<'_>, rng: AddressedRng, size: StepSize) -> Result<Tensor> {
        let x_start = gather(&self.images, batch.indices)?;
        let eps = rng.normal_like(Purpose::TrainNoise, &batch.positions, 0, &x_start)?;
        let loss = loss(&self.denoiser, &batch.weights, &x_start, &eps, &batch.t, &batch.labels)?;
        self.optimizer.step(&loss.backward()?, size)?;
        Ok(loss.detach())
    }
}

/// A data set on a device, [N, pixels] as bytes.
pub(crate) fn upload(data: &DataSet, device: &Device) -> Result<Tensor> {
    Ok(Tensor::from_slice(data.images(), (data.len(), data.image_size()), device)?)
}

/// Some of the images, on the scale [−1, 1].
pub(crate) fn gather(images: &Tensor, indices: &[u32]) -> Result<Tensor> {
    let indices = Tensor::new(indices, images.device())?;
    Ok(images.index_select(&indices, 0)?.to_dtype(DType::F32)?.affine(1.0 / 127.5, -1.0)?)
}

/// The weighted mean squared error of the network's raw output, a scalar.
pub(crate) fn loss(
    denoiser: &Denoiser,
    weights: &[f64],
    x_start: &Tensor,
    eps: &Tensor,
    t: &[usize],
    labels: &[u32],
) -> Result<Tensor> {
    let schedule = denoiser.schedule();
    let x_t = schedule.q_sample(x_start, t, eps)?;
    let target = match denoiser.config().output_type {
        PredictionType::Epsilon => eps.clone(),
        PredictionType::Sample => x_start.clone(),
        PredictionType::VPrediction => schedule.velocity(x_start, t, eps)?,
    };
    let squares = (denoiser.forward(&x_t, t, labels)? - target)?.sqr()?;
    let weights = Tensor::new(weights, &Device::Cpu)?.to_dtype(DType::F32)?.to_device(x_start.device())?;
    Ok((squares.mean(1)? * weights)?.mean_all()?)
}

#[cfg(test)]
mod tests {
    use ddpm_core::ScheduleConfig;
    use ddpm_data::{Images, Labels};
    use ddpm_model::{DenoiserConfig, Network};

    use super::*;
    use crate::{AdamWConfig, Loss, Preset};

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
        for output_type in [PredictionType::Epsilon, PredictionType::Sample, PredictionType::VPrediction] {
            let network = Network::Mlp { width: 33, hidden: 70, blocks: 2, embedding: 8 };
            let config = DenoiserConfig { output_type, network, ..DenoiserConfig::mlp(5, 6, 3) };
            let of_t = Loss::VPrediction.weights(&schedule, output_type).unwrap();
            let config =
                TrainConfig { batch_size: 16, denoiser: config, ..TrainConfig::preset(Preset::Quick, &data) };
            let mut kernels = Engine::cpu(&config, &schedule).unwrap();
            let mut tensors = Engine::tensor(&config, &schedule, &data, &Device::Cpu).unwrap();
            for step in 0..8 {
                let t: Vec<usize> = (0..16).map(|i| (i * 3 + step as usize) % 20).collect();
                let indices: Vec<u32> = (0..16).map(|i| (i * 5 + step as u32) % 40).collect();
                let batch = Batch {
                    indices: &indices,
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
                    "{output_type:?} step {step}: {ours} {theirs}"
                );
            }
            let (kernels, tensors) = (kernels.state().unwrap(), tensors.state().unwrap());
            for (name, ours) in &kernels {
                let theirs = &tensors.iter().find(|(other, _)| other == name).unwrap().1;
                let difference = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap();
                let scale = theirs.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                let difference = difference.to_scalar::<f32>().unwrap();
                assert!(difference < 2e-3 * scale, "{output_type:?} {name}: {difference} of {scale}");
            }
            assert_eq!(kernels.len(), tensors.len());
        }
    }
}
