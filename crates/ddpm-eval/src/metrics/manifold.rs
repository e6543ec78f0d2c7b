//! Precision and recall, density and coverage.

use candle_core::Tensor;
use ddpm_core::likelihood::MeanAndError;
use serde::Serialize;

use super::{estimate, nearest::nearest, points::Points};
use crate::{Error, Result};

/// A set of features with a ball around each point, which reaches to the point's k-th nearest neighbour in the set. The
/// union of the balls approximates the manifold that the features lie on.
#[derive(Clone, Debug)]
pub struct Manifold {
    points: Points<'static>,
    /// For each point, the squared distances to its nearest neighbours in ascending order.
    neighbours: Vec<Vec<f64>>,
    largest_k: usize,
}

impl Manifold {
    /// Computes the distances from each row of features [N, D] to its `largest_k` nearest other rows, for balls of any
    /// k up to `largest_k`. The time is proportional to N², so reuse the manifold of a reference set.
    ///
    /// # Errors
    ///
    /// If the tensor is not a matrix or has a value that is infinite or NaN, `largest_k` is not 1 to N − 1, or the
    /// tensor library fails.
    pub fn new(features: &Tensor, largest_k: usize) -> Result<Self> {
        let points = Points::features(features, 2)?;
        if !(1..points.len()).contains(&largest_k) {
            return Err(k_out_of_range(largest_k, points.len() - 1));
        }
        let mut neighbours = vec![vec![f64::INFINITY; largest_k]; points.len()];
        points.fold_distances(&points, &mut neighbours, |query, nearest, start, squared| {
            for (index, &squared) in (start..).zip(squared) {
                if squared < nearest[largest_k - 1] && index != query {
                    let at = nearest.partition_point(|&other| other <= squared);
                    nearest[at..].rotate_right(1);
                    nearest[at] = squared;
                }
            }
        })?;
        Ok(Self { points, neighbours, largest_k })
    }

    /// The squared radii of the balls: the squared distances to the k-th nearest neighbour.
    fn radii(&self, k: usize) -> Result<Vec<f64>> {
        if !(1..=self.largest_k).contains(&k) {
            return Err(k_out_of_range(k, self.largest_k));
        }
        Ok(self.neighbours.iter().map(|nearest| nearest[k - 1]).collect())
    }

    /// For each of `points`, the number of balls of squared `radii` that contain it.
    fn count_balls(&self, radii: &[f64], points: &Points<'_>) -> Result<Vec<f64>> {
        let mut counts = vec![0.0; points.len()];
        points.fold_distances(&self.points, &mut counts, |_, count, start, squared| {
            let inside = std::iter::zip(squared, &radii[start..])
                .filter(|(squared, radius)| is_inside(**squared, **radius));
            *count += inside.count() as f64;
        })?;
        Ok(counts)
    }
}

/// Improved precision and recall. The standard errors treat the balls as fixed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PrecisionRecall {
    /// The fraction of generated images inside a ball of a real image, 0 to 1: how realistic they are.
    pub precision: MeanAndError,
    /// The fraction of real images inside a ball of a generated image, 0 to 1: how much of the real variety is covered.
    pub recall: MeanAndError,
}

/// Improved precision and recall (Kynkäänniemi et al. 2019, eq. 2, with k = 3). A point exactly on the surface of a
/// ball is outside, as in `prdc` by Naeem et al. A ball contains its centre, also with a radius of 0, so that duplicates count.
/// Recall depends on the number of generated images, so compare it only
/// between sets of the same size.
///
/// # Errors
///
/// If `k` is not 1 to the `largest_k` of both manifolds, the numbers of features differ, or the tensor library fails.
pub fn precision_recall(real: &Manifold, generated: &Manifold, k: usize) -> Result<PrecisionRecall> {
    let fraction_inside = |manifold: &Manifold, points: &Points<'_>| -> Result<MeanAndError> {
        let counts = manifold.count_balls(&manifold.radii(k)?, points)?;
        Ok(estimate(&counts.iter().map(|count| count.min(1.0)).collect::<Vec<_>>()))
    };
    Ok(PrecisionRecall {
        precision: fraction_inside(real, &generated.points)?,
        recall: fraction_inside(generated, &real.points)?,
    })
}

/// Density and coverage. The standard errors treat the balls as fixed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DensityCoverage {
    /// The mean number of balls of real images that contain a generated image, divided by k. It is about 1 for real
    /// images, and above 1 if generated images are concentrated where real images are dense.
    pub density: MeanAndError,
    /// The fraction of real images whose ball contains a generated image, 0 to 1.
    pub coverage: MeanAndError,
}

/// Density and coverage (Naeem et al. 2020, eq. 5 and 6, with k = 5). Only real images have balls.
///
/// # Errors
///
/// If `generated` is not a matrix, has no rows or a value that is infinite or NaN, and as [`precision_recall`].
pub fn density_coverage(real: &Manifold, generated: &Tensor, k: usize) -> Result<DensityCoverage> {
    let generated = Points::features(generated, 1)?;
    let radii = real.radii(k)?;
    let counts = real.count_balls(&radii, &generated)?;
    let covered = std::iter::zip(nearest(&real.points, &generated)?, &radii)
        .map(|((_, squared), radius)| f64::from(u8::from(is_inside(squared, *radius))));
    Ok(DensityCoverage {
        density: estimate(&counts.iter().map(|count| count / k as f64).collect::<Vec<_>>()),
        coverage: estimate(&covered.collect::<Vec<_>>()),
    })
}

/// Whether a ball contains a point at this squared distance from its centre.
fn is_inside(squared: f64, squared_radius: f64) -> bool {
    // An image with k duplicates has a ball of radius 0, which contains the duplicates.
    squared < squared_radius || squared == 0.0
}

fn k_out_of_range(k: usize, largest: usize) -> Error {
    Error::out_of_range("k", k, format!("1 to {largest} neighbours"))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn column(values: &[f32]) -> Tensor {
        Tensor::from_slice(values, (values.len(), 1), &Device::Cpu).unwrap()
    }

    /// With k = 1, real points at 0, 1, 2, 10 have radii 1, 1, 1, 8; generated points at 0.5, 20, 21 have 19.5, 1, 1.
    #[test]
    fn four_and_three_points_on_a_line() {
        let (real, generated) = (column(&[0.0, 1.0, 2.0, 10.0]), column(&[0.5, 20.0, 21.0]));
        let (real, fake) = (Manifold::new(&real, 1).unwrap(), Manifold::new(&generated, 1).unwrap());
        let found = precision_recall(&real, &fake, 1).unwrap();
        // 0.5 is inside the balls of 0 and 1; 20 is outside the ball of 10. All real points are within 19.5 of 0.5.
        assert_eq!((found.precision.mean, found.recall.mean), (1.0 / 3.0, 1.0));
        assert!((found.precision.standard_error - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(found.recall.standard_error, 0.0);
        let found = density_coverage(&real, &generated, 1).unwrap();
        // No generated point is within 1 of 2 or within 8 of 10.
        assert_eq!((found.density.mean, found.coverage.mean), (2.0 / 3.0, 0.5));
    }

    #[test]
    fn precision_recall_and_coverage_of_a_set_with_itself_are_1() {
        let features = column(&[0.0, 1.0, 3.0, 7.0, 15.0]);
        let set = Manifold::new(&features, 2).unwrap();
        let found = precision_recall(&set, &set, 2).unwrap();
        assert_eq!((found.precision.mean, found.recall.mean), (1.0, 1.0));
        assert_eq!(density_coverage(&set, &features, 2).unwrap().coverage.mean, 1.0);
    }

    /// The balls of an image with k duplicates have the radius 0.
    #[test]
    fn duplicates_contain_each_other() {
        let features = column(&[5.0, 5.0, 5.0, 5.0, 9.0, 9.0, 9.0, 9.0]);
        let set = Manifold::new(&features, 3).unwrap();
        let found = precision_recall(&set, &set, 3).unwrap();
        assert_eq!((found.precision.mean, found.recall.mean), (1.0, 1.0));
        assert_eq!(density_coverage(&set, &features, 3).unwrap().coverage.mean, 1.0);
        let other = Manifold::new(&column(&[5.0, 7.0, 7.0, 7.0, 7.0]), 3).unwrap();
        let found = precision_recall(&set, &other, 3).unwrap();
        assert_eq!((found.precision.mean, found.recall.mean), (0.2, 0.5));
    }

    #[test]
    fn a_k_out_of_range_is_refused() {
        let error = Manifold::new(&column(&[0.0, 1.0, 2.0]), 3).unwrap_err().to_string();
        assert_eq!(error, "k is 3, expected 1 to 2 neighbours");
        let set = Manifold::new(&column(&[0.0, 1.0, 2.0]), 1).unwrap();
        for k in [0, 2] {
            let error = precision_recall(&set, &set, k).unwrap_err().to_string();
            assert_eq!(error, format!("k is {k}, expected 1 to 1 neighbours"));
        }
    }
}
