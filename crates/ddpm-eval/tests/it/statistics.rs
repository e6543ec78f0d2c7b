//! What the figures say of samples whose distributions are known.

use candle_core::{DType, Device, Tensor};
use ddpm_core::{CounterRng, Purpose};
use ddpm_eval::{FrechetSubsets, GaussianFit, frechet_distance, frechet_limit};

const WIDTH: u32 = 64;

/// Standard normal rows.
fn normal(count: u64, seed: u64) -> Tensor {
    let indices: Vec<u64> = (0..count).collect();
    let rng = CounterRng::new(seed);
    rng.normal(Purpose::EVALUATION, &indices, 0, &[WIDTH as usize], DType::F32, &Device::Cpu).unwrap()
}

/// The distance of n standard normal rows from their distribution is |mean|² + |Σ − I|²/4 to first order, with an
/// average of c/n, c = D + D(D + 1)/4. Those of the reference add their part of it, which stays.
#[test]
fn the_limit_takes_the_bias_away() {
    let reference_rows = 40_000;
    let (generated, reference) = (normal(6000, 1), GaussianFit::new(&normal(reference_rows, 2)).unwrap());
    let subsets = FrechetSubsets { smallest: 2000, count: 5, seed: 1 };
    let limit = frechet_limit(&generated, &reference, &subsets).unwrap();
    let sizes: Vec<usize> = limit.points.iter().map(|point| point.images).collect();
    assert_eq!(sizes, [2000, 3000, 4000, 5000, 6000]);

    let all = frechet_distance(&GaussianFit::new(&generated).unwrap(), &reference).unwrap();
    let last = limit.points.last().unwrap().distance;
    assert!((last - all).abs() < 1e-9, "a shuffle changed the distance of all images: {last}, not {all}");

    let width = f64::from(WIDTH);
    let slope = width + width * (width + 1.0) / 4.0;
    let left = slope / reference_rows as f64;
    assert!((limit.slope / slope - 1.0).abs() < 0.1, "{limit:?}, not {slope}");
    assert!((limit.distance - left).abs() < 0.1 * (all - left), "{limit:?}, not {left}");
    assert_eq!(frechet_limit(&generated, &reference, &subsets).unwrap(), limit);
}

#[test]
fn subsets_as_large_as_the_set_are_refused() {
    let (generated, reference) = (normal(100, 1), GaussianFit::new(&normal(100, 2)).unwrap());
    for (smallest, count) in [(100, 3), (1, 3), (50, 1)] {
        let failed = frechet_limit(&generated, &reference, &FrechetSubsets { smallest, count, seed: 1 });
        assert!(failed.is_err(), "{smallest} {count}");
    }
}
