//! The same seed gives the same bits, on any number of threads.

use candle_core::{Device, Tensor};
use ddpm_core::LossWeighting;
use ddpm_model::{DenoiserConfig, Network};
use ddpm_train::{TrainConfig, Trainer, evaluate_loss};

use crate::{bits, config, small_plain, splits};

type State = Vec<(String, Vec<u32>)>;

/// The bits of the training state after `steps` steps, and the bits of each step's loss.
fn trained(config: &TrainConfig, steps: u64) -> (State, Vec<u32>) {
    let mut trainer = Trainer::new(config, splits().train(), &Device::Cpu).unwrap();
    let loss = |loss: Tensor| loss.to_scalar::<f32>().unwrap().to_bits();
    let losses = (0..steps).map(|_| loss(trainer.train_step().unwrap())).collect();
    let state = trainer.state().unwrap();
    (bits(state.iter().map(|(name, tensor)| (name, tensor))), losses)
}

/// A network that is large enough for matrix products and passes over the weights to be divided among threads.
fn large(network: Network) -> TrainConfig {
    let config = TrainConfig { batch_size: 100, loss: LossWeighting::Epsilon, ..config() };
    TrainConfig { denoiser: DenoiserConfig { network, ..config.denoiser }, ..config }
}

#[test]
fn the_state_is_weights_moments_and_average_of_every_parameter() {
    let names: Vec<String> = trained(&config(), 1).0.into_iter().map(|(name, _)| name).collect();
    let parameters = config().denoiser.parameters();
    assert_eq!(names.len(), 4 * parameters.len());
    for part in ["weights", "first", "second", "ema"] {
        assert!(parameters.iter().all(|p| names.contains(&format!("{part}/{}", p.name))), "{names:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    assert_eq!(trained(&config(), 15), trained(&config(), 15));
}

#[test]
fn another_seed_gives_other_weights_from_the_start() {
    for steps in [0, 15] {
        let (one, _) = trained(&config(), steps);
        let (two, _) = trained(&TrainConfig { seed: 2, ..config() }, steps);
        let differ = |part: &str| {
            let part = format!("{part}/input.weight");
            let of = |state: &State| state.iter().find(|(name, _)| *name == part).unwrap().1.clone();
            of(&one) != of(&two)
        };
        assert!(differ("weights") && differ("ema"), "after {steps} steps");
        assert_eq!(differ("first"), steps > 0, "moments are zero before the first step");
    }
}

/// Every option of the configuration has an effect.
#[test]
fn each_option_changes_the_weights() {
    type Change = fn(&mut TrainConfig);
    let changes: [(&str, Change); 13] = [
        ("learning_rate", |c| c.learning_rate *= 2.0),
        ("warmup_fraction", |c| c.warmup_fraction = 0.0),
        ("epochs", |c| c.epochs = 30),
        ("batch_size", |c| c.batch_size = 19),
        ("cond_drop_prob", |c| c.cond_drop_prob = 1.0),
        ("loss", |c| c.loss = LossWeighting::MinSnr),
        ("noise_candidates", |c| c.noise_candidates = 2),
        ("max_grad_norm", |c| c.max_grad_norm = Some(1e-3)),
        ("sync_every", |c| c.sync_every = Some(5)),
        ("beta1", |c| c.adamw.beta1 = 0.5),
        ("beta2", |c| c.adamw.beta2 = 0.9),
        ("weight_decay", |c| c.adamw.weight_decay = 0.5),
        ("beta_end", |c| c.schedule.beta_end = 0.5),
    ];
    let before = trained(&config(), 15).0;
    for (option, change) in changes {
        let mut config = config();
        change(&mut config);
        assert_ne!(trained(&config, 15).0, before, "{option}");
    }
}

/// A step that measures the norm of the gradient is the same step, and so is one whose maximum is never reached.
#[test]
fn the_norm_of_the_gradient_changes_no_weight() {
    let before = trained(&config(), 15).0;
    let data = splits().train();
    let mut trainer = Trainer::new(&config(), data, &Device::Cpu).unwrap();
    for _ in 0..15 {
        let (_, norm) = trainer.train_step_with_norm().unwrap();
        assert!(norm.unwrap().to_scalar::<f32>().unwrap() > 0.0);
    }
    let state = trainer.state().unwrap();
    assert_eq!(bits(state.iter().map(|(name, tensor)| (name, tensor))), before);
    assert_eq!(trained(&TrainConfig { max_grad_norm: Some(1e6), ..config() }, 15).0, before);
}

#[test]
fn the_average_depends_on_its_decay_and_the_weights_do_not() {
    let (slow, _) = trained(&TrainConfig { ema_decay: 0.999, ..config() }, 15);
    let (fast, _) = trained(&TrainConfig { ema_decay: 0.1, ..config() }, 15);
    for (slow, fast) in std::iter::zip(slow, fast) {
        assert_eq!(slow == fast, !slow.0.starts_with("ema/"), "{}", slow.0);
    }
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let networks = [
        Network::Mlp { width: 128, hidden: 256, blocks: 1, embedding: 32 },
        Network::Plain { width: 256, layers: 2, embedding: 32 },
    ];
    for network in networks {
        let config = large(network);
        let in_pool = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| trained(&config, 6))
        };
        let one = in_pool(1);
        assert!(one == in_pool(2), "1 and 2 threads");
        assert!(one == in_pool(3), "1 and 3 threads");
    }
}

#[test]
fn the_test_loss_is_deterministic_and_does_not_affect_training() {
    let test = splits().test().unwrap();
    let mut config = config();
    config.denoiser.network = small_plain();
    let mut trainer = Trainer::new(&config, splits().train(), &Device::Cpu).unwrap();
    for _ in 0..15 {
        let denoiser = trainer.ema_denoiser().unwrap();
        let loss = || evaluate_loss(&denoiser, &config, test, 40).unwrap().to_bits();
        assert_eq!(loss(), loss());
        trainer.train_step().unwrap();
    }
    let state = trainer.state().unwrap();
    let with_test_loss = bits(state.iter().map(|(name, tensor)| (name, tensor)));
    assert_eq!(with_test_loss, trained(&config, 15).0);
}

#[test]
fn the_test_loss_uses_at_most_limit_images() {
    let test = splits().test().unwrap();
    let trainer = Trainer::new(&config(), splits().train(), &Device::Cpu).unwrap();
    let denoiser = trainer.ema_denoiser().unwrap();
    let loss = |limit| evaluate_loss(&denoiser, &config(), test, limit).unwrap();
    assert_eq!(loss(40), loss(usize::MAX));
    assert_ne!(loss(20), loss(40));
    // The mean over the second half follows from the two means, and must be a plausible loss.
    let second = 2.0 * loss(40) - loss(20);
    assert!((0.1..10.0).contains(&second), "{second}");
}
