//! The Fréchet distance of two sets of features.

use candle_core::Tensor;
use nalgebra::{DMatrix, DVector};
use serde::Serialize;

use super::{points::Points, subsets::subset};
use crate::{Error, Result};

/// The mean and the covariance of a set of features.
#[derive(Clone, Debug, PartialEq)]
pub struct GaussianFit {
    mean: DVector<f64>,
    covariance: DMatrix<f64>,
}

impl GaussianFit {
    /// The moments of features [N, D]: the covariance is divided by N − 1, as `numpy.cov` and most implementations
    /// of the FID do. N may be less than D; the covariance is then singular.
    ///
    /// # Errors
    ///
    /// If the tensor is no matrix, has fewer than two rows or a number that is not finite, or the tensor library
    /// fails.
    pub fn new(features: &Tensor) -> Result<Self> {
        Self::of(&Points::features(features, 2)?)
    }

    /// The number of features D.
    #[must_use]
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// The mean, of shape \[D\].
    #[must_use]
    pub fn mean(&self) -> &[f64] {
        self.mean.as_slice()
    }

    /// The covariance, of shape [D, D], row by row.
    #[must_use]
    pub fn covariance(&self) -> &[f64] {
        self.covariance.as_slice()
    }

    fn of(points: &Points<'_>) -> Result<Self> {
        let (rows, width) = (points.to_tensor()?, points.width());
        let mean = rows.mean_keepdim(0)?;
        let centred = rows.broadcast_sub(&mean)?;
        let covariance = (centred.t()?.matmul(&centred)? / (points.len() as f64 - 1.0))?;
        let covariance = DMatrix::from_vec(width, width, covariance.flatten_all()?.to_vec1()?);
        Ok(Self {
            mean: DVector::from_vec(mean.flatten_all()?.to_vec1()?),
            covariance: (&covariance + covariance.transpose()) * 0.5,
        })
    }
}

/// The Fréchet distance of two normal distributions (Dowson & Landau 1982), which for the features of two sets of
/// images is the FID of Heusel et al. 2017, eq. 6:
///
/// ```text
/// |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁^½ Σ₂ Σ₁^½)^½)
/// ```
///
/// It is the *square* of a distance, as in the literature, and in units of squared features. Covariances may
/// be singular. The trace of the last root is the sum of the singular values of Σ₁^½ Σ₂^½, which rounding changes
/// far less than the root of an eigenvalue near 0.
///
/// # Errors
///
/// If the two have another number of features.
pub fn frechet_distance(a: &GaussianFit, b: &GaussianFit) -> Result<f64> {
    if a.width() != b.width() {
        return Err(Error::FeatureWidths { found: a.width(), expected: b.width() });
    }
    let product = root(&a.covariance) * root(&b.covariance);
    let trace = a.covariance.trace() + b.covariance.trace() - 2.0 * product.singular_values().sum();
    Ok((&a.mean - &b.mean).norm_squared() + trace.max(0.0))
}

/// The symmetric root of a covariance. Eigenvalues that are 0 but for rounding count as 0.
fn root(covariance: &DMatrix<f64>) -> DMatrix<f64> {
    let eigen = covariance.clone().symmetric_eigen();
    let least = eigen.eigenvalues.amax() * covariance.nrows() as f64 * f64::EPSILON;
    let roots = eigen.eigenvalues.map(|value| if value > least { value.sqrt() } else { 0.0 });
    &eigen.eigenvectors * DMatrix::from_diagonal(&roots) * eigen.eigenvectors.transpose()
}

/// The subsets from which [`frechet_limit`] extrapolates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrechetSubsets {
    /// The images in the smallest subset, at least 2; many times the number of features, for a line to fit.
    pub smallest: usize,
    /// The number of subsets, at least 2; their sizes go in equal steps from the smallest one to all images.
    pub count: usize,
    /// The seed of the subsets.
    pub seed: u64,
}

impl FrechetSubsets {
    /// 15 subsets, the smallest of 5000 images, as Chong & Forsyth 2020.
    #[must_use]
    pub fn chong2020(seed: u64) -> Self {
        Self { smallest: 5000, count: 15, seed }
    }
}

/// A Fréchet distance without the bias of a finite number of images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FrechetLimit {
    /// The distance where the line meets 1/n = 0.
    pub distance: f64,
    /// The slope of the line: the bias of n images is `slope`/n.
    pub slope: f64,
    /// What the line was fitted to, the smallest subset first.
    pub points: Vec<FrechetPoint>,
}

/// The Fréchet distance of a subset.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FrechetPoint {
    /// The number of images in it.
    pub images: usize,
    /// Its distance.
    pub distance: f64,
}

/// The Fréchet distance of features [N, D] from a reference, extrapolated to infinitely many images: the FID∞ of
/// Chong & Forsyth 2020, "Effectively unbiased FID and Inception Score". The distance of n images is biased by
/// about c/n, with a c that depends on the model; so a line is fitted by least squares to the distances of
/// subsets of several sizes against 1/n.
///
/// The bias that comes from the number of *reference* images stays, so use the same ones for all models.
///
/// # Errors
///
/// As [`GaussianFit::new`] and [`frechet_distance`], and if the subsets are fewer than two, or the smallest is not
/// 2 to N − 1.
pub fn frechet_limit(
    features: &Tensor,
    reference: &GaussianFit,
    subsets: &FrechetSubsets,
) -> Result<FrechetLimit> {
    let points = Points::features(features, 2)?;
    let &FrechetSubsets { smallest, count, seed } = subsets;
    if count < 2 {
        return Err(Error::SubsetCount { found: count });
    }
    if smallest < 2 || smallest >= points.len() {
        return Err(Error::SubsetSize { found: smallest, largest: points.len() - 1 });
    }
    let sizes = (0..count).map(|i| smallest + ((points.len() - smallest) * i).div_euclid(count - 1));
    let found = sizes.enumerate().map(|(number, images)| {
        let rows = points.select(&subset(points.len(), images, seed, number)?)?;
        Ok(FrechetPoint { images, distance: frechet_distance(&GaussianFit::of(&rows)?, reference)? })
    });
    let points: Vec<FrechetPoint> = found.collect::<Result<_>>()?;
    let (distance, slope) = fit(&points);
    Ok(FrechetLimit { distance, slope, points })
}

/// Intercept and slope of the distances against 1/n.
fn fit(points: &[FrechetPoint]) -> (f64, f64) {
    let n = points.len() as f64;
    let x = |point: &FrechetPoint| 1.0 / point.images as f64;
    let (mean_x, mean_y) =
        (points.iter().map(x).sum::<f64>() / n, points.iter().map(|point| point.distance).sum::<f64>() / n);
    let products = points.iter().map(|point| (x(point) - mean_x) * (point.distance - mean_y)).sum::<f64>();
    let slope = products / points.iter().map(|point| (x(point) - mean_x).powi(2)).sum::<f64>();
    (mean_y - slope * mean_x, slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(mean: &[f64], variances: &[f64]) -> GaussianFit {
        let covariance = DMatrix::from_diagonal(&DVector::from_row_slice(variances));
        GaussianFit { mean: DVector::from_row_slice(mean), covariance }
    }

    /// A rotation of the plane of the two dimensions by an angle.
    fn turned(moments: &GaussianFit, angle: f64) -> GaussianFit {
        let rotation = DMatrix::from_row_slice(2, 2, &[angle.cos(), -angle.sin(), angle.sin(), angle.cos()]);
        GaussianFit {
            mean: &rotation * &moments.mean,
            covariance: &rotation * &moments.covariance * rotation.transpose(),
        }
    }

    /// For covariances that commute, the distance is |μ₁ − μ₂|² + Σ (σ₁ − σ₂)².
    #[test]
    fn distances_of_normal_distributions() {
        let (a, b) = (normal(&[1.0, 2.0], &[4.0, 9.0]), normal(&[0.0, 4.0], &[1.0, 25.0]));
        let expected = 1.0 + 4.0 + 1.0 + 4.0;
        assert!((frechet_distance(&a, &b).unwrap() - expected).abs() < 1e-12);
        let found = frechet_distance(&turned(&b, 0.7), &turned(&a, 0.7)).unwrap();
        assert!((found - expected).abs() < 1e-12, "{found}");
    }

    /// tr (A B)^½ of 2×2 matrices is √(tr AB + 2 √det AB), by Cayley and Hamilton.
    #[test]
    fn covariances_that_do_not_commute() {
        let (a, b) = (normal(&[0.0; 2], &[4.0, 1.0]), turned(&normal(&[0.0; 2], &[9.0, 1.0]), 0.5));
        let product = &a.covariance * &b.covariance;
        let expected = 15.0 - 2.0 * (product.trace() + 2.0 * product.determinant().sqrt()).sqrt();
        let found = frechet_distance(&a, &b).unwrap();
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    }

    #[test]
    fn lines_that_do_not_span_the_plane() {
        let line = normal(&[0.0, 0.0], &[4.0, 0.0]);
        assert_eq!(frechet_distance(&line, &line).unwrap(), 0.0);
        // Orthogonal lines have nothing in common: both variances count in full.
        let found = frechet_distance(&line, &normal(&[0.0, 0.0], &[0.0, 9.0])).unwrap();
        assert!((found - 13.0).abs() < 1e-12, "{found}");
        let point = normal(&[0.0, 0.0], &[0.0, 0.0]);
        assert_eq!(frechet_distance(&line, &point).unwrap(), 4.0);
        let failed = frechet_distance(&line, &normal(&[0.0], &[1.0]));
        assert!(matches!(failed, Err(Error::FeatureWidths { found: 2, expected: 1 })));
    }

    /// Against the roots of eigenvalues, the direct way, of covariances of fewer images than features.
    #[test]
    fn fewer_images_than_features() {
        let features = |seed: f64| {
            let values: Vec<f64> = (0..20 * 48).map(|i| (f64::from(i) * seed).sin().max(-0.5)).collect();
            GaussianFit::new(&Tensor::from_vec(values, (20, 48), &candle_core::Device::Cpu).unwrap()).unwrap()
        };
        let (a, b) = (features(12.9898), features(78.233));
        let inner = root(&a.covariance) * &b.covariance * root(&a.covariance);
        let trace: f64 = inner.symmetric_eigenvalues().iter().map(|value| value.max(0.0).sqrt()).sum();
        let expected =
            (&a.mean - &b.mean).norm_squared() + a.covariance.trace() + b.covariance.trace() - 2.0 * trace;
        let found = frechet_distance(&a, &b).unwrap();
        assert!((found - expected).abs() < 1e-6 * expected, "{found} {expected}");
        assert!(frechet_distance(&b, &b).unwrap() < 1e-12);
    }

    #[test]
    fn a_bias_of_c_over_n_is_taken_away() {
        let points = [100, 150, 400].map(|n| FrechetPoint { images: n, distance: 7.0 + 60.0 / n as f64 });
        let (distance, slope) = fit(&points);
        assert!((distance - 7.0).abs() < 1e-12 && (slope - 60.0).abs() < 1e-9, "{distance} {slope}");
    }
}
