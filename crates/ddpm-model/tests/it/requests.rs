//! The requests of several runs in one evaluation.

use candle_core::{Device, Tensor};
use ddpm_core::{CounterRng, NoiseScheduleConfig, Purpose};
use ddpm_model::{Denoiser, DenoiserConfig, GuidanceScales, Request, initial_weights};

fn denoiser(seed: u64, classes: usize) -> Denoiser {
    let config = DenoiserConfig::mlp(4, 3, classes);
    let weights = initial_weights(&config, seed, &Device::Cpu).unwrap();
    Denoiser::new(&config, &NoiseScheduleConfig::mnist20(), weights).unwrap()
}

fn images(count: u64, first: u64) -> Tensor {
    let indices: Vec<u64> = (first..first + count).collect();
    let rng = CounterRng::new(9);
    rng.normal(Purpose::EVALUATION, &indices, 0, &[12], candle_core::DType::F32, &Device::Cpu).unwrap()
}

fn bits(x: &Tensor) -> Vec<u32> {
    x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

#[test]
fn each_answer_is_the_same_bits_as_that_of_the_request_alone() {
    let guided = denoiser(1, 3).guided_by(denoiser(2, 3)).unwrap();
    let scales = |class, guide| GuidanceScales { class, guide };
    let asked = [
        (images(2, 0), 19, vec![0, 2], scales(1.0, 1.0)),
        (images(1, 2), 3, vec![1], scales(1.5, 1.0)),
        (images(3, 3), 7, vec![2, 2, 3], scales(0.0, 1.0)),
        (images(2, 6), 0, vec![1, 0], scales(1.0, 1.5)),
        (images(1, 8), 7, vec![0], scales(2.0, 0.5)),
        (images(1, 9), 12, vec![0], scales(0.0, 2.0)),
    ];
    let requests: Vec<_> = asked
        .iter()
        .map(|(x_t, t, labels, guidance)| Request { x_t, t: *t, labels, guidance: *guidance })
        .collect();
    let outputs = guided.outputs(&requests).unwrap();
    assert_eq!(outputs.len(), asked.len());
    for ((x_t, t, labels, scales), output) in std::iter::zip(&asked, &outputs) {
        assert_eq!(bits(output), bits(&guided.output(x_t, *t, labels, *scales).unwrap()), "{t} {scales:?}");
    }
    assert!(guided.outputs(&[]).unwrap().is_empty());
}

#[test]
fn a_wrong_request_is_refused_and_a_model_without_classes_ignores_them() {
    let (plain, x_t) = (denoiser(1, 0), images(1, 0));
    let request =
        |labels: &'static [u32], class| Request { x_t: &x_t, t: 1, labels, guidance: f64::into(class) };
    let output = plain.outputs(&[request(&[7], 1.0)]).unwrap();
    assert_eq!(bits(&output[0]), bits(&plain.output(&x_t, 1, &[0], 1.0).unwrap()));
    assert!(plain.outputs(&[request(&[0], 2.0)]).is_err());
    let classes = denoiser(1, 3);
    for wrong in [request(&[4], 1.0), request(&[0, 1], 1.0), Request { t: 20, ..request(&[0], 1.0) }] {
        assert!(classes.outputs(&[request(&[0], 1.0), wrong]).is_err(), "{wrong:?}");
    }
}
