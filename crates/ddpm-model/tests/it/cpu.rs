//! Compares the CPU kernels with the tensor path: outputs, and every gradient.

use candle_core::{DType, Device, Tensor, Var};
use ddpm_core::{NoiseSchedule, NoiseScheduleConfig};
use ddpm_kernels::{AdamwEma, Batch, StatePart, Training};
use ddpm_model::{Denoiser, DenoiserConfig, Network};

use crate::{images, small, small_mlp, small_patch_mlp, small_plain, weights};

struct Case {
    config: DenoiserConfig,
    batch: usize,
    t: Vec<usize>,
    labels: Vec<u32>,
}

fn cases() -> Vec<Case> {
    // Widths that are no multiple of a panel, and more panels than the kernel computes together for one image.
    let odd = small(Network::Mlp { width: 45, hidden: 301, blocks: 3, embedding: 6 });
    // Patches with more pixels than a panel, none of which extends past the edge.
    let (rows, cols) = (10, 5);
    let network =
        Network::PatchMlp { patch: 5, local: 40, code: 16, width: 24, hidden: 33, blocks: 1, embedding: 8 };
    let large = DenoiserConfig { rows, cols, ..small(network) };
    let networks = [small_mlp(), small_plain(), odd, small_patch_mlp(), large];
    let case = |(config, batch): (&DenoiserConfig, usize)| Case {
        config: config.clone(),
        batch,
        t: (0..batch).map(|i| i * 7 % 20).collect(),
        // Class 5 is the null class.
        labels: (0..batch as u32).map(|i| i * 5 % 6).collect(),
    };
    networks.iter().flat_map(|config| [1, 2, 70].map(|batch| case((config, batch)))).collect()
}

fn host(weights: &std::collections::HashMap<String, Tensor>, config: &DenoiserConfig) -> Vec<Vec<f32>> {
    let values = |name: &str| weights[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
    config.parameters().iter().map(|parameter| values(&parameter.name)).collect()
}

/// An optimizer step that keeps the weights and sets the first moment to the gradient.
const GRADIENT_ONLY: AdamwEma = AdamwEma {
    first: [0.0, 1.0],
    second: [0.9, 0.1],
    eps: 1e-8,
    keep: 1.0,
    rate: 0.0,
    second_scale: 1.0,
    ema: [0.0, 1.0],
};

fn training(config: &DenoiserConfig, weights: &[Vec<f32>], batch: usize) -> Training {
    let mut training = Training::new(config.cpu_network(&schedule()), weights, batch);
    // The gradient must not depend on the values of the moments.
    let other: Vec<Vec<f32>> = weights.iter().map(|weight| vec![3.0; weight.len()]).collect();
    training.set_part(StatePart::First, &other);
    training.set_part(StatePart::Second, &other);
    training
}

fn schedule() -> NoiseSchedule {
    NoiseSchedule::new(&NoiseScheduleConfig::mnist20()).unwrap()
}

fn rounded(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let scale = b.iter().fold(1e-3_f32, |max, x| max.max(x.abs()));
    std::iter::zip(a, b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / scale
}

#[test]
fn output_loss_and_every_gradient_agree_with_the_tensor_path() {
    for Case { config, batch, t, labels } in cases() {
        let initial = weights(&config, DType::F32);
        // The reference is in f64, so that the difference is the error of the kernels alone.
        let exact = |w: &Tensor| w.to_dtype(DType::F64).unwrap();
        let vars: Vec<(String, Var)> =
            initial.iter().map(|(name, w)| (name.clone(), Var::from_tensor(&exact(w)).unwrap())).collect();
        let tensors = vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        let denoiser = Denoiser::new(&config, &NoiseScheduleConfig::mnist20(), tensors).unwrap();
        let x_t = images(&config, batch as u64);
        let output = denoiser.forward(&exact(&x_t), &t, &labels).unwrap();
        let target = (x_t.cos().unwrap() * 2.0).unwrap();
        // Weights that are exact in f32.
        let of_image: Vec<f32> = (0..batch).map(|i| 0.25 * (1 + i % 3) as f32).collect();
        let column = Tensor::from_slice(&of_image, (batch, 1), &Device::Cpu).unwrap();
        let squares = (&output - exact(&target)).unwrap().sqr().unwrap();
        let loss = squares.broadcast_mul(&exact(&column)).unwrap().sum_all().unwrap();
        let gradients = loss.backward().unwrap();

        let (pixels, x, target) = (config.pixels(), rounded(&x_t), rounded(&target));
        let network = config.cpu_network(&schedule());
        let mut ours = vec![f32::NAN; x.len()];
        network.predict(&network.pack(&host(&initial, &config)), &x, &t, &labels, &mut ours);
        assert!(difference(&ours, &rounded(&output)) < 1e-5, "{:?}: output", config.network);

        let mut training = training(&config, &host(&initial, &config), batch);
        let inputs = Batch { t: &t, classes: &labels, weights: &of_image };
        let at = |image: usize, pixel: usize| image * pixels + pixel;
        // Two steps: buffers must not keep anything from the first one.
        for _ in 0..2 {
            let ours = training.step(&inputs, |i, p| x[at(i, p)], |i, p| target[at(i, p)], GRADIENT_ONLY);
            let theirs = loss.to_scalar::<f64>().unwrap();
            assert!((ours - theirs).abs() < 1e-5 * theirs, "{:?}: loss {ours} {theirs}", config.network);
        }
        assert!(training.part(StatePart::Weights) == host(&initial, &config), "the weights changed");
        for (parameter, ours) in std::iter::zip(config.parameters(), training.part(StatePart::First)) {
            let var = &vars.iter().find(|(name, _)| *name == parameter.name).unwrap().1;
            let difference = difference(&ours, &rounded(gradients.get(var).unwrap()));
            assert!(difference < 2e-5, "{:?}: gradient of {}: {difference}", config.network, parameter.name);
        }
    }
}

#[test]
fn one_thread_and_three_give_the_same_bits() {
    for config in [DenoiserConfig::mlp(28, 28, 10), DenoiserConfig::patch_mlp(28, 28, 10)] {
        let weights = host(&ddpm_model::initial_weights(&config, 1, &Device::Cpu).unwrap(), &config);
        let x: Vec<f32> = images(&config, 50).flatten_all().unwrap().to_vec1().unwrap();
        let labels: Vec<u32> = (0..50).map(|i| i % 11).collect();
        let t: Vec<usize> = (0..50).map(|i| i % 20).collect();
        let inputs = Batch { t: &t, classes: &labels, weights: &[0.5; 50] };
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut training = training(&config, &weights, 50);
                let loss = training.step(&inputs, |i, p| x[i * 784 + p], |_, _| 0.0, GRADIENT_ONLY);
                (loss, training.part(StatePart::First))
            })
        };
        assert!(run(1) == run(3));
    }
}
