//! Prediction: independence of the batch, conversion, guidance, and errors.

use candle_core::{DType, Device, Tensor};
use ddpm_core::{
    NoiseSchedule, NoiseScheduleConfig, PredictionType, ReverseVariance, Sampler, Steps, sampler::Churn,
};
use ddpm_model::{Denoiser, DenoiserConfig, Error, SampleConfig, initial_weights};

use crate::{bits, denoiser, images, small_mlp, small_patch_mlp, small_plain, weights};

fn ancestral(denoiser: &Denoiser) -> SampleConfig {
    SampleConfig::ancestral(1, denoiser).unwrap()
}

fn with_plan(denoiser: &Denoiser, sampler: &Sampler, steps: Steps) -> SampleConfig {
    SampleConfig { plan: sampler.plan(denoiser.schedule(), steps).unwrap(), ..ancestral(denoiser) }
}

/// With the sizes of the built-in model, where matrix products are split into blocks.
#[test]
fn an_image_is_the_same_bits_alone_and_in_a_batch() {
    let config = DenoiserConfig::mlp(28, 28, 10);
    let weights = initial_weights(&config, 1, &candle_core::Device::Cpu).unwrap();
    let denoiser = Denoiser::new(&config, &NoiseScheduleConfig::mnist20(), weights).unwrap();
    let batch = 117;
    let x_t = images(&config, batch as u64);
    let labels: Vec<u32> = (0..batch as u32).map(|i| i % 10).collect();
    let together = denoiser.predict(&x_t, 7, &labels, 1.0).unwrap();
    for i in [0, 13, batch - 1] {
        let alone = denoiser.predict(&x_t.narrow(0, i, 1).unwrap(), 7, &labels[i..=i], 1.0).unwrap();
        assert_eq!(bits(&alone), bits(&together.narrow(0, i, 1).unwrap()), "image {i}");
    }
}

/// Counts the products by hand, and the number of times each is computed in training: the gradients of inputs are not.
#[test]
fn operations_are_counted() {
    let flop = small_plain().flop_count();
    assert_eq!(flop.predict, 2 * (12 * 16 + 16 * 16 + 16 * 12));
    assert_eq!(flop.train, 2 * (2 * (12 + 8 + 6) * 16 + 3 * 16 * 16 + 3 * 16 * 12));

    let patch_mlp = small_patch_mlp();
    let [first, encode, decode] = [6 * 9 * 20, 6 * 20 * 18, 6 * (18 * 20 + 20 * 20 + 20 * 9)];
    let middle = 6 * 18 * 24 + 4 * 24 * 33 + 24 * 6 * 18;
    // Two layers read the image: the encoder, and the decoder beside the codes.
    let image = 2 * first;
    let conditions = 8 * 8 + 2 * 8 * 20 + 2 * 8 * 33;
    let flop = patch_mlp.flop_count();
    assert_eq!(flop.predict, 2 * (image + encode + middle + decode));
    assert_eq!(flop.train, 2 * (2 * (image + 8 * 8) + 3 * (encode + middle + decode + conditions)));
}

#[test]
fn the_prediction_is_the_network_output_converted_to_prediction_type() {
    let x_t = images(&small_mlp(), 4);
    let raw = denoiser(&small_mlp()).forward(&x_t, &[7; 4], &[0, 1, 2, 3]).unwrap();
    for to in [PredictionType::Epsilon, PredictionType::Sample, PredictionType::VPrediction] {
        let schedule = NoiseScheduleConfig { prediction_type: to, ..NoiseScheduleConfig::mnist20() };
        let weights = denoiser(&small_mlp()).weights().clone();
        let denoiser = Denoiser::new(&small_mlp(), &schedule, weights).unwrap();
        let named = denoiser.predict(&x_t, 7, &[0, 1, 2, 3], 1.0).unwrap();
        let back = denoiser.schedule().convert(to, PredictionType::Sample, &named, &x_t, &[7]).unwrap();
        let difference = (back - &raw).unwrap().abs().unwrap().max_all().unwrap();
        assert!(difference.to_scalar::<f32>().unwrap() < 1e-4, "{to:?}");
    }
}

#[test]
fn guidance_extrapolates_from_the_null_class() {
    for config in [small_mlp(), small_plain(), small_patch_mlp()] {
        let denoiser = denoiser(&config);
        let x_t = images(&config, 2);
        let predict = |labels: &[u32], guidance| {
            bits_to_f32(&bits(&denoiser.predict(&x_t, 3, labels, guidance).unwrap()))
        };
        let (null, class) = (predict(&[5, 5], 1.0), predict(&[1, 2], 1.0));
        for guidance in [0.0, 0.5, 3.0] {
            for (i, guided) in predict(&[1, 2], guidance).into_iter().enumerate() {
                let expected = null[i] + guidance as f32 * (class[i] - null[i]);
                assert!((guided - expected).abs() < 1e-4 * expected.abs().max(1.0), "{guidance} {i}");
            }
        }
        assert!(std::iter::zip(&null, &class).any(|(a, b)| (a - b).abs() > 1e-3), "the class has no effect");
    }
}

fn bits_to_f32(bits: &[u32]) -> Vec<f32> {
    bits.iter().copied().map(f32::from_bits).collect()
}

#[test]
fn time_has_an_effect_and_so_has_each_image() {
    for config in [small_mlp(), small_plain(), small_patch_mlp()] {
        let denoiser = denoiser(&config);
        let x_t = images(&config, 2);
        let raw = |t: &[usize]| bits(&denoiser.forward(&x_t, t, &[1, 1]).unwrap());
        let (early, late, mixed) = (raw(&[3, 3]), raw(&[9, 9]), raw(&[3, 9]));
        assert!(early != late);
        let pixels = config.pixels();
        assert_eq!(mixed[..pixels], early[..pixels]);
        assert_eq!(mixed[pixels..], late[pixels..]);
    }
}

#[test]
fn bad_arguments_are_refused() {
    let denoiser = denoiser(&small_mlp());
    let x_t = images(&small_mlp(), 2);
    let failed = denoiser.predict(&x_t, 3, &[1], 1.0);
    assert!(matches!(failed, Err(Error::ClassCount { found: 1, batch: 2 })));
    let failed = denoiser.predict(&x_t, 3, &[1, 6], 1.0);
    assert!(matches!(failed, Err(Error::Class { found: 6, last: 4 })));
    let failed = denoiser.forward(&x_t, &[3], &[1, 2]);
    assert!(matches!(failed, Err(Error::TimestepCount { found: 1, batch: 2 })));
    let failed = denoiser.forward(&images(&DenoiserConfig { cols: 5, ..small_mlp() }, 2), &[3, 3], &[1, 2]);
    assert!(matches!(failed, Err(Error::Pixels { found: 15, expected: 12 })));
    let failed = denoiser.predict(&x_t, 20, &[1, 2], 1.0);
    assert_eq!(failed.unwrap_err().to_string(), "timestep is 20, expected 0 to 19");
    let failed = denoiser.predict(&x_t, 3, &[1, 2], f64::NAN);
    assert!(matches!(failed, Err(Error::GuidanceScale { .. })));
    let unconditional = DenoiserConfig { num_classes: 0, ..small_mlp() };
    let failed = crate::denoiser(&unconditional).predict(&x_t, 3, &[0, 0], 2.0);
    assert!(matches!(failed, Err(Error::Guidance { .. })));
}

#[test]
fn configurations_outside_their_range_are_refused() {
    let config = DenoiserConfig { rows: 65, ..small_mlp() };
    let error = config.validate().unwrap_err().to_string();
    assert_eq!(error, "denoiser option `rows` is 65, expected 1 to 64");
    let network = ddpm_model::Network::Plain { width: 8, layers: 2, embedding: 7 };
    assert!(crate::small(network).validate().is_err());
}

#[test]
fn initial_weights_depend_on_the_seed_alone_and_have_the_intended_spread() {
    let config = DenoiserConfig::mlp(28, 28, 10);
    let weights = |seed| initial_weights(&config, seed, &candle_core::Device::Cpu).unwrap();
    let (one, again, two) = (weights(1), weights(1), weights(2));
    let name = "blocks.0.in.weight";
    assert_eq!(bits(&one[name]), bits(&again[name]));
    assert_ne!(bits(&one[name]), bits(&two[name]));
    let values = bits_to_f32(&bits(&one[name]));
    let variance = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / values.len() as f64;
    assert!((variance * 3.0 * 512.0 - 1.0).abs() < 0.01, "{variance}");
}

#[test]
fn an_empty_batch_gives_an_empty_prediction() {
    let x_t = images(&small_mlp(), 0);
    assert_eq!(denoiser(&small_mlp()).predict(&x_t, 3, &[], 1.0).unwrap().dims(), [0, 12]);
}

/// Training changes the variables, and a prediction must use the new values.
#[test]
fn a_denoiser_over_variables_predicts_with_their_present_values() {
    let config = small_mlp();
    let vars: Vec<_> = crate::weights(&config, candle_core::DType::F32)
        .into_iter()
        .map(|(name, weight)| (name, candle_core::Var::from_tensor(&weight).unwrap()))
        .collect();
    let tensors = vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
    let denoiser = Denoiser::new(&config, &NoiseScheduleConfig::mnist20(), tensors).unwrap();
    let x_t = images(&config, 2);
    let predict = || bits(&denoiser.predict(&x_t, 3, &[1, 2], 1.0).unwrap());
    let before = predict();
    for (_, var) in &vars {
        var.set(&(var.as_tensor() * 1.5).unwrap()).unwrap();
    }
    assert_ne!(before, predict());
}

/// Weights that are computed from variables, for example by an adapter, have a gradient, too.
#[test]
fn weights_that_depend_on_a_variable_are_followed() {
    let config = small_mlp();
    let scale = candle_core::Var::new(1.0_f32, &candle_core::Device::Cpu).unwrap();
    let weights = crate::weights(&config, candle_core::DType::F32)
        .into_iter()
        .map(|(name, weight)| (name, weight.broadcast_mul(&scale).unwrap()))
        .collect();
    let denoiser = Denoiser::new(&config, &NoiseScheduleConfig::mnist20(), weights).unwrap();
    let output = denoiser.forward(&images(&config, 2), &[3, 4], &[1, 2]).unwrap();
    let gradients = output.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    let gradient = gradients.get(&scale).unwrap().to_scalar::<f32>().unwrap();
    assert!(gradient.abs() > 1e-3, "{gradient}");
}

#[test]
fn weights_that_are_not_those_of_the_configuration_are_named() {
    let weights = crate::weights(&small_mlp(), candle_core::DType::F32);
    let build = |weights| Denoiser::new(&small_mlp(), &NoiseScheduleConfig::mnist20(), weights).unwrap_err();
    let mut missing = weights.clone();
    missing.remove("input.bias");
    assert_eq!(build(missing).to_string(), "weight `input.bias` is missing, expected [16]");
    let mut more = weights.clone();
    more.insert("extra".to_owned(), weights["input.bias"].clone());
    assert_eq!(build(more).to_string(), "weight `extra` is present, expected no such weight");
}

/// Regression: an interval without timesteps silently turned guidance off.
#[test]
fn sampling_with_a_guidance_interval_that_does_not_fit_is_refused() {
    let denoiser = denoiser(&small_mlp());
    let sample = |interval| {
        let guidance = ddpm_core::Guidance::new(2.0).within(interval).into();
        let config = SampleConfig { guidance, ..ancestral(&denoiser) };
        denoiser.sample(&config, &[0], &[0], |_| Ok(()))
    };
    sample(5.0..=19.0).unwrap();
    for (first, last) in [(9.0, 5.0), (f64::NAN, 5.0), (5.0, f64::NAN), (5.0, 20.0), (20.0, 30.0)] {
        let error = sample(first..=last).unwrap_err().to_string();
        assert!(error.contains(&format!("the guidance interval is {first}-{last}")), "{error}");
    }
}

/// Regression: NaN and infinite predictions became black pixels without an error.
#[test]
fn a_prediction_that_is_not_finite_ends_sampling_with_its_image_and_timestep() {
    let config = small_mlp();
    let sample = |weights| {
        let denoiser = Denoiser::new(&config, &NoiseScheduleConfig::mnist20(), weights).unwrap();
        let sampling = with_plan(&denoiser, &Sampler::ddpm(), Steps::Spaced(4));
        denoiser.sample(&sampling, &[7, 40, 9], &[1, 3, 3], |_| Ok(()))
    };
    sample(crate::weights(&config, candle_core::DType::F32)).unwrap();
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        // The bias of one pixel, which affects every image.
        let mut weights = crate::weights(&config, candle_core::DType::F32);
        let bias = weights["output.bias"].dims1().unwrap();
        let values: Vec<f32> = (0..bias).map(|pixel| if pixel == 5 { wrong } else { 0.0 }).collect();
        weights.insert("output.bias".to_owned(), Tensor::new(values, &Device::Cpu).unwrap());
        let error = sample(weights).unwrap_err();
        assert!(
            matches!(error, Error::NotFinite { quantity: "prediction", image: 7, timestep: 19.0 }),
            "{error}"
        );
    }
    // An overflow for class 3 only: the second image is the first with an invalid prediction.
    let mut weights = crate::weights(&config, candle_core::DType::F32);
    let rows = weights["class.weight"].to_vec2::<f32>().unwrap().into_iter().zip(0..);
    let rows: Vec<_> =
        rows.map(|(row, class)| if class == 3 { vec![3e38; row.len()] } else { row }).collect();
    weights.insert("class.weight".to_owned(), Tensor::new(rows, &Device::Cpu).unwrap());
    let error = sample(weights).unwrap_err();
    let expected = "the prediction of image 40 at timestep 19 is NaN or infinite, expected finite numbers";
    assert_eq!(error.to_string(), expected);
}

/// Finite predictions do not suffice: with an extremely large variance, the noise is infinite in f32.
#[test]
fn samples_that_are_not_finite_are_refused() {
    let denoiser = denoiser(&small_mlp());
    let sampler = Sampler::Ddpm(ReverseVariance::PerStep(vec![0.1, 1e300]));
    let steps = Steps::Explicit(vec![19, 5]);
    let config = with_plan(&denoiser, &sampler, steps.clone());
    let sampled = denoiser.sample(&config, &[0], &[0], |_| Ok(()));
    sampled.unwrap();
    let sampler = Sampler::Ddpm(ReverseVariance::PerStep(vec![1e300, 0.1]));
    let config = with_plan(&denoiser, &sampler, steps);
    let error = denoiser.sample(&config, &[0], &[0], |_| Ok(())).unwrap_err();
    assert!(matches!(error, Error::NotFinite { image: 0, timestep: 5.0, .. }), "{error}");
}

/// Churn evaluates the network between integer timesteps, where a network trained at integers has the wrong noise level.
#[test]
fn sampling_between_the_timesteps_of_the_schedule_is_refused() {
    let denoiser = denoiser(&small_mlp());
    for sampler in [Sampler::Euler, Sampler::Heun] {
        let sample = |churn| {
            let config = with_plan(&denoiser, &sampler(churn), Steps::Explicit(vec![15, 5]));
            denoiser.sample(&config, &[0], &[0], |_| Ok(()))
        };
        let error = sample(Churn { s_churn: 1.0, ..Churn::NONE }).unwrap_err().to_string();
        assert!(error.contains("a timestep of the plan is t = 15.") && error.contains("whole"), "{error}");
        sample(Churn::NONE).unwrap();
    }
    // A noise level between two timesteps, and a timestep of another schedule.
    let levels = with_plan(&denoiser, &Sampler::ddpm(), Steps::Sigmas(vec![3.3]));
    let other = NoiseScheduleConfig { beta_end: 0.6, ..NoiseScheduleConfig::mnist20() };
    let other = Sampler::ddpm().plan(&NoiseSchedule::new(&other).unwrap(), Steps::All).unwrap();
    for plan in [levels.plan, other] {
        let config = SampleConfig { plan, ..ancestral(&denoiser) };
        let error = denoiser.sample(&config, &[0], &[0], |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("expected a whole timestep of the model's schedule"), "{error}");
    }
}

/// With T = 1000 and β up to 0.7, √ᾱ is below the smallest f32 from t = 365 on. The first step of DDIM to x₀ is then the
/// network's x₀, to the bit, and a whole run is finite.
#[test]
fn samples_are_finite_where_the_signal_is_smaller_than_any_f32() {
    let schedule = NoiseScheduleConfig { num_train_timesteps: 1000, ..NoiseScheduleConfig::mnist20() };
    let config = small_mlp();
    let denoiser = Denoiser::new(&config, &schedule, weights(&config, DType::F32)).unwrap();
    assert!(denoiser.schedule().alphas_cumprod()[999] < 1e-90);
    for sampler in
        [Sampler::ddpm(), Sampler::ddim(0.0), Sampler::dpmpp_2m_sde(), Sampler::unipc(), Sampler::heun()]
    {
        for steps in [Steps::All, Steps::Spaced(20), Steps::Explicit(vec![999])] {
            let config = with_plan(&denoiser, &sampler, steps.clone());
            let sampled = denoiser.sample(&config, &[0, 1], &[2, 3], |_| Ok(())).unwrap();
            if steps == Steps::Explicit(vec![999]) {
                let x_t = denoiser.start(&config, &[0, 1]).unwrap();
                let x_start = denoiser.output(x_t.x_t(), 999, &[2, 3], 1.0).unwrap();
                assert_eq!(bits(&sampled), bits(&x_start.clamp(-1.0, 1.0).unwrap()));
            }
        }
    }
}
