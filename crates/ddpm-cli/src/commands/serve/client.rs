//! A client's run in the scheduler.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use ddpm_core::{Ask, Run};
use ddpm_model::{Denoiser, NoiseSource, Request};
use tokio::sync::mpsc::{Sender, error::TrySendError};

use super::{
    request::{Asked, FRAMES},
    scheduler::{Event, Slot, Step},
};
use crate::commands::{
    job::{Part, grey_levels},
    sample::shown,
};

/// A run and whoever waits for its events.
pub(super) struct Client {
    asked: Asked,
    part: Part,
    /// `None` before the first evaluation.
    run: Option<(Run, NoiseSource)>,
    events: Sender<Event>,
    /// When the client last took an event.
    active: Mutex<Instant>,
    _slot: Slot,
}

impl Client {
    pub(super) fn new(asked: Asked, events: Sender<Event>, slot: Slot) -> Self {
        let part = asked.job.all();
        Self { asked, part, run: None, events, active: Instant::now().into(), _slot: slot }
    }

    pub(super) fn images(&self) -> usize {
        self.part.images.len()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.events.is_closed()
    }

    /// Whether there is room for the events of an answer.
    pub(super) fn is_ready(&self) -> bool {
        self.events.capacity() >= 2
    }

    /// The time for which the client has taken no event although some wait for it.
    pub(super) fn waits_since(&self, now: Instant) -> Duration {
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_ready() {
            *active = now;
        }
        now.saturating_duration_since(*active)
    }

    pub(super) fn has_model_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.asked.model.denoiser, &other.asked.model.denoiser)
    }

    /// Answers one request of each client, whose models are the same, and returns those whose runs go on.
    pub(super) fn answer_all(batch: Vec<Self>) -> Vec<Self> {
        let Some(denoiser) = batch.first().map(|client| client.asked.model.denoiser.clone()) else {
            return batch;
        };
        let mut asks = Vec::with_capacity(batch.len());
        for mut client in batch {
            match client.ask() {
                Ok(Some(ask)) => asks.push((client, ask)),
                Ok(None) => {}
                Err(error) => client.send(Event::Failed(format!("{error:#}"))),
            }
        }
        let requests: Vec<_> = asks.iter().map(|(client, ask)| client.request(ask)).collect();
        match denoiser.outputs(&requests) {
            Ok(outputs) => {
                let answered = std::iter::zip(asks, outputs).map(|((client, ask), output)| {
                    drop(ask);
                    client.answered(&denoiser, &output)
                });
                answered.flatten().collect()
            }
            Err(error) => {
                asks.iter().for_each(|(client, _)| client.send(Event::Failed(error.to_string())));
                Vec::new()
            }
        }
    }

    fn request<'a>(&'a self, ask: &'a Ask) -> Request<'a> {
        let guidance = self.asked.job.config.guidance.scales_at(ask.timestep);
        Request { x_t: &ask.x_t, t: ask.timestep.index(), labels: &self.part.labels, guidance }
    }

    /// The next request of the run, which starts if it has not yet.
    fn ask(&mut self) -> Result<Option<Ask>> {
        let (config, images) = (&self.asked.job.config, &self.part.images);
        if self.run.is_none() {
            let run = self.asked.model.denoiser.start(config, images)?;
            self.send(Event::Start(grey_levels(run.x_t())?));
            self.run = Some((run, Denoiser::noise_source(config, images)?));
        }
        let (run, _) = self.run.as_mut().context("the run has not started")?;
        Ok(run.ask()?)
    }

    /// Goes on with the network's output; `None` if the run has ended.
    fn answered(mut self, denoiser: &Denoiser, output: &Tensor) -> Option<Self> {
        match self.go_on(denoiser, output) {
            Ok(true) => Some(self),
            Ok(false) => None,
            Err(error) => {
                self.send(Event::Failed(format!("{error:#}")));
                None
            }
        }
    }

    /// Whether the run goes on.
    fn go_on(&mut self, denoiser: &Denoiser, output: &Tensor) -> Result<bool> {
        let is_finite = output.flatten_all()?.to_vec1::<f32>()?.iter().all(|x| x.is_finite());
        ensure!(is_finite, "a prediction of the model is NaN or infinite");
        let (config, images) = (&self.asked.job.config, &self.part.images);
        let (run, noise) = self.run.as_mut().context("the run has not started")?;
        run.answer(output, &*noise)?;
        if run.step().is_some() {
            denoiser.keep_known(config, images, run)?;
        }
        let Some(step) = run.step() else { return Ok(true) };
        let (index, total) = (step.index, step.total);
        if shown(total, FRAMES).any(|steps| steps == index + 1) {
            let event = Event::Step(Step {
                index,
                total,
                t: step.timestep.index(),
                signal: step.signal,
                noise: step.noise,
                x_t: grey_levels(step.x_t)?,
                x_start: grey_levels(step.x_start)?,
            });
            self.send(event);
        }
        Ok(index + 1 < total)
    }

    /// Sends an event, for which [`Client::is_ready`] has found room.
    fn send(&self, event: Event) {
        match self.events.try_send(event) {
            Ok(()) | Err(TrySendError::Closed(_) | TrySendError::Full(_)) => {}
        }
    }
}
