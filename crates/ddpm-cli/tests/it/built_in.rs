//! The built-in model.

use std::{fs, path::Path};

use candle_core::{Device, Tensor, Var};
use ddpm_core::{Guidance, Sampler, Steps};
use ddpm_model::{Denoiser, PlanFit, PlanFitConfig, SampleConfig, SampleOptions, SamplerName, read_model};
use tempfile::tempdir;

use crate::{json, names, run, stdout};

#[test]
fn sample_without_options_generates_five_images_of_each_digit() {
    let folder = tempdir().unwrap();
    let result = json(folder.path(), &["sample"]);
    assert_eq!(names(folder.path()), ["samples.png"]);
    assert_eq!((&result["images"], &result["model"]), (&50.into(), &"built-in".into()));
    let picture = image::open(folder.path().join("samples.png")).unwrap();
    let expected = (2 * 12 + 10 * 84 + 9 * 4, 2 * 12 + 28 + 5 * 84 + 4 * 4);
    assert_eq!((picture.width(), picture.height()), expected);
}

#[test]
fn info_describes_it() {
    let folder = tempdir().unwrap();
    let info = json(folder.path(), &["info"]);
    let denoiser = &info["denoiser"];
    assert_eq!((&denoiser["rows"], &denoiser["cols"]), (&28.into(), &28.into()));
    assert_eq!((&denoiser["num_classes"], &info["model"]), (&10.into(), &"built-in".into()));
    assert_eq!((&info["version"], &info["device"]), (&env!("CARGO_PKG_VERSION").into(), &"cpu".into()));
    let text = stdout(&run(folder.path(), &["info"]));
    for part in ["28×28 pixels, 10 classes", "patch-mlp: patches of 4×4 pixels", "β from 0.001 to 0.7"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains('{') && text.lines().count() == 7, "{text}");
}

/// Measured with the built-in feature net.
#[test]
fn its_images_are_of_the_requested_class() {
    let folder = tempdir().unwrap();
    let result = json(folder.path(), &["eval", "--num-images", "100", "--metrics", "accuracy"]);
    let accuracy = |key: &str| result[key].as_f64().unwrap();
    assert!(accuracy("class_accuracy") > 0.85, "{result}");
    assert!(accuracy("real_accuracy") > 0.95, "{result}");
}

/// A drawing of a one, with little and with much noise.
#[test]
fn a_smaller_strength_keeps_more_of_a_drawing() {
    let folder = tempdir().unwrap();
    let drawing = image::GrayImage::from_fn(28, 28, |x, y| {
        image::Luma([if (13..16).contains(&x) && (5..23).contains(&y) { 255 } else { 0 }])
    });
    drawing.save(folder.path().join("drawing.png")).unwrap();
    let distances = ["0.2", "0.5", "1"].map(|strength| {
        let from = ["sample", "-q", "--from", "drawing.png", "--strength", strength];
        run(folder.path(), &[&from[..], &["-n", "10", "--format", "idx", "-o", "varied"]].concat());
        let images = fs::read(folder.path().join("varied-images-idx3-ubyte")).unwrap();
        let off = |image: &[u8]| {
            let squares =
                std::iter::zip(image, drawing.as_raw()).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
            squares.sum::<f64>().sqrt()
        };
        images[16..].chunks(784).map(off).sum::<f64>()
    });
    assert!(distances.is_sorted_by(|near, far| 1.3 * near < *far), "{distances:?}");
}

/// The root of the mean squared difference of the images of two configurations.
fn distance(denoiser: &Denoiser, a: &SampleConfig, b: &SampleConfig) -> f32 {
    let images: Vec<u64> = (0..40).collect();
    let labels: Vec<u32> = (0..5).cycle().take(40).collect();
    let sample = |config| denoiser.sample(config, &images, &labels, |_| Ok(())).unwrap();
    let squares: Tensor = (sample(a) - sample(b)).unwrap().sqr().unwrap().mean_all().unwrap();
    squares.to_scalar::<f32>().unwrap().sqrt()
}

/// With images that are not those of the fit.
#[test]
fn a_fitted_plan_is_closer_to_the_long_run_than_solvers_with_its_timesteps() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/models/mnist");
    let denoiser = read_model(&folder, &Device::Cpu).unwrap();
    let guidance = Guidance::new(1.5).within(3.0..=12.0).annealed(11.0..=16.0).into();
    let fit = PlanFit::new(&denoiser, &PlanFitConfig { seed: 1, num_images: 40, guidance }, &[]).unwrap();
    let (method, _) = fit.fit(&[19, 13, 8, 2]).unwrap();
    let fitted = fit.plan(method).unwrap().config(1, &denoiser).unwrap();
    let with = |sampler: Sampler, steps| {
        let plan = sampler.plan(denoiser.schedule(), steps).unwrap();
        SampleConfig { plan, ..fitted.clone() }
    };
    let teacher = with(Sampler::heun(), Steps::All);
    let few = || Steps::Explicit(vec![19, 13, 8, 2]);
    let [ddim, second] = [Sampler::ddim(0.0), Sampler::dpmpp_2m()].map(|sampler| with(sampler, few()));
    let [fitted, ddim, second] = [fitted, ddim, second].map(|config| distance(&denoiser, &config, &teacher));
    assert!(fitted < 0.8 * ddim && fitted < 0.95 * second, "{fitted}, DDIM {ddim}, 2M {second}");
}

/// Every sampler, with the built-in model: its images differ by the order of the sums in a product only. `cargo xtask
/// gpu-check --run` allows a GPU as much.
#[test]
fn kernels_and_tensors_sample_the_same_images() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/models/mnist");
    let kernels = read_model(&folder, &Device::Cpu).unwrap();
    // Variables are evaluated by tensors.
    let by_tensors = |denoiser: &Denoiser| {
        let var = |(name, weight): (&String, &Tensor)| {
            (name.clone(), Var::from_tensor(weight).unwrap().into_inner())
        };
        let weights = denoiser.weights().iter().map(var).collect();
        Denoiser::new(denoiser.config(), &denoiser.schedule_config(), weights).unwrap()
    };
    let tensors = by_tensors(&kernels).guided_by(by_tensors(kernels.guide().unwrap())).unwrap();
    for sampler in [
        SamplerName::Ddpm,
        SamplerName::Ddim,
        SamplerName::DpmPp2m,
        SamplerName::DpmPp2mSde,
        SamplerName::Euler,
        SamplerName::EulerAncestral,
        SamplerName::Heun,
        SamplerName::Unipc,
        SamplerName::Repaint,
    ] {
        let sample = |denoiser: &Denoiser| {
            let options = SampleOptions { sampler: Some(sampler), ..SampleOptions::default() };
            let config = options.config(1, denoiser).unwrap();
            let sampled = denoiser.sample(&config, &[0, 1, 2, 3, 4], &[0, 1, 2, 3, 4], |_| Ok(())).unwrap();
            sampled.detach()
        };
        let difference = (sample(&kernels) - sample(&tensors)).unwrap().abs().unwrap().mean_all().unwrap();
        let levels = difference.to_scalar::<f32>().unwrap() * 127.5;
        println!("{sampler:?}: {levels:.2e} grey levels");
        assert!(levels > 0.0 && levels < 0.1, "{sampler:?}: {levels} grey levels");
    }
}
