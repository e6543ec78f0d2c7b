//! The Fréchet distance between two sets of features.

use candle_core::Tensor;
use nalgebra::{DMatrix, DVector};
use serde::Serialize;

use super::{points::Points, subsets::subset};
use crate::{Error, Result};

/// A normal distribution fitted to features: their mean and covariance.
#[derive(Clone, Debug, PartialEq)]
pub struct GaussianFit {
    mean: DVector<f64>,
    covariance: DMatrix<f64>,
}

impl GaussianFit {
    /// Fits features [N, D], N ≥ 2. The covariance is divided by N − 1, as in `numpy.cov` and most implementations of
    /// the FID. It is singular if N ≤ D.
    ///
    /// # Errors
    ///
    /// If the tensor is not a matrix, has fewer than two rows or a value that is infinite or NaN, or the tensor library
    /// fails.
    pub fn new(features: &Tensor) -> Result<Self> {
        Self::of(&Points::features(features, 2)?)
    }

    /// The number of features D.
    #[must_use]
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// The mean, \[D\].
    #[must_use]
    pub fn mean(&self) -> &[f64] {
        self.mean.as_slice()
    }

    /// The covariance, [D, D], row by row.
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

/// The squared Fréchet distance between two normal distributions (Dowson & Landau 1982). For fits to the features of
/// two sets of images it is the FID (Heusel et al. 2017, eq. 6):
///
/// ```text
/// |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁^½ Σ₂ Σ₁^½)^½)
/// ```
///
/// Like the FID in the literature, it is the *square* of a distance, in units of squared features. Covariances may be
/// singular. The trace of the last root is computed as the sum of the singular values of Σ₁^½ Σ₂^½: rounding changes
/// them far less than the root of an eigenvalue near 0.
///
/// # Errors
///
/// If the numbers of features differ.
pub fn frechet_distance(a: &GaussianFit, b: &GaussianFit) -> Result<f64> {
    if a.width() != b.width() {
        return Err(Error::feature_count(a.width(), b.width()));
    }
    let product = root(&a.covariance) * root(&b.covariance);
    let trace =
        a.covariance.trace() + b.covariance.trace() - 2.0 * singular_values(product).iter().sum::<f64>();
    Ok((&a.mean - &b.mean).norm_squared() + trace.max(0.0))
}

/// The symmetric square root of a covariance. Eigenvalues within rounding of 0 count as 0.
fn root(covariance: &DMatrix<f64>) -> DMatrix<f64> {
    let eigen = covariance.clone().symmetric_eigen();
    let threshold = eigen.eigenvalues.amax() * covariance.nrows() as f64 * f64::EPSILON;
    let roots = eigen.eigenvalues.map(|value| if value > threshold { value.sqrt() } else { 0.0 });
    &eigen.eigenvectors * DMatrix::from_diagonal(&roots) * eigen.eigenvectors.transpose()
}

/// The singular values of a matrix, by rotations that make its columns orthogonal (Hestenes 1958). nalgebra's method can
/// go on for ever if many of them are 0, as for images of which many are equal.
fn singular_values(mut matrix: DMatrix<f64>) -> Vec<f64> {
    // Ten are more than any matrix needed in tests.
    for _ in 0..60 {
        let mut rotated = false;
        for j in 1..matrix.ncols() {
            for i in 0..j {
                let (left, right) = (matrix.column(i), matrix.column(j));
                let (a, b, product) = (left.norm_squared(), right.norm_squared(), left.dot(&right));
                if product.abs() <= f64::EPSILON * (a * b).sqrt() {
                    continue;
                }
                rotated = true;
                let half = (b - a) / (2.0 * product);
                let tangent = half.signum() / (half.abs() + half.hypot(1.0));
                let cosine = tangent.hypot(1.0).recip();
                let sine = tangent * cosine;
                for row in 0..matrix.nrows() {
                    let (x, y) = (matrix[(row, i)], matrix[(row, j)]);
                    matrix[(row, i)] = cosine * x - sine * y;
                    matrix[(row, j)] = sine * x + cosine * y;
                }
            }
        }
        if !rotated {
            break;
        }
    }
    matrix.column_iter().map(|column| column.norm()).collect()
}

/// The subsets that [`frechet_limit`] fits a line to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrechetSubsets {
    /// The number of images in the smallest subset, at least 2. A line fits only if it is many times the number of
    /// features.
    pub smallest: usize,
    /// The number of subsets, at least 2. Their sizes are evenly spaced from `smallest` to all images.
    pub count: usize,
    /// The seed of the subsets.
    pub seed: u64,
}

impl FrechetSubsets {
    /// 15 subsets, the smallest with 5000 images, as in Chong & Forsyth 2020.
    #[must_use]
    pub fn chong2020(seed: u64) -> Self {
        Self { smallest: 5000, count: 15, seed }
    }
}

/// A Fréchet distance extrapolated to infinitely many images, which removes the bias of a finite number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FrechetLimit {
    /// The intercept of the line: the distance at 1/n = 0.
    pub distance: f64,
    /// The slope of the line. The bias for n images is `slope`/n.
    pub slope: f64,
    /// The points of the fit, smallest subset first.
    pub points: Vec<FrechetPoint>,
}

/// The Fréchet distance of a subset.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FrechetPoint {
    /// The number of images.
    pub images: usize,
    /// The distance from the reference.
    pub distance: f64,
}

/// The Fréchet distance of features [N, D] from a reference, extrapolated to infinitely many images: FID∞ (Chong &
/// Forsyth 2020, "Effectively unbiased FID and Inception Score"). The distance of n images has a bias of about c/n,
/// where c depends on the model. A least-squares line through the distances of subsets of several sizes against 1/n
/// removes it.
///
/// The bias from the number of *reference* images remains, so use the same reference for all models.
///
/// # Errors
///
/// As [`GaussianFit::new`] and [`frechet_distance`], and if the number of subsets is below 2, or the smallest subset
/// does not have 2 to N − 1 images.
pub fn frechet_limit(
    features: &Tensor,
    reference: &GaussianFit,
    subsets: &FrechetSubsets,
) -> Result<FrechetLimit> {
    let points = Points::features(features, 2)?;
    let &FrechetSubsets { smallest, count, seed } = subsets;
    if count < 2 {
        return Err(Error::out_of_range("number of subsets", count, "at least 2"));
    }
    if smallest < 2 || smallest >= points.len() {
        return Err(Error::out_of_range("subset size", smallest, format!("2 to {}", points.len() - 1)));
    }
    let sizes = (0..count).map(|i| smallest + ((points.len() - smallest) * i).div_euclid(count - 1));
    let points = sizes.enumerate().map(|(index, images)| {
        let rows = points.select(&subset(points.len(), images, seed, index)?)?;
        Ok(FrechetPoint { images, distance: frechet_distance(&GaussianFit::of(&rows)?, reference)? })
    });
    let points: Vec<FrechetPoint> = points.collect::<Result<_>>()?;
    let (distance, slope) = fit(&points);
    Ok(FrechetLimit { distance, slope, points })
}

/// Intercept and slope of the least-squares line of the distances against 1/n.
fn fit(points: &[FrechetPoint]) -> (f64, f64) {
    let n = points.len() as f64;
    let inverse = |point: &FrechetPoint| 1.0 / point.images as f64;
    let (mean_x, mean_y) = (
        points.iter().map(inverse).sum::<f64>() / n,
        points.iter().map(|point| point.distance).sum::<f64>() / n,
    );
    let products =
        points.iter().map(|point| (inverse(point) - mean_x) * (point.distance - mean_y)).sum::<f64>();
    let slope = products / points.iter().map(|point| (inverse(point) - mean_x).powi(2)).sum::<f64>();
    (mean_y - slope * mean_x, slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(mean: &[f64], variances: &[f64]) -> GaussianFit {
        let covariance = DMatrix::from_diagonal(&DVector::from_row_slice(variances));
        GaussianFit { mean: DVector::from_row_slice(mean), covariance }
    }

    /// A two-dimensional distribution rotated by an angle.
    fn rotated(fit: &GaussianFit, angle: f64) -> GaussianFit {
        let rotation = DMatrix::from_row_slice(2, 2, &[angle.cos(), -angle.sin(), angle.sin(), angle.cos()]);
        GaussianFit {
            mean: &rotation * &fit.mean,
            covariance: &rotation * &fit.covariance * rotation.transpose(),
        }
    }

    /// For covariances that commute, the distance is |μ₁ − μ₂|² + Σ (σ₁ − σ₂)².
    #[test]
    fn distances_of_normal_distributions() {
        let (a, b) = (normal(&[1.0, 2.0], &[4.0, 9.0]), normal(&[0.0, 4.0], &[1.0, 25.0]));
        let expected = 1.0 + 4.0 + 1.0 + 4.0;
        assert!((frechet_distance(&a, &b).unwrap() - expected).abs() < 1e-12);
        let found = frechet_distance(&rotated(&b, 0.7), &rotated(&a, 0.7)).unwrap();
        assert!((found - expected).abs() < 1e-12, "{found}");
    }

    /// For 2×2 matrices, tr (A B)^½ = √(tr AB + 2 √det AB) by the Cayley–Hamilton theorem.
    #[test]
    fn covariances_that_do_not_commute() {
        let (a, b) = (normal(&[0.0; 2], &[4.0, 1.0]), rotated(&normal(&[0.0; 2], &[9.0, 1.0]), 0.5));
        let product = &a.covariance * &b.covariance;
        let expected = 15.0 - 2.0 * (product.trace() + 2.0 * product.determinant().sqrt()).sqrt();
        let found = frechet_distance(&a, &b).unwrap();
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    }

    #[test]
    fn singular_covariances() {
        let line = normal(&[0.0, 0.0], &[4.0, 0.0]);
        assert_eq!(frechet_distance(&line, &line).unwrap(), 0.0);
        // For orthogonal lines the mixed term is 0, so the distance is the sum of the variances.
        let found = frechet_distance(&line, &normal(&[0.0, 0.0], &[0.0, 9.0])).unwrap();
        assert!((found - 13.0).abs() < 1e-12, "{found}");
        let point = normal(&[0.0, 0.0], &[0.0, 0.0]);
        assert_eq!(frechet_distance(&line, &point).unwrap(), 4.0);
        let error = frechet_distance(&line, &normal(&[0.0], &[1.0])).unwrap_err().to_string();
        assert_eq!(error, "number of features is 2, expected 1, as in the other set");
    }

    /// Covariances of fewer images than features, and of few images that are repeated, against the direct computation from
    /// eigenvalues.
    #[test]
    fn fewer_distinct_images_than_features() {
        for (distinct, times) in [(20, 1), (9, 20), (2, 50)] {
            let features = |seed: f64| {
                let image = |i: i32| (f64::from(i) * seed).sin().max(-0.5);
                let values: Vec<f64> = (0..distinct * 128).map(image).collect::<Vec<_>>().repeat(times);
                let shape = (distinct as usize * times, 128);
                GaussianFit::new(&Tensor::from_vec(values, shape, &candle_core::Device::Cpu).unwrap())
                    .unwrap()
            };
            compare_with_eigenvalues(&features(12.9898), &features(78.233));
        }
    }

    fn compare_with_eigenvalues(a: &GaussianFit, b: &GaussianFit) {
        let inner = root(&a.covariance) * &b.covariance * root(&a.covariance);
        let trace: f64 = inner.symmetric_eigenvalues().iter().map(|value| value.max(0.0).sqrt()).sum();
        let expected =
            (&a.mean - &b.mean).norm_squared() + a.covariance.trace() + b.covariance.trace() - 2.0 * trace;
        let found = frechet_distance(a, b).unwrap();
        assert!((found - expected).abs() < 1e-6 * expected, "{found} {expected}");
        assert!(frechet_distance(b, b).unwrap() < 1e-12 * b.covariance.trace());
    }

    #[test]
    fn a_bias_of_c_over_n_is_removed() {
        let points = [100, 150, 400].map(|n| FrechetPoint { images: n, distance: 7.0 + 60.0 / n as f64 });
        let (distance, slope) = fit(&points);
        assert!((distance - 7.0).abs() < 1e-12 && (slope - 60.0).abs() < 1e-9, "{distance} {slope}");
    }
}
