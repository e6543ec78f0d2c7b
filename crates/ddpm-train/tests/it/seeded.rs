//! Initial weights of any network from a seed.

use candle_core::{DType, Device};
use candle_nn::{Init, VarMap, init};
use ddpm_core::CounterRng;
use ddpm_train::seeded_var_builder;

use crate::values;

/// The values of a new variable of a shape.
fn variable(seed: u64, name: &str, shape: (usize, usize), init: Init) -> Vec<f32> {
    let variables = VarMap::new();
    let builder = seeded_var_builder(&variables, CounterRng::new(seed), DType::F32, &Device::Cpu);
    values(&builder.get_with_hints(shape, name, init).unwrap())
}

/// Mean and standard deviation within five standard errors, and the range, for each kind of initialisation.
#[test]
fn each_distribution_has_its_mean_deviation_and_range() {
    let uniform = Init::Uniform { lo: -1.0, up: 3.0 };
    let randn = Init::Randn { mean: 2.0, stdev: 0.5 };
    // He et al. 2015: a deviation of √(2 / fan_in), here √(2/100); a uniform distribution ends at √3 deviations.
    let kaiming = 0.02_f64.sqrt();
    for (init, mean, deviation, limit) in [
        (uniform, 1.0, 4.0 / 12.0_f64.sqrt(), 2.0),
        (randn, 2.0, 0.5, f64::INFINITY),
        (init::DEFAULT_KAIMING_NORMAL, 0.0, kaiming, f64::INFINITY),
        (init::DEFAULT_KAIMING_UNIFORM, 0.0, kaiming, kaiming * 3.0_f64.sqrt() + 1e-7),
        (Init::Const(0.75), 0.75, 0.0, 0.0),
    ] {
        let found: Vec<f64> = variable(4, "w", (400, 100), init).into_iter().map(f64::from).collect();
        let n = found.len() as f64;
        let found_mean = found.iter().sum::<f64>() / n;
        let found_deviation = (found.iter().map(|x| (x - found_mean).powi(2)).sum::<f64>() / n).sqrt();
        let error = 5.0 * deviation / n.sqrt() + 1e-7;
        assert!((found_mean - mean).abs() <= error, "{init:?}: mean {found_mean}");
        assert!((found_deviation - deviation).abs() <= error, "{init:?}: deviation {found_deviation}");
        assert!(found.iter().all(|x| (x - mean).abs() <= limit), "{init:?}");
    }
}

#[test]
fn values_depend_on_seed_and_name_and_not_on_the_order() {
    let init = init::DEFAULT_KAIMING_NORMAL;
    let alone = variable(1, "layer.weight", (4, 8), init);
    assert_eq!(alone, variable(1, "layer.weight", (4, 8), init));
    assert_ne!(alone, variable(2, "layer.weight", (4, 8), init));
    assert_ne!(alone, variable(1, "layer.bias", (4, 8), init));
    let variables = VarMap::new();
    let builder = seeded_var_builder(&variables, CounterRng::new(1), DType::F32, &Device::Cpu);
    builder.get_with_hints((9, 9), "first", init).unwrap();
    let second = builder.pp("layer").get_with_hints((4, 8), "weight", init).unwrap();
    assert_eq!(values(&second), alone);
    assert!(builder.pp("layer").contains_tensor("weight"));
}

#[test]
fn a_variable_that_exists_stays_and_another_shape_is_refused() {
    let variables = VarMap::new();
    let builder = seeded_var_builder(&variables, CounterRng::new(1), DType::F32, &Device::Cpu);
    builder.get_with_hints((2, 2), "w", Init::Const(3.0)).unwrap();
    let again = builder.get_with_hints((2, 2), "w", init::DEFAULT_KAIMING_NORMAL).unwrap();
    assert_eq!(values(&again), [3.0; 4]);
    assert!(builder.get_with_hints((2, 3), "w", Init::Const(3.0)).is_err());
    assert_eq!(variables.all_vars().len(), 1);
}
