//! Start images that are not pure noise: interpolation, slerp and strength.

use candle_core::{DType, Device, Tensor};
use ddpm_core::{CounterRng, PredictionType, Purpose, Timesteps, slerp};

use crate::{
    assert_out_of_range, largest_difference, schedule,
    toy::{NORMAL, fine_schedule, moments, noise, samplers, start},
    values,
};

fn normal(seed: u64, shape: &[usize], dtype: DType) -> Tensor {
    let images: Vec<u64> = (0..shape[0] as u64).collect();
    CounterRng::new(seed).normal(Purpose::EVALUATION, &images, 0, &shape[1..], dtype, &Device::Cpu).unwrap()
}

fn norm(x: &Tensor) -> f64 {
    values(x).iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Ho et al. 2020, section 4.3: two images are noised to the same timestep, mixed, and denoised. If their noises are
/// independent, the noise of the mixture has half of its variance in the middle; if they are equal, it has all of it.
#[test]
fn two_noises_lose_half_of_the_variance_in_the_middle_and_one_loses_none() {
    let schedule = schedule(|_| {});
    let zeros = start(1).zeros_like().unwrap();
    let variance = |eps: [&Tensor; 2]| {
        let [a, b] = eps.map(|eps| schedule.q_sample(&zeros, &[10], eps).unwrap());
        let middle = ((a + b).unwrap() * 0.5).unwrap();
        moments(&values(&middle)).1.powi(2) / (1.0 - schedule.alphas_cumprod()[10])
    };
    let (one, other) = (start(2), start(3));
    assert!((variance([&one, &other]) - 0.5).abs() < 0.02);
    assert!((variance([&one, &one]) - 1.0).abs() < 0.04);
}

/// Each image is interpolated separately. In two dimensions the angle itself is checked.
#[test]
fn slerp_keeps_norms_and_walks_the_angle_evenly() {
    for shape in [&[3, 784][..], &[2, 1, 28, 28], &[4, 5]] {
        let unit = |seed: u64| {
            let x = normal(seed, shape, DType::F64);
            let images: Vec<Tensor> = (0..shape[0])
                .map(|image| {
                    let x = x.narrow(0, image, 1).unwrap();
                    (&x * (3.0 / norm(&x))).unwrap()
                })
                .collect();
            Tensor::cat(&images, 0).unwrap()
        };
        let (a, b) = (unit(1), unit(2));
        for lambda in [0.0, 0.2, 0.5, 0.9, 1.0] {
            let between = slerp(&a, &b, lambda).unwrap();
            assert_eq!(between.dims(), shape);
            for image in 0..shape[0] {
                assert!((norm(&between.narrow(0, image, 1).unwrap()) - 3.0).abs() < 1e-12, "{lambda}");
            }
            let mirrored = slerp(&b, &a, 1.0 - lambda).unwrap();
            assert!(largest_difference(&values(&between), &values(&mirrored)) < 1e-12);
        }
        for (lambda, end) in [(0.0, &a), (1.0, &b)] {
            let found = slerp(&a, &b, lambda).unwrap();
            assert!(largest_difference(&values(&found), &values(end)) < 1e-12);
        }
    }
    let (a, b) = (
        Tensor::new(&[[1.0_f64, 0.0]], &Device::Cpu).unwrap(),
        Tensor::new(&[[0.0_f64, 1.0]], &Device::Cpu).unwrap(),
    );
    let third = values(&slerp(&a, &b, 1.0 / 3.0).unwrap());
    assert!(largest_difference(&third, &[3.0_f64.sqrt() / 2.0, 0.5]) < 1e-14, "{third:?}");
}

#[test]
fn slerp_of_parallel_and_empty_images_is_linear() {
    let a = normal(1, &[2, 7], DType::F64);
    let twice = (&a * 2.0).unwrap();
    let between = slerp(&a, &twice, 0.25).unwrap();
    assert!(largest_difference(&values(&between), &values(&(&a * 1.25).unwrap())) < 1e-12);
    assert_eq!(values(&slerp(&a, &a, 0.7).unwrap()), values(&a));
    let black = a.zeros_like().unwrap();
    let between = slerp(&a, &black, 0.25).unwrap();
    assert!(largest_difference(&values(&between), &values(&(&a * 0.75).unwrap())) < 1e-12);
}

/// In half precision an angle would lose digits and a norm would overflow.
#[test]
fn slerp_works_in_half_precision_and_for_any_number_of_dimensions() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let exact = [1, 2].map(|seed| normal(seed, &[2, 784], DType::F64));
        let near = exact.clone().map(|x| x.to_dtype(dtype).unwrap());
        let between = slerp(&near[0], &near[1], 0.5).unwrap();
        assert_eq!(between.dtype(), dtype);
        let expected = slerp(&exact[0], &exact[1], 0.5).unwrap();
        let difference = largest_difference(&values(&between), &values(&expected));
        assert!(difference < 0.05, "{dtype:?}: {difference}");
    }
    let line = Tensor::new(&[1.0_f64, -2.0], &Device::Cpu).unwrap();
    assert_eq!(values(&slerp(&line, &line, 0.3).unwrap()), [1.0, -2.0]);
    let nothing = Tensor::zeros((0, 4), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(slerp(&nothing, &nothing, 0.3).unwrap().dims(), [0, 4]);
}

#[test]
fn strength_keeps_the_last_steps_and_the_end_of_the_list() {
    let schedule = schedule(|_| {});
    let all = Timesteps::all(&schedule).ending_at_sigma_min(&schedule);
    for (strength, expected) in [(1.0, 20), (0.5, 10), (0.3, 6), (0.09, 1), (0.001, 1)] {
        let kept = all.clone().strength(strength).unwrap();
        assert_eq!(kept.indices(), (0..expected).rev().collect::<Vec<_>>(), "{strength}");
        assert_eq!(kept.last_alpha_cumprod(), all.last_alpha_cumprod());
    }
    for wrong in [0.0, -0.5, 1.1, f64::NAN] {
        assert_out_of_range(all.clone().strength(wrong), "strength", wrong);
    }
}

/// An image y is noised to xₜ and denoised again. For normal data the distribution of the result is known. A stochastic
/// sampler gives the posterior of x₀ given xₜ, a deterministic sampler the probability flow from xₜ. Both are averaged
/// over the noise of xₜ.
#[test]
fn a_partly_noised_image_is_denoised_to_the_exact_conditional_law() {
    const IMAGE: f64 = 2.0;
    let (_, mean, deviation) = NORMAL.0[0];
    let schedule = fine_schedule(PredictionType::Sample);
    let timesteps = Timesteps::spaced(&schedule, 200).unwrap().strength(0.5).unwrap();
    let first = timesteps.first();
    assert_eq!(first.index(), 499);
    let eps = start(5);
    let image = (eps.zeros_like().unwrap() + IMAGE).unwrap();
    let x_t = schedule.q_sample(&image, &[first.index()], &eps).unwrap();
    let alpha_cumprod = first.alpha_cumprod();
    let (signal, noise_variance) = (alpha_cumprod.sqrt(), 1.0 - alpha_cumprod);
    let variance = alpha_cumprod * deviation.powi(2) + noise_variance;
    // x̂₀ = mean + gain (xₜ − signal mean), and the remaining variance of x₀.
    let gain = signal * deviation.powi(2) / variance;
    let left = deviation.powi(2) * noise_variance / variance;
    let slope = deviation / variance.sqrt();
    let law = |slope: f64, left: f64| {
        (mean + slope * signal * (IMAGE - mean), (slope.powi(2) * noise_variance + left).sqrt())
    };
    for (name, sampler) in samplers() {
        let expected = match name {
            "ddim 0" | "euler" | "heun" => law(slope, 0.0),
            _ if name.starts_with("dpm") || name.starts_with("uni") => law(slope, 0.0),
            "ddpm posterior" | "ddpm beta" | "ddim 1" | "euler ancestral" => law(gain, left),
            _ if name.starts_with("sde") => law(gain, left),
            // Between the two distributions.
            _ => continue,
        };
        let network = NORMAL.network(&schedule);
        let sampled =
            sampler.plan(&schedule, &timesteps).unwrap().sample(x_t.clone(), network, noise(6)).unwrap();
        let found = moments(&values(&sampled));
        let (mean_off, deviation_off) = ((found.0 - expected.0).abs(), (found.1 - expected.1).abs());
        // Five standard errors are 0.0125 and 0.009. First-order solvers lose some variance.
        let bias = if name.starts_with("dd") || name.starts_with("euler") { 0.02 } else { 0.005 };
        let fits = mean_off < 0.015 && deviation_off < 0.01 + bias;
        assert!(fits, "{name}: {found:?}, expected {expected:?}");
    }
    // The two distributions differ enough for this test to distinguish them.
    let apart = (law(slope, 0.0).0 - law(gain, left).0).abs();
    assert!(apart > 0.1, "{apart}");
}
