//! Training on several processes; here, threads stand in for them.

use std::{
    iter::zip,
    path::Path,
    sync::{Arc, Barrier, Mutex, atomic::AtomicBool},
    thread,
};

use candle_core::{Device, Tensor};
use ddpm_data::Dataset;
use ddpm_train::{
    Error, Event, GroupError, Outcome, ProcessGroup, RunOptions, Start, TrainConfig, Trainer, run,
};
use tempfile::tempdir;

use crate::{bits, config, names, options, records, splits, unlabelled, values};

/// A thread of a group.
#[derive(Debug)]
struct Member {
    rank: usize,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    values: Mutex<Vec<Vec<f32>>>,
    bytes: Mutex<Vec<u8>>,
    barrier: Barrier,
}

impl ProcessGroup for Member {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.shared.values.lock().unwrap().len()
    }

    fn all_reduce(&self, values: &mut [f32]) -> Result<(), GroupError> {
        self.shared.values.lock().unwrap()[self.rank] = values.to_vec();
        self.shared.barrier.wait();
        let all = self.shared.values.lock().unwrap().clone();
        self.shared.barrier.wait();
        values.copy_from_slice(&all[0]);
        for other in &all[1..] {
            assert_eq!(other.len(), values.len());
            zip(&mut *values, other).for_each(|(sum, value)| *sum += value);
        }
        Ok(())
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<(), GroupError> {
        if self.rank == 0 {
            self.shared.bytes.lock().unwrap().clone_from(bytes);
        }
        self.shared.barrier.wait();
        bytes.clone_from(&self.shared.bytes.lock().unwrap());
        self.shared.barrier.wait();
        Ok(())
    }
}

/// Calls `of_member` in each thread of a group, and returns the results in the order of the ranks.
fn in_group<T: Send>(count: usize, of_member: impl Fn(&Member) -> T + Sync) -> Vec<T> {
    let shared = Arc::new(Shared {
        values: Mutex::new(vec![Vec::new(); count]),
        bytes: Mutex::new(Vec::new()),
        barrier: Barrier::new(count),
    });
    let member = |rank| Member { rank, shared: Arc::clone(&shared) };
    let of_member = &of_member;
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..count).map(member).map(|member| scope.spawn(move || of_member(&member))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

type State = Vec<(String, Vec<u32>)>;

fn state(trainer: &Trainer<'_>) -> State {
    bits(trainer.state().unwrap().iter().map(|(name, tensor)| (name, tensor)))
}

/// The state of each process after some steps, and the losses of the process of rank 0.
fn states(config: &TrainConfig, count: usize, steps: u64) -> (Vec<State>, Vec<f32>) {
    let results = in_group(count, |member| {
        let group = Some(member as &dyn ProcessGroup);
        let mut trainer = Trainer::in_group(config, splits().train(), &Device::Cpu, group).unwrap();
        let losses = (0..steps).map(|_| trainer.train_step().unwrap().to_scalar::<f32>().unwrap()).collect();
        (state(&trainer), losses)
    });
    let (states, mut losses): (Vec<_>, Vec<Vec<f32>>) = results.into_iter().unzip();
    (states, losses.remove(0))
}

/// The largest difference of two states, divided by the largest number of each tensor.
fn difference(a: &State, b: &State) -> f32 {
    type Named = (String, Vec<u32>);
    let of_tensor = |((name, a), (other, b)): (&Named, &Named)| {
        assert_eq!(name, other);
        let values = |bits: &[u32]| bits.iter().map(|&bits| f32::from_bits(bits)).collect::<Vec<_>>();
        let (a, b) = (values(a), values(b));
        let largest = b.iter().fold(1e-20_f32, |largest, x| largest.max(x.abs()));
        zip(&a, &b).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs() / largest))
    };
    zip(a, b).map(of_tensor).fold(0.0, f32::max)
}

/// A larger eps makes a step depend smoothly on the gradient, whose last bits differ.
fn smooth() -> TrainConfig {
    let config = config();
    TrainConfig { adamw: ddpm_train::AdamWConfig { eps: 1e-3, ..config.adamw }, ..config }
}

/// The gradients of the parts of a batch add up to that of the batch, also for parts that differ by an image (20 images over
/// 3 processes), with every random option, and with clipping.
#[test]
fn processes_that_add_gradients_train_as_one_process_and_have_the_same_bits() {
    let plain = smooth();
    let all_options = TrainConfig {
        noise_candidates: 2,
        random_shift: 1,
        ema_snapshots: 2,
        max_grad_norm: Some(0.05),
        ..plain.clone()
    };
    for config in [plain, all_options] {
        let mut alone = Trainer::new(&config, splits().train(), &Device::Cpu).unwrap();
        let alone_losses: Vec<f32> =
            (0..12).map(|_| alone.train_step().unwrap().to_scalar().unwrap()).collect();
        let alone = state(&alone);
        for count in [1, 2, 3, 4] {
            let (states, losses) = states(&config, count, 12);
            assert!(states.iter().all(|state| *state == states[0]), "{count} processes");
            assert_eq!(states, self::states(&config, count, 12).0, "again");
            if count == 1 {
                assert_eq!((&states[0], &losses), (&alone, &alone_losses));
            }
            let worst = difference(&states[0], &alone);
            assert!(worst < 2e-5, "{count} processes: {worst}");
            for (ours, alone) in zip(&losses, &alone_losses) {
                assert!((ours / alone - 1.0).abs() < 1e-5, "{count} processes: {ours} {alone}");
            }
        }
    }
}

/// With an outer learning rate of 1 and no momentum, a synchronisation is the mean; computed here from processes that never
/// synchronise.
#[test]
fn a_synchronisation_is_the_mean_of_all_parts_of_the_state() {
    let config = TrainConfig { ema_snapshots: 3, outer_learning_rate: 1.0, outer_momentum: 0.0, ..config() };
    let with = |sync_every| TrainConfig { sync_every: Some(sync_every), ..config.clone() };
    for count in [1, 2, 4] {
        let (synchronised, _) = states(&with(5), count, 5);
        assert!(synchronised.iter().all(|state| *state == synchronised[0]), "{count} processes");
        let (apart, _) = states(&with(1000), count, 5);
        assert_eq!(apart.iter().all(|state| *state == apart[0]), count == 1);
        for (at, (name, found)) in synchronised[0].iter().enumerate() {
            for (i, &found) in found.iter().enumerate() {
                let of = |state: &State| f64::from(f32::from_bits(state[at].1[i]));
                let mean = apart.iter().map(of).sum::<f64>() / count as f64;
                let found = f64::from(f32::from_bits(found));
                let is_near = (found - mean).abs() <= 1e-6 * mean.abs() + 1e-7;
                assert!(is_near || name.starts_with("outer/"), "{name} {i}: {found} {mean}");
            }
        }
    }
}

/// Two synchronisations against the formula of Nesterov's momentum in f64, for one process, whose change is that of plain
/// training from the common weights.
#[test]
fn the_outer_optimizer_is_sgd_with_nesterov_momentum() {
    let (lr, mu) = (0.6, 0.8);
    let base = TrainConfig { outer_learning_rate: lr, outer_momentum: mu, ..config() };
    let outer = TrainConfig { sync_every: Some(4), ..base.clone() };
    let trainer = |config: &TrainConfig| Trainer::new(config, splits().train(), &Device::Cpu).unwrap();
    let weights = |trainer: &Trainer<'_>, part: &str| -> Vec<f64> {
        let state = trainer.state().unwrap();
        let of_part = state.iter().filter(|(name, _)| name.starts_with(part));
        of_part.flat_map(|(_, tensor)| values(tensor)).map(f64::from).collect()
    };
    let mut ours = trainer(&outer);
    let mut momentum = vec![0.0; weights(&ours, "weights/").len()];
    for round in 0..2 {
        let start = weights(&ours, "weights/");
        // The same steps without a synchronisation at their end.
        let mut apart = trainer(&TrainConfig { sync_every: Some(1000), ..base.clone() });
        let state: std::collections::HashMap<String, Tensor> = ours.state().unwrap().into_iter().collect();
        apart.restore(ours.step(), |name, _| Ok(state[name].clone())).unwrap();
        for _ in 0..4 {
            ours.train_step().unwrap();
            apart.train_step().unwrap();
        }
        let (found, end) = (weights(&ours, "weights/"), weights(&apart, "weights/"));
        for i in 0..start.len() {
            let change = start[i] - end[i];
            momentum[i] = mu * momentum[i] + change;
            let expected = start[i] - lr * (change + mu * momentum[i]);
            assert!((found[i] - expected).abs() < 1e-6, "round {round}, {i}: {} {expected}", found[i]);
        }
        assert!(zip(weights(&ours, "outer/"), &momentum).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}

/// Runs `config` in each thread of a group. Only the thread of rank 0 writes to `folder`; the others have none. The run of each
/// stops when the observer of rank 0 has seen `stop_at` steps.
fn runs(
    config: &TrainConfig,
    count: usize,
    folder: &Path,
    start: Start,
    stop_at: u64,
) -> Vec<Result<Outcome, Error>> {
    let stop = AtomicBool::new(false);
    in_group(count, |member| {
        let of_rank = if member.rank == 0 { folder.to_owned() } else { folder.join("no-such-folder") };
        // The flag of one process is enough to stop all.
        let never = AtomicBool::new(false);
        let options = RunOptions {
            group: Some(member),
            stop: if member.rank == 0 { &stop } else { &never },
            ..options(start)
        };
        run(config, splits(), &of_rank, options, &Device::Cpu, |event| {
            if let Event::Step { step, .. } = event
                && step == stop_at
            {
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            Ok(())
        })
    })
}

fn weights(outcome: &Outcome) -> State {
    bits(outcome.denoiser.weights())
}

const NEVER: u64 = u64::MAX;

fn local_sgd() -> TrainConfig {
    TrainConfig { sync_every: Some(4), ema_snapshots: 2, ..config() }
}

#[test]
fn a_run_of_a_group_that_was_stopped_and_resumed_ends_with_the_same_weights() {
    for config in [TrainConfig { ema_snapshots: 2, ..config() }, local_sgd()] {
        for count in [2, 4] {
            let [whole, parts] = [tempdir().unwrap(), tempdir().unwrap()];
            let whole_run: Vec<_> = runs(&config, count, whole.path(), Start::Fresh, NEVER)
                .into_iter()
                .map(|outcome| outcome.unwrap())
                .collect();
            let expected = weights(&whole_run[0]);
            assert!(whole_run.iter().all(|outcome| weights(outcome) == expected));
            assert_eq!((whole_run[0].world_size, whole_run[0].images), (count, 600));
            assert!(whole_run[0].test_loss.is_some() && whole_run[1].test_loss.is_none());

            for result in runs(&config, count, parts.path(), Start::Fresh, 13) {
                // Local SGD stops at the synchronisation after step 13.
                let expected = if config.sync_every.is_some() { 15 } else { 13 };
                assert!(
                    matches!(result, Err(Error::Stopped { step, total: 30 }) if step == expected),
                    "{result:?}"
                );
            }
            let resumed = runs(&config, count, parts.path(), Start::Resume, NEVER);
            assert!(resumed.iter().all(|outcome| weights(outcome.as_ref().unwrap()) == expected));
            assert_eq!(names(parts.path()), [".lock", "checkpoints", "metrics.jsonl", "snapshots"]);
            assert_eq!(names(&parts.path().join("snapshots")), names(&whole.path().join("snapshots")));
            assert_eq!(records(parts.path()).len(), records(whole.path()).len());
        }
    }
}

#[test]
fn only_local_sgd_goes_on_with_another_number_of_processes() {
    for (config, may_change) in [(config(), false), (local_sgd(), true)] {
        let folder = tempdir().unwrap();
        drop(runs(&config, 2, folder.path(), Start::Fresh, 13));
        // The first process alone finds this error, before any exchange but the first.
        if may_change {
            for outcome in runs(&config, 3, folder.path(), Start::Resume, NEVER) {
                assert_eq!(outcome.unwrap().world_size, 3);
            }
        } else {
            let error =
                run(&config, splits(), folder.path(), options(Start::Resume), &Device::Cpu, |_| Ok(()))
                    .unwrap_err()
                    .to_string();
            assert!(error.contains("step-00000013: was written by 2 processes, now 1"), "{error}");
            assert!(error.contains("`sync_every`"), "{error}");
        }
    }
}

#[test]
fn a_process_with_another_configuration_is_an_error_in_all() {
    let folder = tempdir().unwrap();
    let errors = in_group(3, |member| {
        let seed = if member.rank == 2 { 8 } else { 7 };
        let config = TrainConfig { seed, ..config() };
        let options = RunOptions { group: Some(member), ..options(Start::Fresh) };
        run(&config, splits(), folder.path(), options, &Device::Cpu, |_| Ok(())).unwrap_err().to_string()
    });
    assert_eq!(
        errors[2],
        "the process of rank 2 has another `seed` than the process of rank 0: 8, expected 7"
    );
    assert!(
        errors[..2].iter().all(|error| error == "the exchange with other processes failed"),
        "{errors:?}"
    );
    assert!(names(folder.path()).is_empty(), "nothing is written");
}

#[test]
fn more_processes_than_images_in_a_batch_are_refused() {
    let data: Dataset = unlabelled(8, 0);
    let config = TrainConfig { batch_size: 2, ..crate::config_for(&data) };
    let errors = in_group(3, |member| {
        Trainer::in_group(&config, &data, &Device::Cpu, Some(member)).unwrap_err().to_string()
    });
    let expected = "the number of processes is 3, expected at most 2, the number of images of a batch";
    assert!(errors.iter().all(|error| error == expected), "{errors:?}");
}
