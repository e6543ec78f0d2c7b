//! The CPU kernels against the tensor path: outputs, and every gradient.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use ddpm_core::{NoiseSchedule, ScheduleConfig};
use ddpm_model::{
    Denoiser, DenoiserConfig, Head, Network,
    cpu::{AdamwEma, CpuNetwork, PANEL, Row, Training, panels},
};

use crate::{images, small, small_mlp, small_plain, weights};

struct Case {
    config: DenoiserConfig,
    batch: usize,
    t: Vec<usize>,
    labels: Vec<u32>,
}

fn cases() -> Vec<Case> {
    // Widths that no panel divides, and more panels than go through together for one image.
    let odd = small(Network::Mlp { width: 45, hidden: 301, blocks: 3, embedding: 6 });
    let networks = [small_mlp(), small_plain(), odd];
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

/// A step that leaves weights as they are, and whose first moment is the gradient.
const GRADIENT_ONLY: AdamwEma = AdamwEma {
    first: [0.0, 1.0],
    second: [0.9, 0.1],
    eps: 1e-8,
    keep: 1.0,
    rate: 0.0,
    second_scale: 1.0,
    ema: [0.0, 1.0],
};

fn training(network: &CpuNetwork, weights: &[Vec<f32>]) -> Training {
    // What the moments were must not matter to the gradient.
    let other: Vec<Vec<f32>> = weights.iter().map(|weight| vec![3.0; weight.len()]).collect();
    let (weights, other) = (network.pack(weights), network.pack(&other));
    Training { ema: weights.clone(), weights, first: other.clone(), second: other }
}

/// Images one after another, in panels.
fn to_rows(images: &[f32], width: usize, rows: &mut [Row]) {
    let batch = images.len() / width;
    for (i, row) in rows.iter_mut().enumerate() {
        let (panel, image) = (i / batch, i % batch);
        *row = Row::ZERO;
        for (lane, pixel) in (panel * PANEL..width).take(PANEL).enumerate() {
            row.0[lane] = images[image * width + pixel];
        }
    }
}

fn schedule() -> NoiseSchedule {
    NoiseSchedule::new(&ScheduleConfig::mnist20()).unwrap()
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
fn output_and_every_gradient_are_those_of_the_tensor_path() {
    for Case { config, batch, t, labels } in cases() {
        let initial = weights(&config, DType::F32);
        // In f64, so that the difference is the error of the kernels alone.
        let exact = |w: &Tensor| w.to_dtype(DType::F64).unwrap();
        let vars: Vec<(String, Var)> =
            initial.iter().map(|(name, w)| (name.clone(), Var::from_tensor(&exact(w)).unwrap())).collect();
        let tensors = vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        let denoiser = Denoiser::new(&config, &ScheduleConfig::mnist20(), tensors).unwrap();
        let x_t = images(&config, batch as u64);
        let output = denoiser.forward(&exact(&x_t), &t, &labels).unwrap();
        let weighing = x_t.cos().unwrap();
        let gradients = (&output * exact(&weighing)).unwrap().sum_all().unwrap().backward().unwrap();

        let network = CpuNetwork::new(&config, &schedule());
        let mut workspace = network.workspace(batch);
        let pixels: Vec<f32> = x_t.flatten_all().unwrap().to_vec1().unwrap();
        let weighing: Vec<f32> = weighing.flatten_all().unwrap().to_vec1().unwrap();
        // Twice: nothing may be left over from the first time.
        let mut host_gradients = Vec::new();
        for _ in 0..2 {
            let mut training = training(&network, &host(&initial, &config));
            to_rows(&pixels, config.pixels(), workspace.input_mut());
            network.forward(&training.weights, &mut workspace, &t, &labels);
            to_rows(&weighing, config.pixels(), workspace.outputs_and_gradients()[0].1);
            network.backward(&mut training, &mut workspace, GRADIENT_ONLY);
            assert!(network.unpack(&training.weights) == host(&initial, &config), "nothing was learnt");
            host_gradients = network.unpack(&training.first);
        }
        let mut rows = vec![Row::ZERO; panels(config.pixels()) * batch];
        to_rows(&rounded(&output), config.pixels(), &mut rows);
        let flat = |rows: &[Row]| -> Vec<f32> { rows.iter().flat_map(|row| row.0).collect() };
        let ours = flat(workspace.outputs_and_gradients()[0].0);
        assert!(difference(&ours, &flat(&rows)) < 1e-5, "{:?}: output", config.network);
        for (parameter, ours) in std::iter::zip(config.parameters(), &host_gradients) {
            let var = &vars.iter().find(|(name, _)| *name == parameter.name).unwrap().1;
            let difference = difference(ours, &rounded(gradients.get(var).unwrap()));
            assert!(difference < 2e-5, "{:?}: gradient of {}: {difference}", config.network, parameter.name);
        }
    }
}

#[test]
fn one_thread_and_three_give_the_same_bits() {
    let config = DenoiserConfig::mlp(28, 28, 10);
    let weights = host(&ddpm_model::initial_weights(&config, 1, &Device::Cpu).unwrap(), &config);
    let x_t: Vec<f32> = images(&config, 50).flatten_all().unwrap().to_vec1().unwrap();
    let labels: Vec<u32> = (0..50).map(|i| i % 11).collect();
    let t: Vec<usize> = (0..50).map(|i| i % 20).collect();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let network = CpuNetwork::new(&config, &schedule());
            let (mut workspace, mut training) = (network.workspace(50), training(&network, &weights));
            to_rows(&x_t, config.pixels(), workspace.input_mut());
            network.forward(&training.weights, &mut workspace, &t, &labels);
            let [(output, gradient), _] = workspace.outputs_and_gradients();
            gradient.copy_from_slice(output);
            let output = output.to_vec();
            network.backward(&mut training, &mut workspace, GRADIENT_ONLY);
            (output, training.first)
        })
    };
    assert!(run(1) == run(3));
}

/// With a bias of u alone in the last layer, what a Gaussian head believes follows from its output by the formulas
/// of `Head::Gaussian`, here in f64.
#[test]
fn a_gaussian_head_believes_what_bayes_says() {
    let schedule = schedule();
    for u in [-30.0, -2.0, 0.5, 8.0] {
        let network = Network::Mlp { width: 20, hidden: 24, blocks: 1, embedding: 4 };
        let config = DenoiserConfig { network, head: Head::Gaussian, ..DenoiserConfig::mlp(5, 7, 3) };
        let mut weights = weights(&config, DType::F32);
        let spread = |name: &str, value: f64, weights: &mut HashMap<String, Tensor>| {
            let constant = (weights[name].zeros_like().unwrap() + value).unwrap();
            weights.insert(name.to_owned(), constant);
        };
        spread("spread.weight", 0.0, &mut weights);
        spread("spread.bias", u, &mut weights);
        let exact = |w: &Tensor| w.to_dtype(DType::F64).unwrap();
        let double = weights.iter().map(|(name, w)| (name.clone(), exact(w))).collect();
        let kernels = Denoiser::new(&config, &ScheduleConfig::mnist20(), weights).unwrap();
        let tensors = Denoiser::new(&config, &ScheduleConfig::mnist20(), double).unwrap();

        let x_t = images(&config, 20);
        let (t, labels): (Vec<usize>, Vec<u32>) = (0..20).map(|i| (i, i as u32 % 4)).unzip();
        let ours = kernels.belief(&x_t, &t, &labels).unwrap();
        let theirs = tensors.belief(&exact(&x_t), &t, &labels).unwrap();
        let m: Vec<Vec<f64>> = tensors.forward(&exact(&x_t), &t, &labels).unwrap().to_vec2().unwrap();
        let x_t: Vec<Vec<f64>> = exact(&x_t).to_vec2().unwrap();
        let found = |tensor: &Tensor| exact(tensor).to_vec2::<f64>().unwrap();
        let [ours, theirs] = [ours, theirs].map(|belief| (found(&belief.x_start), found(&belief.variance)));
        for image in 0..20 {
            let alpha_bar = schedule.alphas_cumprod()[image];
            // The product of two normal densities, with the precisions 1 + e⁻ᵘ (around m) and SNR.
            let (prior, snr) = (1.0 + (-u).exp(), alpha_bar / (1.0 - alpha_bar));
            let variance = 1.0 / (prior + snr);
            for pixel in 0..35 {
                let observed = x_t[image][pixel] / alpha_bar.sqrt();
                let mean = variance * (prior * m[image][pixel] + snr * observed);
                for ((x_start, found), tolerance) in [(&ours, 2e-5), (&theirs, 1e-12)] {
                    let (x_start, found) = (x_start[image][pixel], found[image][pixel]);
                    assert!((x_start - mean).abs() < tolerance, "u {u}, t {image}: {x_start} {mean}");
                    assert!(
                        (found - variance).abs() < tolerance * variance,
                        "{u}, {image}: {found} {variance}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_direct_head_has_no_belief_and_a_gaussian_one_predicts_x_start() {
    let config = DenoiserConfig::mlp(2, 3, 2);
    let denoiser = Denoiser::new(&config, &ScheduleConfig::mnist20(), weights(&config, DType::F32)).unwrap();
    let failed = denoiser.belief(&images(&config, 1), &[3], &[0]).unwrap_err().to_string();
    assert!(failed.contains("variance"), "{failed}");
    let config = DenoiserConfig { head: Head::Gaussian, ..DenoiserConfig::plain(2, 3, 2) };
    let failed = config.validate().unwrap_err().to_string();
    assert_eq!(failed, "a gaussian head with output_type Epsilon, expected sample");
    // As older versions wrote it.
    let json = serde_json::to_value(DenoiserConfig::plain(2, 3, 2)).unwrap();
    let mut old = json.as_object().unwrap().clone();
    old.remove("head").unwrap();
    assert_eq!(serde_json::from_value::<DenoiserConfig>(old.into()).unwrap(), DenoiserConfig::plain(2, 3, 2));
}
