//! The training loop's state and its step.

use candle_core::{DType, Device, Tensor};
use ddpm_core::{CounterRng, NoiseSchedule, Purpose, ShuffledBatches, TimestepSampler};
use ddpm_data::Dataset;
use ddpm_files::Sha256;
use ddpm_kernels::StatePart;
use ddpm_model::Denoiser;

use crate::{
    Error, Result, TrainConfig,
    augment::shift_images,
    engine::{Batch, Engine, GradNorm, gather, upload, weighted_error},
    group::{Group, ProcessGroup, share, world_size},
    local_sgd::LocalSgd,
    optimizer::StepSize,
    part::Part,
    post_hoc_ema::Timetable,
};

/// A network in training, with its optimizer and its position in the training data.
#[derive(Debug)]
pub struct Trainer<'a> {
    config: TrainConfig,
    schedule: NoiseSchedule,
    data: &'a Dataset,
    batches: ShuffledBatches,
    engine: Engine,
    group: Group<'a>,
    /// The buffer for the gradients of a group.
    exchange: Vec<f32>,
    local_sgd: Option<LocalSgd>,
    timesteps: TimestepSampler,
    rng: CounterRng,
    step: u64,
}

impl<'a> Trainer<'a> {
    /// Starts training with the initial weights of the configuration's seed.
    ///
    /// # Errors
    ///
    /// If the configuration is not valid or does not fit the data, or the tensor library fails.
    pub fn new(config: &TrainConfig, data: &'a Dataset, device: &Device) -> Result<Self> {
        Self::in_group(config, data, device, None)
    }

    /// [`Trainer::new`] for a process that trains together with the others of a group. All of them have the same configuration
    /// and the same data, and take the same steps. Each takes its part of the images of every batch.
    ///
    /// # Errors
    ///
    /// As [`Trainer::new`], and if there are more processes than images in a batch.
    pub fn in_group(
        config: &TrainConfig,
        data: &'a Dataset,
        device: &Device,
        group: Option<&'a dyn ProcessGroup>,
    ) -> Result<Self> {
        config.validate(data)?;
        let images = share(group, config.batch_size).len();
        if group.is_some() && config.batch_size < world_size(group) {
            let expected = format!("at most {}, the number of images of a batch", config.batch_size);
            return Err(Error::out_of_range("the number of processes", world_size(group), expected));
        }
        let schedule = NoiseSchedule::new(&config.schedule)?;
        let batches = ShuffledBatches::new(data.len(), config.batch_size, config.seed)?;
        let mut engine = Engine::new(config, &schedule, data, images, device)?;
        Ok(Self {
            local_sgd: LocalSgd::of_run(config, &mut engine)?,
            engine,
            group,
            exchange: Vec::new(),
            timesteps: TimestepSampler::new(
                config.timestep_sampling,
                config.loss.weights(&schedule, config.denoiser.parameterization)?,
            )?,
            rng: CounterRng::new(config.seed),
            config: config.clone(),
            step: 0,
            schedule,
            data,
            batches,
        })
    }

    /// Takes a step and returns its loss, a scalar tensor on the device. Reading the loss after every step would make a
    /// GPU wait.
    ///
    /// # Errors
    ///
    /// If the tensor library fails.
    pub fn train_step(&mut self) -> Result<Tensor> {
        Ok(self.step_with(GradNorm::Ignore)?.0)
    }

    /// [`Trainer::train_step`], which also returns the norm of the gradient before clipping, a scalar tensor. The weights are
    /// the same bits; it takes another pass over memory.
    ///
    /// # Errors
    ///
    /// As [`Trainer::train_step`].
    pub fn train_step_with_norm(&mut self) -> Result<(Tensor, Option<Tensor>)> {
        self.step_with(GradNorm::Measure)
    }

    fn step_with(&mut self, norm: GradNorm) -> Result<(Tensor, Option<Tensor>)> {
        let norm = self.config.max_grad_norm.map_or(norm, GradNorm::Clip);
        let total = self.total_steps();
        let share = share(self.group, self.config.batch_size);
        let first = self.step * self.config.batch_size as u64 + share.start as u64;
        let null = to_u32(self.config.denoiser.null_class());
        let (rng, dropout) = (self.rng, self.config.cond_drop_prob);

        let indices = &self.batches.batch(self.step)[share];
        // The position of an image in the stream of training images addresses its random numbers.
        let positions: Vec<u64> = (first..).take(indices.len()).collect();
        let drawn = positions.iter().map(|&at| self.timesteps.sample(rng, at));
        let (t, weights) = drawn.collect::<ddpm_core::Result<Vec<_>>>()?.into_iter().unzip();
        let shift = self.config.random_shift;
        let labels = std::iter::zip(indices, &positions).map(|(&index, &at)| {
            let dropped = rng.uniform(Purpose::CLASS_DROPOUT, at, 0) < dropout;
            if dropped { null } else { label(self.data, index, null) }
        });
        let adds_gradients = self.group.is_some() && self.local_sgd.is_none();
        let batch = Batch {
            data: self.data,
            rng,
            total: if adds_gradients { self.config.batch_size } else { indices.len() },
            labels: labels.collect(),
            weights,
            shifted: (shift > 0).then(|| shift_images(self.data, indices, &positions, shift, rng)),
            indices,
            positions,
            t,
        };
        let learning_rate = self.config.learning_rate_at(self.step, total);
        let size = StepSize::new(self.config.adamw, self.step, learning_rate, self.config.ema_decay);
        let Self { engine, schedule, .. } = self;
        let stepped = if adds_gradients {
            engine.step_in_group(&batch, schedule, size, norm, self.group, &mut self.exchange)?
        } else {
            engine.step(&batch, schedule, size, norm)?
        };
        self.step += 1;
        if let Some(rates) = self.timetable().rates(self.step) {
            self.engine.average(rates)?;
        }
        if self.is_synchronised() {
            let parts = self.parts();
            if let Some(local_sgd) = &mut self.local_sgd {
                local_sgd.synchronise(&mut self.engine, &parts, self.group)?;
            }
        }
        Ok(stepped)
    }

    /// Whether all processes of the group have the same state after the steps so far: always, or with
    /// [`TrainConfig::sync_every`] after each such number of steps, after an epoch and at a snapshot of averages.
    #[must_use]
    pub fn is_synchronised(&self) -> bool {
        let step = self.step;
        self.config.sync_every.is_none_or(|every| step.is_multiple_of(every))
            || step.is_multiple_of(self.steps_per_epoch())
            || self.timetable().has_snapshot(step)
    }

    /// The number of steps taken so far.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The number of steps of an epoch. An epoch leaves out the images that do not fill a batch.
    #[must_use]
    pub fn steps_per_epoch(&self) -> u64 {
        self.batches.steps_per_epoch() as u64
    }

    /// The number of steps of the whole run.
    #[must_use]
    pub fn total_steps(&self) -> u64 {
        self.config.epochs * self.steps_per_epoch()
    }

    /// The steps at which averages for snapshots are updated and snapshots are written.
    pub(crate) fn timetable(&self) -> Timetable {
        Timetable { snapshots: self.config.ema_snapshots as u64, total: self.total_steps() }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// The network with the moving average of the weights, which is the network for sampling.
    ///
    /// # Errors
    ///
    /// If the tensor library fails.
    pub fn ema_denoiser(&self) -> Result<Denoiser> {
        Ok(Denoiser::new(
            &self.config.denoiser,
            &self.config.schedule,
            self.engine.part(Part::Step(StatePart::Ema))?.into_iter().collect(),
        )?)
    }

    /// The training state without the number of steps, as tensors named `weights/NAME`, `first/NAME` and `second/NAME`
    /// (the optimizer's moments), `ema/NAME` (the moving average), and with [`TrainConfig::ema_snapshots`] also
    /// `ema-0.05/NAME` and `ema-0.10/NAME` (the averages for the snapshots, which are 0 before their first update), and with
    /// [`TrainConfig::sync_every`] `outer/NAME` (the momentum of the outer optimizer).
    ///
    /// # Errors
    ///
    /// If the tensor library fails.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>> {
        Ok(self.parts().into_iter().map(|part| self.part(part)).collect::<Result<Vec<_>>>()?.concat())
    }

    /// The parts of [`Trainer::state`].
    pub(crate) fn parts(&self) -> Vec<Part> {
        Part::of_run(&self.config)
    }

    /// A part of [`Trainer::state`].
    pub(crate) fn part(&self, part: Part) -> Result<Vec<(String, Tensor)>> {
        let named = |(name, tensor): (String, Tensor)| (part.tensor_name(&name), tensor);
        Ok(self.engine.part(part)?.into_iter().map(named).collect())
    }

    /// Sets the training state to the state after `step` steps. `get` returns a tensor of [`Trainer::state`] by its name
    /// and its shape.
    ///
    /// # Errors
    ///
    /// If `get` or the tensor library fails.
    pub fn restore(&mut self, step: u64, get: impl Fn(&str, &[usize]) -> Result<Tensor>) -> Result<()> {
        self.engine.restore(get)?;
        self.local_sgd = LocalSgd::of_run(&self.config, &mut self.engine)?;
        self.step = step;
        Ok(())
    }
}

impl Trainer<'_> {
    /// Replaces the weights and their average by those of a network of the same architecture, before the first step. Returns
    /// the SHA-256 of the weights.
    pub(crate) fn start_from(&mut self, denoiser: &Denoiser) -> Result<String> {
        if *denoiser.config() != self.config.denoiser {
            let name = "the architecture of the initial network";
            let (found, expected) =
                (format!("{:?}", denoiser.config()), format!("{:?}", self.config.denoiser));
            return Err(Error::out_of_range(name, found, expected));
        }
        let weights = denoiser.weights();
        self.engine.restore(|name, shape| {
            // `weights/NAME` and `ema/NAME` are the weights; the moments and the averages for snapshots are 0.
            let weight = name.split_once('/').filter(|(part, _)| ["weights", "ema"].contains(part));
            match weight.and_then(|(_, name)| weights.get(name)) {
                Some(weight) => Ok(weight.to_device(&Device::Cpu)?),
                None => Ok(Tensor::zeros(shape, DType::F32, &Device::Cpu)?),
            }
        })?;
        self.local_sgd = LocalSgd::of_run(&self.config, &mut self.engine)?;
        let mut digest = Sha256::default();
        let mut names: Vec<_> = weights.keys().collect();
        names.sort();
        for name in names {
            digest.update(name.as_bytes());
            let values = weights[name].flatten_all()?.to_device(&Device::Cpu)?.to_vec1::<f32>()?;
            digest.update(&values.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>());
        }
        Ok(digest.into_hex())
    }
}

/// The loss on the first `limit` images of a data set, usually the test set. Each call uses the same timesteps and the
/// same noise samples.
///
/// # Errors
///
/// If the data does not fit the configuration, `limit` is 0, or the tensor library fails.
pub fn evaluate_loss(denoiser: &Denoiser, config: &TrainConfig, data: &Dataset, limit: usize) -> Result<f64> {
    config.validate(data)?;
    if limit == 0 {
        return Err(Error::out_of_range("limit", limit, "at least 1"));
    }
    let images = upload(data, denoiser.device())?;
    let schedule = denoiser.schedule();
    let weights = config.loss.weights(schedule, config.denoiser.parameterization)?;
    let (rng, null) = (CounterRng::new(config.seed), to_u32(config.denoiser.null_class()));
    let indices: Vec<u32> = (0..to_u32(data.len().min(limit))).collect();
    let mut sum = 0.0;
    for batch in indices.chunks(500) {
        let x_start = gather(&images, batch)?;
        let positions: Vec<u64> = batch.iter().copied().map(u64::from).collect();
        let eps = rng.normal_like(Purpose::EVALUATION, &positions, 0, &x_start)?;
        let t: Vec<usize> = batch.iter().map(|&i| i as usize % schedule.num_train_timesteps()).collect();
        let labels: Vec<u32> = batch.iter().map(|&index| label(data, index, null)).collect();
        let weights: Vec<f64> = t.iter().map(|&t| weights[t]).collect();
        let output = denoiser.forward(&schedule.q_sample(&x_start, &t, &eps)?, &t, &labels)?;
        let error = weighted_error(denoiser, &weights, &output, &x_start, &eps, &t)?;
        let mean = error.to_scalar::<f32>()?;
        sum += f64::from(mean) * batch.len() as f64;
    }
    Ok(sum / indices.len() as f64)
}

/// The class of an image, or `null` if the data set has no labels.
fn label(data: &Dataset, index: u32, null: u32) -> u32 {
    data.labels().map_or(null, |labels| u32::from(labels[index as usize]))
}

/// Converts a number of classes or images, which fits into u32.
fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
