//! Compares the gradient of each weight with central differences in f64.

use std::collections::HashMap;

use candle_core::{DType, Tensor, Var};
use ddpm_core::NoiseScheduleConfig;
use ddpm_model::{Denoiser, DenoiserConfig};

use crate::{images, small_mlp, small_patch_mlp, small_plain, weights};

/// A loss that weighs each output differently, so that no gradient cancels.
fn loss(config: &DenoiserConfig, weights: &HashMap<String, Tensor>) -> Tensor {
    let denoiser = Denoiser::new(config, &NoiseScheduleConfig::mnist20(), weights.clone()).unwrap();
    let x_t = images(config, 3).to_dtype(DType::F64).unwrap();
    // Class 5 is the null class.
    let output = denoiser.forward(&x_t, &[0, 7, 19], &[1, 5, 2]).unwrap();
    let target = (x_t.cos().unwrap() * 0.5).unwrap();
    (output - &target).unwrap().sqr().unwrap().mean_all().unwrap()
}

fn check(config: &DenoiserConfig) {
    let vars: HashMap<String, Var> = weights(config, DType::F64)
        .into_iter()
        .map(|(name, weight)| (name, Var::from_tensor(&weight).unwrap()))
        .collect();
    let tensors: HashMap<String, Tensor> =
        vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
    let gradients = loss(config, &tensors).backward().unwrap();
    let mut checked = 0;
    for (name, var) in &vars {
        let gradient = gradients.get(var).unwrap_or_else(|| panic!("{name} has no gradient"));
        let gradient: Vec<f64> = gradient.flatten_all().unwrap().to_vec1().unwrap();
        let values: Vec<f64> = var.flatten_all().unwrap().to_vec1().unwrap();
        let at = |i: usize, step: f64| {
            let mut values = values.clone();
            values[i] += step;
            let mut changed = tensors.clone();
            changed.insert(name.clone(), Tensor::from_vec(values, var.dims(), var.device()).unwrap());
            loss(config, &changed).to_scalar::<f64>().unwrap()
        };
        for i in (0..values.len()).step_by(values.len().div_ceil(7)) {
            // Central differences of fourth order allow a step that is large compared with the loss's rounding error.
            let across = |step: f64| (at(i, step) - at(i, -step)) / (2.0 * step);
            let numeric = (4.0 * across(1e-4) - across(2e-4)) / 3.0;
            assert!(
                (gradient[i] - numeric).abs() < 1e-8 + 1e-6 * numeric.abs(),
                "{name}[{i}]: {} by autograd, {numeric} by differences, loss {}",
                gradient[i],
                at(i, 0.0)
            );
            checked += usize::from(numeric != 0.0);
        }
    }
    assert!(checked > 3 * vars.len(), "only {checked} gradients were not zero");
}

#[test]
fn gradients_of_the_mlp_agree_with_finite_differences() {
    check(&small_mlp());
}

#[test]
fn gradients_of_the_plain_network_agree_with_finite_differences() {
    check(&small_plain());
}

#[test]
fn gradients_of_the_patch_mlp_agree_with_finite_differences() {
    check(&small_patch_mlp());
}
