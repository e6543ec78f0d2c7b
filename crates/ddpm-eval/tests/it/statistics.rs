//! Metrics of samples from known distributions.

use candle_core::{DType, Device, Tensor};
use ddpm_core::{CounterRng, Purpose};
use ddpm_eval::{FrechetSubsets, GaussianFit, frechet_distance, frechet_limit};

const WIDTH: u32 = 64;

/// Rows from a standard normal distribution, [count, 64].
fn normal(count: u64, seed: u64) -> Tensor {
    let indices: Vec<u64> = (0..count).collect();
    let rng = CounterRng::new(seed);
    rng.normal(Purpose::EVALUATION, &indices, 0, &[WIDTH as usize], DType::F32, &Device::Cpu).unwrap()
}

/// To first order, the distance between n standard normal rows and their distribution is |mean|² + |Σ − I|²/4. Its
/// expectation is c/n with c = D + D(D + 1)/4. The N rows of the reference add a bias of c/N, which remains.
#[test]
fn the_extrapolation_removes_the_bias() {
    let reference_rows = 40_000;
    let (generated, reference) = (normal(6000, 1), GaussianFit::new(&normal(reference_rows, 2)).unwrap());
    let subsets = FrechetSubsets { smallest: 2000, count: 5, seed: 1 };
    let limit = frechet_limit(&generated, &reference, &subsets).unwrap();
    let sizes: Vec<usize> = limit.points.iter().map(|point| point.images).collect();
    assert_eq!(sizes, [2000, 3000, 4000, 5000, 6000]);

    let all = frechet_distance(&GaussianFit::new(&generated).unwrap(), &reference).unwrap();
    let last = limit.points.last().unwrap().distance;
    assert!(
        (last - all).abs() < 1e-9,
        "a shuffle changed the distance of all images: {last}, expected {all}"
    );

    let width = f64::from(WIDTH);
    let slope = width + width * (width + 1.0) / 4.0;
    let remaining = slope / reference_rows as f64;
    assert!((limit.slope / slope - 1.0).abs() < 0.1, "{limit:?}, expected {slope}");
    assert!((limit.distance - remaining).abs() < 0.1 * (all - remaining), "{limit:?}, expected {remaining}");
    assert_eq!(frechet_limit(&generated, &reference, &subsets).unwrap(), limit);
}

#[test]
fn invalid_subsets_are_refused() {
    let (generated, reference) = (normal(100, 1), GaussianFit::new(&normal(100, 2)).unwrap());
    for (smallest, count, expected) in [
        (100, 3, "subset size is 100, expected 2 to 99"),
        (1, 3, "subset size is 1, expected 2 to 99"),
        (50, 1, "number of subsets is 1, expected at least 2"),
    ] {
        let error = frechet_limit(&generated, &reference, &FrechetSubsets { smallest, count, seed: 1 });
        assert_eq!(error.unwrap_err().to_string(), expected);
    }
}
