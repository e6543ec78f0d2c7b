//! The optimizer for the variables of any network.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Module, Optimizer, ParamsAdamW, VarMap, layer_norm, linear};
use ddpm_core::CounterRng;
use ddpm_train::{AdamW, AdamWConfig, seeded_var_builder};
use tempfile::tempdir;

use crate::bits;

/// A network that is not of this project: layer normalisation and GELU.
struct Foreign {
    variables: VarMap,
    layers: candle_nn::Sequential,
}

impl Foreign {
    fn new(seed: u64) -> Self {
        let variables = VarMap::new();
        let builder = seeded_var_builder(&variables, CounterRng::new(seed), DType::F32, &Device::Cpu);
        let layers = candle_nn::seq()
            .add(linear(3, 16, builder.pp("in")).unwrap())
            .add(layer_norm(16, 1e-5, builder.pp("norm")).unwrap())
            .add(candle_nn::Activation::Gelu)
            .add(linear(16, 2, builder.pp("out")).unwrap());
        Self { variables, layers }
    }

    fn named(&self) -> HashMap<String, Var> {
        self.variables.data().lock().unwrap().clone()
    }

    /// The loss of a batch that depends on the step.
    fn loss(&self, step: u32) -> Tensor {
        let x = Tensor::arange(0.0_f32, 12.0, &Device::Cpu).unwrap().reshape((4, 3)).unwrap();
        let x = (x + f64::from(step)).unwrap().sin().unwrap();
        let target = (x.narrow(1, 0, 2).unwrap() * 0.5).unwrap();
        (self.layers.forward(&x).unwrap() - target).unwrap().sqr().unwrap().mean_all().unwrap()
    }

    fn weights(&self) -> Vec<(String, Vec<u32>)> {
        bits(self.named().iter().map(|(name, var)| (name, var.as_tensor())))
    }
}

const CONFIG: AdamWConfig = AdamWConfig { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0 };

fn optimizer(network: &Foreign) -> AdamW {
    AdamW::new(network.named(), CONFIG, 0.99).unwrap()
}

fn train(network: &Foreign, optimizer: &mut AdamW, steps: std::ops::Range<u32>) {
    for step in steps {
        optimizer.step(&network.loss(step).backward().unwrap(), 1e-2).unwrap();
    }
}

/// Save in the middle, and go on in a new process: another network of other weights and a new optimizer.
#[test]
fn a_resumed_training_of_a_foreign_network_has_the_same_bits() {
    let whole = Foreign::new(1);
    let mut of_whole = optimizer(&whole);
    train(&whole, &mut of_whole, 0..30);

    let file = tempdir().unwrap().path().join("state.safetensors");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let first = Foreign::new(1);
    let mut of_first = optimizer(&first);
    train(&first, &mut of_first, 0..17);
    candle_core::safetensors::save(&of_first.state().unwrap(), &file).unwrap();

    let second = Foreign::new(99);
    assert_ne!(second.weights(), first.weights());
    let mut of_second = optimizer(&second);
    of_second.restore(&candle_core::safetensors::load(&file, &Device::Cpu).unwrap()).unwrap();
    assert_eq!((second.weights(), of_second.steps()), (first.weights(), 17));
    train(&second, &mut of_second, 17..30);
    assert_eq!(second.weights(), whole.weights());
    let ema = |optimizer: &AdamW| bits(&optimizer.ema().unwrap());
    assert_eq!(ema(&of_second), ema(&of_whole));
    assert_ne!(ema(&of_whole), whole.weights(), "the average is another number");
    std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
}

#[test]
fn steps_are_those_of_candle_nn() {
    let (ours, theirs) = (Foreign::new(3), Foreign::new(3));
    let mut optimizer = optimizer(&ours);
    let params = ParamsAdamW { lr: 1e-2, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0 };
    let mut reference = candle_nn::AdamW::new(theirs.variables.all_vars(), params).unwrap();
    let start = ours.loss(0).to_scalar::<f32>().unwrap();
    for step in 0..20 {
        train(&ours, &mut optimizer, step..step + 1);
        reference.step(&theirs.loss(step).backward().unwrap()).unwrap();
    }
    let [ours, theirs] = [ours, theirs].map(|network| network.loss(0).to_scalar::<f32>().unwrap());
    assert!((ours - theirs).abs() < 1e-5 && ours < 0.5 * start, "{ours} {theirs} {start}");
}

#[test]
fn a_variable_without_a_gradient_stays() {
    let used = Var::new(&[1.0_f32, 2.0], &Device::Cpu).unwrap();
    let unused = Var::new(&[3.0_f32], &Device::Cpu).unwrap();
    let named = [("used".to_owned(), used.clone()), ("unused".to_owned(), unused.clone())];
    let mut optimizer = AdamW::new(named, CONFIG, 0.9).unwrap();
    optimizer.step(&used.sqr().unwrap().sum_all().unwrap().backward().unwrap(), 0.1).unwrap();
    assert_eq!(unused.to_vec1::<f32>().unwrap(), [3.0]);
    assert!(used.to_vec1::<f32>().unwrap()[0] < 1.0);
}

#[test]
fn what_does_not_fit_is_an_error_that_names_it() {
    let network = Foreign::new(1);
    let new = |vars: Vec<(String, Var)>, config, decay| AdamW::new(vars, config, decay).map(drop);
    let message = |result: ddpm_train::Result<()>| result.unwrap_err().to_string();
    let half = Var::zeros(3, DType::F16, &Device::Cpu).unwrap();
    let vars: Vec<_> = network.named().into_iter().collect();
    assert_eq!(message(new(Vec::new(), CONFIG, 0.9)), "the number of variables is 0, expected at least 1");
    let found = message(new(vec![("h".to_owned(), half)], CONFIG, 0.9));
    assert_eq!(found, "the type of the variable `h` is f16, expected f32");
    assert_eq!(message(new(vars.clone(), CONFIG, 1.0)), "`ema_decay` is 1, expected 0 to below 1");
    let bad = AdamWConfig { beta2: 1.0, ..CONFIG };
    assert_eq!(message(new(vars, bad, 0.9)), "training option `beta2` is 1, expected 0 to below 1");

    let mut optimizer = optimizer(&network);
    train(&network, &mut optimizer, 0..2);
    let (before, state) = (network.weights(), optimizer.state().unwrap());
    for name in ["second/out.bias", "weights/in.weight", "steps"] {
        let mut missing = state.clone();
        missing.remove(name);
        let found = message(optimizer.restore(&missing));
        assert!(found.contains(&format!("no tensor `{name}`")), "{found}");
        let mut other = state.clone();
        other.insert(name.to_owned(), Tensor::zeros(77, DType::F32, &Device::Cpu).unwrap());
        assert!(message(optimizer.restore(&other)).contains(&format!("no tensor `{name}`")));
    }
    assert_eq!(network.weights(), before, "a state that does not fit changes nothing");
}
