//! Autoguidance and class annealing.

use candle_core::Tensor;
use ddpm_core::{Guidance, NoiseScheduleConfig, PredictionType, Sampler, Steps};
use ddpm_model::{
    Denoiser, DenoiserConfig, DenoiserGuidance, Error, GuidanceOptions, GuidanceScales, SampleConfig,
    SampleOptions, WeightType, initial_weights, read_model, write_model,
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

/// strong + (s − 1)(strong − null) + (g − 1)(strong − weak), where the weak x₀ is (xₜ − √(1−ᾱ) ε)/√ᾱ.
#[test]
fn the_prediction_is_extrapolated_from_those_of_the_null_class_and_of_the_guide() {
    let (x_t, labels) = (images(&small_mlp(), 3), [4, 0, 2]);
    for t in [0, 3, 12] {
        let alpha_cumprod = guide().schedule().alphas_cumprod()[t];
        let (signal, noise) = (alpha_cumprod.sqrt() as f32, (1.0 - alpha_cumprod).sqrt() as f32);
        let eps = values(&guide().forward(&x_t, &[t; 3], &labels).unwrap());
        let of = |labels: &[u32]| values(&denoiser(&small_mlp()).forward(&x_t, &[t; 3], labels).unwrap());
        let (strong, null) = (of(&labels), of(&[5; 3]));
        for (class, guide) in
            [(1.0, 1.0), (1.0, 0.0), (1.0, 3.0), (0.0, 1.0), (0.0, 1.5), (2.0, 1.0), (2.0, 1.5)]
        {
            let found = values(&guided().output(&x_t, t, &labels, GuidanceScales { class, guide }).unwrap());
            for (i, x_t) in values(&x_t).into_iter().enumerate() {
                let weak = (x_t - noise * eps[i]) / signal;
                let [s, g] = [class, guide].map(|scale| scale as f32 - 1.0);
                let expected = strong[i] + s * (strong[i] - null[i]) + g * (strong[i] - weak);
                let tolerance = 1e-4 * expected.abs().max(weak.abs()).max(1.0);
                let difference = (found[i] - expected).abs();
                assert!(difference < tolerance, "{t} {class} {guide}: {} {expected}", found[i]);
            }
        }
    }
}

/// The guide counts in its interval only.
#[test]
fn samples_depend_on_the_guide_within_the_interval() {
    let sample = |denoiser: &Denoiser, interval| {
        let (scale, guide_scale, guide_interval) = (Some(1.0), denoiser.guide().map(|_| 2.0), interval);
        let guide_interval = guide_scale.map(|_| guide_interval);
        let guidance = GuidanceOptions { scale, guide_scale, guide_interval, ..GuidanceOptions::default() };
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
    let scales = |guidance: &DenoiserGuidance| [guidance.class.scale(), guidance.guide.scale()];
    assert_eq!(scales(&config.guidance), [1.0, 1.5]);
    guided.sample(&config, &[0], &[0], |_| Ok(())).unwrap();
    let alone = denoiser(guided.config());
    assert_eq!(scales(&SampleConfig::ancestral(1, &alone).unwrap().guidance), [1.0, 1.0]);
    let error = alone.start(&config, &[0]).unwrap_err().to_string();
    assert_eq!(error, "guidance 1.5 by a guide needs a model with a guide, and this model has none");
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
fn guidance_without_effect_or_of_another_kind_is_refused() {
    let refused = |guidance: GuidanceOptions| guidance.guidance(&guided()).unwrap_err().to_string();
    let none = GuidanceOptions::default;
    let message =
        "the guidance scale is 1, expected another scale with a guidance interval, which has no effect at 1";
    for options in [
        GuidanceOptions { scale: Some(1.0), interval: Some(3.0..=5.0), ..none() },
        GuidanceOptions { guide_scale: Some(1.0), guide_interval: Some(3.0..=5.0), ..none() },
    ] {
        assert_eq!(refused(options), message);
    }
    let beyond = refused(GuidanceOptions { guide_interval: Some(3.0..=25.0), ..none() });
    assert_eq!(beyond, "the guidance interval is 3-25, expected timesteps from 0 to 19");
    let not_finite = refused(GuidanceOptions { guide_scale: Some(f64::NAN), ..none() });
    assert!(not_finite.contains("NaN"), "{not_finite}");

    let config = SampleConfig::ancestral(1, &guided()).unwrap();
    let start = |class: Guidance, guide: Guidance| {
        let guidance = DenoiserGuidance { class, guide };
        guided().start(&SampleConfig { guidance, ..config.clone() }, &[0]).unwrap_err().to_string()
    };
    let (plain, rescaled) = (Guidance::new(1.5), Guidance::new(1.5).rescaled(0.7).unwrap());
    for message in [start(plain.clone(), rescaled.clone()), start(rescaled, plain.clone())] {
        assert!(message.starts_with("guidance rescale is 0.7, expected 0: "), "{message}");
    }
    let annealed = start(plain.clone(), plain.annealed(3.0..=5.0));
    assert!(annealed.starts_with("annealing of guidance by the guide is given, expected none"), "{annealed}");

    let unconditional = denoiser(&DenoiserConfig { num_classes: 0, ..small_mlp() });
    let annealing = GuidanceOptions { annealing: Some(3.0..=5.0), ..none() };
    assert!(matches!(annealing.guidance(&unconditional), Err(Error::Guidance { found: 0.0 })));
}

/// The folder of a model holds its guide, which comes back the same.
#[test]
fn the_guide_is_in_the_folder_of_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    let write = |denoiser: &Denoiser| write_model(&model, denoiser, WeightType::F32, "").unwrap();
    let read = || read_model(&model, &candle_core::Device::Cpu);
    write(&guided());
    let guided_model = read().unwrap();
    assert_eq!(guided_model.guide().unwrap().config(), guide().config());
    assert_eq!(guided_model.sha256().unwrap(), guided().sha256().unwrap());
    std::fs::remove_file(model.join("guide/config.json")).unwrap();
    let error = read().unwrap_err().to_string();
    assert!(error.contains("guide/config.json"), "{error}");
    // A model without a guide replaces one with a guide, and nothing of it is left.
    write(&denoiser(&small_mlp()));
    assert!(read().unwrap().guide().is_none() && !model.join("guide").exists());
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
