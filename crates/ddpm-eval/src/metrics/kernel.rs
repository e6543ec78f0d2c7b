//! The kernel distance between two sets of features.

use candle_core::Tensor;
use serde::Serialize;

use super::{estimate, points::Points, subsets::subset};
use crate::{Error, Result};

/// The unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012, eq. 3) of features [M, D]
/// and [N, D], with the kernel k of the KID (Bińkowski et al. 2018, section 4):
///
/// ```text
/// Σ_{i≠j} k(xᵢ, xⱼ)/(M(M−1)) + Σ_{i≠j} k(yᵢ, yⱼ)/(N(N−1)) − 2 Σ k(xᵢ, yⱼ)/(MN),   k(x, y) = (x·y/D + 1)³
/// ```
///
/// The expectation is 0 for two sets from the same distribution, so an estimate can be negative.
///
/// # Errors
///
/// If a tensor is not a matrix, has fewer than two rows or a value that is infinite or NaN, the numbers of features
/// differ, or the tensor library fails.
pub fn kernel_mmd2(a: &Tensor, b: &Tensor) -> Result<f64> {
    mmd2(&Points::features(a, 2)?, &Points::features(b, 2)?)
}

/// The subsets over which [`kernel_distance`] takes the mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelSubsets {
    /// The number of subsets, at least 2.
    pub count: usize,
    /// The number of images in a subset, from 2 to the size of the smaller set.
    pub size: usize,
    /// The seed of the subsets.
    pub seed: u64,
}

impl KernelSubsets {
    /// 100 subsets of 1000 images, as in torch-fidelity.
    #[must_use]
    pub fn standard(seed: u64) -> Self {
        Self { count: 100, size: 1000, seed }
    }
}

/// The kernel distance (KID) between two sets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct KernelDistance {
    /// The mean of [`kernel_mmd2`] over the subsets.
    pub mean: f64,
    /// The standard deviation over the n subsets, with a divisor of n as in torch-fidelity.
    pub standard_deviation: f64,
    /// The standard error of the mean, s/√n, with a divisor of n − 1 in s². All subsets are drawn from the same images:
    /// it covers the choice of subsets, not the choice of images.
    pub standard_error: f64,
}

/// The kernel distance (KID, Bińkowski et al. 2018) between features [M, D] and [N, D]: the mean of [`kernel_mmd2`]
/// over random subsets of both, each drawn without replacement.
///
/// # Errors
///
/// As [`kernel_mmd2`], and if the number of subsets is below 2, or their size is not 2 to min(M, N).
pub fn kernel_distance(a: &Tensor, b: &Tensor, subsets: &KernelSubsets) -> Result<KernelDistance> {
    let (a, b) = (Points::features(a, 2)?, Points::features(b, 2)?);
    let &KernelSubsets { count, size, seed } = subsets;
    let largest = a.len().min(b.len());
    if count < 2 {
        return Err(Error::out_of_range("number of subsets", count, "at least 2"));
    }
    if size < 2 || size > largest {
        return Err(Error::out_of_range("subset size", size, format!("2 to {largest}")));
    }
    let distances = (0..count).map(|index| {
        // Two different shuffles: with one shuffle, sets in the same order of classes would get subsets of the same
        // classes.
        let of_a = a.select(&subset(a.len(), size, seed, 2 * index)?)?;
        let of_b = b.select(&subset(b.len(), size, seed, 2 * index + 1)?)?;
        mmd2(&of_a, &of_b)
    });
    let estimate = estimate(&distances.collect::<Result<Vec<_>>>()?);
    Ok(KernelDistance {
        mean: estimate.mean,
        standard_deviation: estimate.standard_error * (count as f64 - 1.0).sqrt(),
        standard_error: estimate.standard_error,
    })
}

fn mmd2(a: &Points<'_>, b: &Points<'_>) -> Result<f64> {
    let (m, n) = (a.len() as f64, b.len() as f64);
    let within = kernel_sum(a, a, true)? / (m * (m - 1.0)) + kernel_sum(b, b, true)? / (n * (n - 1.0));
    Ok(within - 2.0 * kernel_sum(a, b, false)? / (m * n))
}

/// The sum of the kernel over all pairs. `same` leaves out the pairs of a point with itself.
fn kernel_sum(a: &Points<'_>, b: &Points<'_>, same: bool) -> Result<f64> {
    let width = a.width() as f64;
    let mut sums = vec![0.0; a.len()];
    a.fold_products(b, &mut sums, |query, sum, start, products| {
        for (index, product) in (start..).zip(products) {
            if !(same && index == query) {
                *sum += (*product / width + 1.0).powi(3);
            }
        }
    })?;
    Ok(sums.iter().sum())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn column(values: &[f32]) -> Tensor {
        Tensor::from_slice(values, (values.len(), 1), &Device::Cpu).unwrap()
    }

    /// By hand: (1·2 + 1)³ = 27 within the first set, (0·1 + 1)³ = 1 within the second. Between the sets the values
    /// are 1, 2³, 1 and 3³, with mean 37/4.
    #[test]
    fn the_kernel_of_two_and_two_points() {
        let found = kernel_mmd2(&column(&[1.0, 2.0]), &column(&[0.0, 1.0])).unwrap();
        assert!((found - (27.0 + 1.0 - 2.0 * 37.0 / 4.0)).abs() < 1e-12, "{found}");
    }

    #[test]
    fn subsets_with_all_images_are_equal() {
        let (a, b) = (column(&[1.0, 2.0, -1.0]), column(&[0.0, 1.0, 3.0]));
        let found = kernel_distance(&a, &b, &KernelSubsets { count: 3, size: 3, seed: 1 }).unwrap();
        assert!((found.mean - kernel_mmd2(&a, &b).unwrap()).abs() < 1e-12);
        assert!(found.standard_deviation < 1e-12);
    }

    #[test]
    fn invalid_subsets_are_refused() {
        let (a, b) = (column(&[1.0, 2.0, 3.0]), column(&[0.0, 1.0]));
        for (count, size, expected) in [
            (5, 3, "subset size is 3, expected 2 to 2"),
            (1, 2, "number of subsets is 1, expected at least 2"),
        ] {
            let error = kernel_distance(&a, &b, &KernelSubsets { count, size, seed: 1 }).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }
}
