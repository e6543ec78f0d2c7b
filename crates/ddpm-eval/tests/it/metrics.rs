//! Each metric against a published package (`fixtures/README.md`).

use candle_core::{DType, Device, Tensor};
use ddpm_data::{Dataset, Images};
use ddpm_eval::{
    Diversity, GaussianFit, KernelSubsets, Manifold, density_coverage, frechet_distance, kernel_distance,
    kernel_mmd2, nearest_images, precision_recall,
};

const BYTES: &[u8] = include_bytes!("../fixtures/metrics.safetensors");

const PAIRS: [(&str, &str); 4] =
    [("real", "generated"), ("generated", "real"), ("real", "flat"), ("flat", "flat_generated")];

fn tensor(name: &str) -> Tensor {
    let file = safetensors::SafeTensors::deserialize(BYTES).unwrap();
    let view = file.tensor(name).unwrap_or_else(|_| panic!("fixture has no {name}"));
    let dtype = DType::try_from(view.dtype()).unwrap();
    Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu).unwrap()
}

fn features(name: &str) -> Tensor {
    tensor(&format!("features/{name}"))
}

fn values(name: &str) -> Vec<f64> {
    tensor(name).to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn bytes(name: &str) -> Vec<u8> {
    tensor(name).flatten_all().unwrap().to_vec1().unwrap()
}

/// The expected metric of a pair of sets.
fn expected(metric: &str, (one, other): (&str, &str)) -> f64 {
    values(&format!("{metric}/{one}/{other}"))[0]
}

/// The tolerance is relative for values above 1, and absolute below.
fn assert_close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in std::iter::zip(found, expected) {
        assert!(
            (found - expected).abs() <= tolerance * expected.abs().max(1.0),
            "{what}: {found}, expected {expected}"
        );
    }
}

#[test]
fn mean_and_covariance_agree_with_numpy() {
    for name in ["real", "generated", "flat", "flat_generated"] {
        let fit = GaussianFit::new(&features(name)).unwrap();
        assert_close(name, fit.mean(), &values(&format!("mean/{name}")), 1e-12);
        assert_close(name, fit.covariance(), &values(&format!("covariance/{name}")), 1e-12);
    }
}

/// torch-fidelity takes roots of the eigenvalues of a matrix product. For singular covariances rounding leaves half of
/// the digits, hence the larger tolerance.
#[test]
fn frechet_distances_agree_with_torch_fidelity() {
    for (one, other) in PAIRS {
        let (a, b) = (GaussianFit::new(&features(one)).unwrap(), GaussianFit::new(&features(other)).unwrap());
        let tolerance = if other.starts_with("flat") { 1e-6 } else { 1e-9 };
        let found = frechet_distance(&a, &b).unwrap();
        assert_close("distance", &[found], &[expected("frechet", (one, other))], tolerance);
        assert_close("to itself", &[frechet_distance(&a, &a).unwrap()], &[0.0], 1e-10);
    }
}

#[test]
fn kernel_estimates_agree_with_torch_fidelity() {
    for pair in PAIRS {
        let found = kernel_mmd2(&features(pair.0), &features(pair.1)).unwrap();
        assert_close("all", &[found], &[expected("mmd2", pair)], 1e-9);
    }
    let (real, generated) = (tensor("subsets/real"), tensor("subsets/generated"));
    let of_subsets: Vec<f64> = (0..real.dim(0).unwrap())
        .map(|i| {
            let rows = |name, picks: &Tensor| features(name).index_select(&picks.get(i).unwrap(), 0).unwrap();
            kernel_mmd2(&rows("real", &real), &rows("generated", &generated)).unwrap()
        })
        .collect();
    assert_close("subsets", &of_subsets, &values("subsets/mmd2"), 1e-9);
}

/// The subsets differ from the fixture, so their mean agrees with the estimate of all images within standard errors
/// only.
#[test]
fn kernel_subsets_spread_around_the_estimate_of_all() {
    let (real, generated) = (features("real"), features("generated"));
    let subsets = KernelSubsets { count: 50, size: 100, seed: 3 };
    let found = kernel_distance(&real, &generated, &subsets).unwrap();
    let all = expected("mmd2", ("real", "generated"));
    assert!((found.mean - all).abs() < 4.0 * found.standard_error, "{found:?}, expected {all}");
    assert!(found.standard_deviation > 0.05 * all, "{found:?}");
    assert_close("error", &[found.standard_error * 7.0], &[found.standard_deviation], 1e-12);
    assert_eq!(kernel_distance(&real, &generated, &subsets).unwrap(), found);
    assert_ne!(kernel_distance(&real, &generated, &KernelSubsets { seed: 4, ..subsets }).unwrap(), found);
}

#[test]
fn manifold_metrics_agree_with_prdc() {
    for pair in PAIRS {
        let [real, generated] = [pair.0, pair.1].map(|name| Manifold::new(&features(name), 5).unwrap());
        let found = precision_recall(&real, &generated, 3).unwrap();
        assert_close("precision", &[found.precision.mean], &[expected("precision", pair)], 1e-12);
        assert_close("recall", &[found.recall.mean], &[expected("recall", pair)], 1e-12);
        let found = density_coverage(&real, &features(pair.1), 5).unwrap();
        assert_close("density", &[found.density.mean], &[expected("density", pair)], 1e-12);
        assert_close("coverage", &[found.coverage.mean], &[expected("coverage", pair)], 1e-12);
    }
}

#[test]
fn distances_within_classes_agree_with_scikit_learn() {
    let [real, generated] = ["real", "generated"].map(|name| {
        let found = Diversity::new(&features(name), &bytes(&format!("labels/{name}")), 3).unwrap();
        let by_class: Vec<f64> = found.by_class.iter().flatten().copied().collect();
        assert_close(name, &by_class, &values(&format!("diversity/{name}")), 1e-9);
        found
    });
    let ratios: Vec<f64> =
        std::iter::zip(values("diversity/generated"), values("diversity/real")).map(|(a, b)| a / b).collect();
    let found = generated.relative_to(&real);
    assert_close("ratio", &[found.overall.unwrap()], &[ratios.iter().sum::<f64>() / 3.0], 1e-9);
}

#[test]
fn nearest_images_agree_with_scikit_learn() {
    let train = Images::new("train", 8, 8, bytes("images/train")).unwrap();
    let train = Dataset::new("train", train, None).unwrap();
    let found = nearest_images(&train, &bytes("images/queries"), &Device::Cpu).unwrap();
    let distances: Vec<f64> = found.iter().map(|image| image.distance).collect();
    let indices: Vec<f64> = found.iter().map(|image| image.index as f64).collect();
    assert_eq!(indices, values("images/index"));
    assert_close("distances", &distances, &values("images/distance"), 1e-12);
}
