//! Autoguidance and class annealing.

use candle_core::Tensor;
use ddpm_core::{NoiseScheduleConfig, PredictionType, Sampler, Steps};
use ddpm_model::{
    Denoiser, DenoiserConfig, Error, GuidanceOptions, SampleConfig, SampleOptions, initial_weights,
};

use crate::{bits, denoiser, images, small_mlp, small_plain, weights};

/// A network of another architecture that emits ε.
fn guide() -> Denoiser {
    let config = DenoiserConfig { parameterization: PredictionType::Epsilon, ..small_plain() };
    denoiser(&config)
}

fn guided() -> Denoiser {
    denoiser(&small_mlp()).guided_by(guide()).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// weak + s (strong − weak), both for the class, where the weak x₀ is (xₜ − √(1−ᾱ) ε)/√ᾱ.
#[test]
fn the_prediction_is_extrapolated_from_that_of_the_guide() {
    let (x_t, labels) = (images(&small_mlp(), 3), [4, 0, 2]);
    for t in [0, 3, 12] {
        let alpha_cumprod = guide().schedule().alphas_cumprod()[t];
        let (signal, noise) = (alpha_cumprod.sqrt() as f32, (1.0 - alpha_cumprod).sqrt() as f32);
        let eps = values(&guide().forward(&x_t, &[t; 3], &labels).unwrap());
        let strong = values(&denoiser(&small_mlp()).forward(&x_t, &[t; 3], &labels).unwrap());
        for scale in [0.0, 0.5, 1.0, 3.0] {
            let found = values(&guided().output(&x_t, t, &labels, scale).unwrap());
            for (i, x_t) in values(&x_t).into_iter().enumerate() {
                let weak = (x_t - noise * eps[i]) / signal;
                let expected = weak + scale as f32 * (strong[i] - weak);
                let tolerance = 1e-4 * expected.abs().max(weak.abs()).max(1.0);
                assert!((found[i] - expected).abs() < tolerance, "{t} {scale}: {} {expected}", found[i]);
            }
        }
    }
}

/// The guide counts in the guidance interval only, and the null class does not count.
#[test]
fn samples_depend_on_the_guide_within_the_interval() {
    let sample = |denoiser: &Denoiser, interval| {
        let guidance = GuidanceOptions { scale: Some(2.0), interval: Some(interval), annealing: None };
        let options = SampleOptions { guidance, steps: Steps::Spaced(4), ..SampleOptions::default() };
        let config = options.config(1, denoiser).unwrap();
        bits(&denoiser.sample(&config, &[0, 1], &[2, 3], |_| Ok(())).unwrap())
    };
    // The timesteps are 19, 14, 9 and 4.
    let (alone, guided) = (denoiser(&small_mlp()), guided());
    assert!(sample(&guided, 8.0..=10.0) != sample(&alone, 8.0..=10.0));
    assert!(sample(&guided, 10.0..=13.0) == sample(&alone, 10.0..=13.0));
}

#[test]
fn a_model_without_classes_can_be_guided() {
    let config = DenoiserConfig { num_classes: 0, ..small_mlp() };
    let weaker = Denoiser::new(
        &config,
        &NoiseScheduleConfig::mnist20(),
        initial_weights(&config, 8, &candle_core::Device::Cpu).unwrap(),
    );
    let guided = denoiser(&config).guided_by(weaker.unwrap()).unwrap();
    let config = SampleConfig::ancestral(1, &guided).unwrap();
    assert_eq!(config.guidance.scale(), 2.0);
    guided.sample(&config, &[0], &[0], |_| Ok(())).unwrap();
    assert_eq!(SampleConfig::ancestral(1, &denoiser(guided.config())).unwrap().guidance.scale(), 1.0);
}

#[test]
fn a_guide_that_does_not_fit_is_refused() {
    let refused = |guide: Denoiser| denoiser(&small_mlp()).guided_by(guide).unwrap_err().to_string();
    let with = |change: &dyn Fn(&mut DenoiserConfig, &mut NoiseScheduleConfig)| {
        let (mut config, mut schedule) = (small_mlp(), NoiseScheduleConfig::mnist20());
        change(&mut config, &mut schedule);
        let weights = weights(&config, candle_core::DType::F32);
        Denoiser::new(&config, &schedule, weights).unwrap()
    };
    for (guide, message) in [
        (
            with(&|config, _| config.cols = 5),
            "the image size of the guide is 3×5, expected 3×4, as in the model",
        ),
        (
            with(&|config, _| config.num_classes = 0),
            "the number of classes of the guide is 0, expected 5, as in the model",
        ),
        (
            with(&|_, schedule| schedule.num_train_timesteps = 50),
            "the number of timesteps of the guide is 50, expected 20, as in the model",
        ),
        (
            with(&|_, schedule| schedule.beta_start = 0.002),
            "alphas_cumprod[0] of the guide is 0.998, expected 0.999, as in the model",
        ),
    ] {
        assert_eq!(refused(guide), message);
    }
}

#[test]
fn a_guide_without_effect_and_annealing_beside_it_are_refused() {
    let config = |scale, annealing, denoiser: &Denoiser| {
        let guidance = GuidanceOptions { scale, interval: None, annealing };
        SampleOptions { guidance, ..SampleOptions::default() }.config(1, denoiser).map(|_| ())
    };
    let message = config(Some(1.0), None, &guided()).unwrap_err().to_string();
    assert_eq!(
        message,
        "the guidance scale is 1, expected another scale with a guide, which has no effect at 1"
    );
    let message = config(None, Some(3.0..=5.0), &guided()).unwrap_err().to_string();
    assert!(message.contains("class annealing is used with a guide"), "{message}");
    let rescaled = SampleConfig::ancestral(1, &guided()).unwrap();
    let guidance = rescaled.guidance.clone().rescaled(0.7).unwrap();
    let message = guided().start(&SampleConfig { guidance, ..rescaled }, &[0]).unwrap_err().to_string();
    assert!(message.starts_with("guidance rescale is 0.7, expected 0: "), "{message}");
    let unconditional = denoiser(&DenoiserConfig { num_classes: 0, ..small_mlp() });
    let failed = config(None, Some(3.0..=5.0), &unconditional);
    assert!(matches!(failed, Err(Error::Guidance { found: 0.0 })));
}

/// From the last timestep of annealing on, the images do not depend on their classes.
#[test]
fn above_the_interval_of_annealing_the_class_has_no_effect() {
    let denoiser = denoiser(&small_mlp());
    let after_first_step = |annealing, labels: &[u32]| {
        let guidance = GuidanceOptions { annealing, ..GuidanceOptions::default() };
        let mut config = SampleOptions { guidance, ..SampleOptions::default() }.config(1, &denoiser).unwrap();
        config.plan = Sampler::ddim(0.0).plan(denoiser.schedule(), Steps::Spaced(4)).unwrap();
        let mut steps = Vec::new();
        let keep = |step: ddpm_core::StepInfo<'_>| {
            steps.push(bits(step.x_t));
            Ok(())
        };
        denoiser.sample(&config, &[0, 1], labels, keep).unwrap();
        steps
    };
    // The timesteps are 19, 14, 9 and 4.
    let [one, other] = [[1, 2], [3, 4]].map(|labels| after_first_step(Some(10.0..=14.0), &labels));
    assert!(one[..2] == other[..2] && one[2] != other[2]);
    let [one, other] = [[1, 2], [3, 4]].map(|labels| after_first_step(None, &labels));
    assert!(one[0] != other[0]);
}
