//! Networks in half precision, on a CPU.

use candle_core::{DType, Tensor};
use ddpm_model::{ComputeType, Denoiser, GuidanceScales, SampleConfig};

use crate::{bits, denoiser, images, small_mlp, small_patch_mlp, small_plain};

/// The types of half precision with their unit roundoff, the largest relative error of a rounding.
const HALF: [(ComputeType, f64); 2] = [(ComputeType::F16, 1.0 / 2048.0), (ComputeType::Bf16, 1.0 / 256.0)];

fn in_half(denoiser: Denoiser, compute: ComputeType) -> Denoiser {
    denoiser.computing_in(compute).unwrap()
}

/// The root mean square of a tensor.
fn rms(x: &Tensor) -> f64 {
    let mean = x.to_dtype(DType::F64).unwrap().sqr().unwrap().mean_all().unwrap();
    mean.to_scalar::<f64>().unwrap().sqrt()
}

/// Every layer rounds its input, its products, their sum with the bias and SiLU, in a chain of at most 10 layers: some 40
/// roundings, each of one unit at most and of independent signs, so √40 < 8 units. Twice that is allowed. An eighth of a unit
/// shows that the network was rounded at all.
#[test]
fn half_precision_is_near_f32_and_the_output_has_the_type_of_x_t() {
    for config in [small_mlp(), small_plain(), small_patch_mlp()] {
        let (x_t, labels) = (images(&config, 6), [0, 1, 2, 3, 4, 5]);
        let exact = denoiser(&config).forward(&x_t, &[7; 6], &labels).unwrap();
        for (compute, unit) in HALF {
            let half = in_half(denoiser(&config), compute).forward(&x_t, &[7; 6], &labels).unwrap();
            assert_eq!(half.dtype(), DType::F32);
            let error = rms(&(&half - &exact).unwrap()) / rms(&exact) / unit;
            assert!(error < 16.0 && error > 0.125, "{compute:?} {config:?}: {error} units");
        }
    }
}

#[test]
fn guidance_and_the_guide_follow() {
    let config = small_mlp();
    let guided = || denoiser(&config).guided_by(denoiser(&config)).unwrap();
    let x_t = images(&config, 3);
    let scales = GuidanceScales { class: 2.0, guide: 1.5 };
    let output = |denoiser: &Denoiser| denoiser.output(&x_t, 5, &[0, 1, 2], scales).unwrap();
    for (compute, _) in HALF {
        let half = in_half(guided(), compute);
        let (own, guide) = (half.forward(&x_t, &[5; 3], &[0, 1, 2]), half.guide().unwrap());
        assert_eq!(bits(&own.unwrap()), bits(&guide.forward(&x_t, &[5; 3], &[0, 1, 2]).unwrap()));
        assert_ne!(bits(&output(&half)), bits(&output(&guided())));
    }
}

/// Coefficients and state of a sampler are never rounded to half precision.
#[test]
fn the_state_of_a_sampler_stays_f32() {
    for (compute, _) in HALF {
        let denoiser = in_half(denoiser(&small_patch_mlp()), compute);
        let config = SampleConfig::ancestral(1, &denoiser).unwrap();
        let observe = |step: ddpm_core::StepInfo<'_>| {
            assert_eq!((step.x_t.dtype(), step.x_start.dtype()), (DType::F32, DType::F32));
            if step.index + 1 < step.total {
                let rounded = step.x_t.to_dtype(compute.dtype())?.to_dtype(DType::F32)?;
                assert_ne!(bits(step.x_t), bits(&rounded), "step {}", step.index);
            }
            Ok(())
        };
        let sampled = denoiser.sample(&config, &[0, 1], &[0, 1], observe).unwrap();
        assert_eq!(sampled.dtype(), DType::F32);
    }
}

/// Another number type changes neither the weights nor the digest of the model.
#[test]
fn f32_changes_no_bit_and_half_precision_no_weight() {
    let config = small_patch_mlp();
    let x_t = images(&config, 2);
    let output = |denoiser: &Denoiser| bits(&denoiser.forward(&x_t, &[3, 9], &[0, 1]).unwrap());
    let plain = denoiser(&config);
    assert_eq!(output(&plain), output(&in_half(denoiser(&config), ComputeType::F32)));
    for (compute, _) in HALF {
        let half = in_half(denoiser(&config), compute);
        assert_eq!(half.sha256().unwrap(), plain.sha256().unwrap());
        assert_eq!(output(&in_half(half, ComputeType::F32)), output(&plain), "and back");
    }
}
