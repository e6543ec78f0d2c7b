//! The scheduler: one thread holds the runs of all clients and answers their requests in batches.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::sync::{mpsc as events, oneshot};

use super::{client::Client, request::Asked};

/// The most runs and classifications that wait or are carried out at a time.
const CLIENTS: usize = 256;

/// The most images in an evaluation of the network, unless one run has more.
const BATCH: usize = 256;

/// The events that wait for a client, after which its run pauses.
const EVENTS: usize = 32;

/// A client that takes no event for this time loses its run.
const PATIENCE: Duration = Duration::from_secs(30);

/// What happens in a run.
#[derive(Debug)]
pub(super) enum Event {
    /// The grey levels of the images before the first step.
    Start(Vec<u8>),
    Step(Step),
    Failed(String),
}

/// The images after a step.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) index: usize,
    pub(super) total: usize,
    /// The timestep at which the network was evaluated.
    pub(super) t: usize,
    /// The factors of x₀ and of the noise in xₜ after the step.
    pub(super) signal: f64,
    pub(super) noise: f64,
    /// The grey levels of xₜ.
    pub(super) x_t: Vec<u8>,
    /// Those of x̂₀.
    pub(super) x_start: Vec<u8>,
}

/// Other work that the thread does, such as a classification.
type Work = Box<dyn FnOnce() + Send>;

enum Task {
    Sample(Box<Client>),
    Work(Work, Slot),
}

/// A place among the clients, free again when it is dropped.
pub(super) struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Hands work to the thread.
#[derive(Clone, Debug)]
pub(super) struct Scheduler {
    tasks: mpsc::Sender<Task>,
    clients: Arc<AtomicUsize>,
}

/// All places are taken.
#[derive(Debug)]
pub(super) struct Full;

impl Scheduler {
    /// Starts the thread. It ends with the last handle.
    ///
    /// # Errors
    /// The system starts no thread.
    pub(super) fn start() -> Result<Self> {
        let (tasks, received) = mpsc::channel();
        let name = "scheduler".to_owned();
        thread::Builder::new()
            .name(name)
            .spawn(move || carry_out(&received))
            .context("cannot start a thread")?;
        Ok(Self { tasks, clients: Arc::default() })
    }

    fn slot(&self) -> Result<Slot, Full> {
        let slot = Slot(self.clients.clone());
        if self.clients.fetch_add(1, Ordering::Relaxed) < CLIENTS { Ok(slot) } else { Err(Full) }
    }

    /// Samples images. The channel of the events ends after the last step; dropping it ends the run.
    pub(super) fn sample(&self, asked: Asked) -> Result<events::Receiver<Event>, Full> {
        let (sender, receiver) = events::channel(EVENTS);
        let client = Client::new(asked, sender, self.slot()?);
        // The thread ends only with the last handle.
        self.tasks.send(Task::Sample(Box::new(client))).map_err(|_| Full)?;
        Ok(receiver)
    }

    /// Does other work of the network between two evaluations.
    pub(super) fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, Full> {
        let (sender, receiver) = oneshot::channel();
        let work = Box::new(move || {
            if !sender.is_closed() {
                drop(sender.send(work()));
            }
        });
        self.tasks.send(Task::Work(work, self.slot()?)).map_err(|_| Full)?;
        Ok(receiver)
    }
}

fn carry_out(tasks: &mpsc::Receiver<Task>) {
    let (mut clients, mut works) = (VecDeque::<Client>::new(), VecDeque::new());
    let mut wait = Duration::ZERO;
    loop {
        let next = if clients.is_empty() && works.is_empty() {
            tasks.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            tasks.recv_timeout(wait)
        };
        match next {
            Ok(Task::Sample(client)) => clients.push_back(*client),
            Ok(Task::Work(work, slot)) => works.push_back((work, slot)),
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                if let Some((work, slot)) = works.pop_front() {
                    work();
                    drop(slot);
                }
                let worked = round(&mut clients);
                // Clients that have not taken their events yet.
                wait = if worked || !works.is_empty() { Duration::ZERO } else { Duration::from_millis(2) };
            }
        }
    }
}

/// Answers one request of each of the first clients, in one evaluation, and puts them behind the others. Returns whether
/// there was a client to answer.
fn round(clients: &mut VecDeque<Client>) -> bool {
    let (mut batch, mut images) = (Vec::new(), 0);
    let now = Instant::now();
    for _ in 0..clients.len() {
        let Some(client) = clients.pop_front() else { break };
        if client.is_gone() || client.waits_since(now) > PATIENCE {
            continue;
        }
        let fits = batch.is_empty() || images + client.images() <= BATCH;
        let is_like = batch.first().is_none_or(|first: &Client| first.has_model_of(&client));
        if client.is_ready() && fits && is_like {
            images += client.images();
            batch.push(client);
        } else {
            clients.push_back(client);
        }
    }
    let worked = !batch.is_empty();
    clients.extend(Client::answer_all(batch));
    worked
}
