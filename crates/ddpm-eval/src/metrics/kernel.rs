//! The kernel distance of two sets of features.

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
/// Sets of the same distribution give 0 on average, so it can be negative.
///
/// # Errors
///
/// If a tensor is no matrix, has fewer than two rows or a number that is not finite, their numbers of features
/// differ, or the tensor library fails.
pub fn kernel_mmd2(a: &Tensor, b: &Tensor) -> Result<f64> {
    mmd2(&Points::features(a, 2)?, &Points::features(b, 2)?)
}

/// The subsets of which [`kernel_distance`] takes the mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelSubsets {
    /// The number of subsets, at least 2.
    pub count: usize,
    /// The images of each, at least 2, and at most as many as each set has.
    pub size: usize,
    /// The seed of the subsets.
    pub seed: u64,
}

impl KernelSubsets {
    /// 100 subsets of 1000 images, as torch-fidelity.
    #[must_use]
    pub fn standard(seed: u64) -> Self {
        Self { count: 100, size: 1000, seed }
    }
}

/// The kernel distance (KID) of two sets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct KernelDistance {
    /// The mean of [`kernel_mmd2`] over the subsets.
    pub mean: f64,
    /// The standard deviation over the subsets, divided by their number, as torch-fidelity gives it.
    pub standard_deviation: f64,
    /// The standard error of the mean, s/√n with s² divided by n − 1. The subsets are drawn from the same images, so
    /// it says how much the choice of subsets changes the mean, and not how much other images would.
    pub standard_error: f64,
}

/// The kernel distance (KID) of Bińkowski et al. 2018 of features [M, D] and [N, D]: the mean of [`kernel_mmd2`] over
/// subsets of both, each drawn without repetition.
///
/// # Errors
///
/// As [`kernel_mmd2`], and if the subsets are fewer than two, or their size is less than 2 or more than there are
/// rows.
pub fn kernel_distance(a: &Tensor, b: &Tensor, subsets: &KernelSubsets) -> Result<KernelDistance> {
    let (a, b) = (Points::features(a, 2)?, Points::features(b, 2)?);
    let &KernelSubsets { count, size, seed } = subsets;
    let largest = a.len().min(b.len());
    if count < 2 {
        return Err(Error::SubsetCount { found: count });
    }
    if size < 2 || size > largest {
        return Err(Error::SubsetSize { found: size, largest });
    }
    let found = (0..count).map(|number| {
        // Different shuffles, so that sets in the same order of classes do not lend each other theirs.
        let of_a = a.select(&subset(a.len(), size, seed, 2 * number)?)?;
        let of_b = b.select(&subset(b.len(), size, seed, 2 * number + 1)?)?;
        mmd2(&of_a, &of_b)
    });
    let estimate = estimate(&found.collect::<Result<Vec<_>>>()?);
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

/// The sum of the kernel over all pairs, or all but those of a point with itself.
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

    /// By hand: (1·2 + 1)³ = 27 within the first set, (0·1 + 1)³ = 1 within the second, and across
    /// (1, 2³, 1, 3³), of which the mean is 37/4.
    #[test]
    fn the_kernel_of_two_and_two_points() {
        let found = kernel_mmd2(&column(&[1.0, 2.0]), &column(&[0.0, 1.0])).unwrap();
        assert!((found - (27.0 + 1.0 - 2.0 * 37.0 / 4.0)).abs() < 1e-12, "{found}");
    }

    #[test]
    fn subsets_of_everything_are_all_alike() {
        let (a, b) = (column(&[1.0, 2.0, -1.0]), column(&[0.0, 1.0, 3.0]));
        let found = kernel_distance(&a, &b, &KernelSubsets { count: 3, size: 3, seed: 1 }).unwrap();
        assert!((found.mean - kernel_mmd2(&a, &b).unwrap()).abs() < 1e-12);
        assert!(found.standard_deviation < 1e-12);
    }

    #[test]
    fn subsets_that_cannot_be_drawn_are_refused() {
        let (a, b) = (column(&[1.0, 2.0, 3.0]), column(&[0.0, 1.0]));
        let failed = kernel_distance(&a, &b, &KernelSubsets { count: 5, size: 3, seed: 1 });
        assert!(matches!(failed, Err(Error::SubsetSize { found: 3, largest: 2 })));
        let failed = kernel_distance(&a, &b, &KernelSubsets { count: 1, size: 2, seed: 1 });
        assert!(matches!(failed, Err(Error::SubsetCount { found: 1 })));
    }
}
