//! Precision and recall, density and coverage.

use candle_core::Tensor;
use ddpm_core::likelihood::MeanAndError;
use serde::Serialize;

use super::{estimate, nearest::nearest, points::Points};
use crate::{Error, Result};

/// A set of features and, around each point, balls that reach to its neighbours in the set. Their union stands for
/// the manifold that the set is drawn from.
#[derive(Clone, Debug)]
pub struct Manifold {
    points: Points<'static>,
    /// The squared distances of each point to its nearest neighbours, ascending.
    neighbours: Vec<Vec<f64>>,
    largest_k: usize,
}

impl Manifold {
    /// Finds the distances to the nearest `largest_k` neighbours within features [N, D], each point without itself.
    /// This is the slow part and grows with N², so keep the one of a reference set.
    ///
    /// # Errors
    ///
    /// If the tensor is no matrix, has a number that is not finite, `largest_k` is not 1 to N − 1, or the
    /// tensor library fails.
    pub fn new(features: &Tensor, largest_k: usize) -> Result<Self> {
        let points = Points::features(features, 2)?;
        if !(1..points.len()).contains(&largest_k) {
            return Err(Error::Neighbours { found: largest_k, largest: points.len() - 1 });
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

    /// The squared radii of the balls that reach to the k-th neighbour.
    fn radii(&self, k: usize) -> Result<Vec<f64>> {
        if !(1..=self.largest_k).contains(&k) {
            return Err(Error::Neighbours { found: k, largest: self.largest_k });
        }
        Ok(self.neighbours.iter().map(|nearest| nearest[k - 1]).collect())
    }

    /// How many of the balls with `radii` each of `points` is inside of.
    fn balls_around(&self, radii: &[f64], points: &Points<'_>) -> Result<Vec<f64>> {
        let mut counts = vec![0.0; points.len()];
        points.fold_distances(&self.points, &mut counts, |_, count, start, squared| {
            let inside =
                std::iter::zip(squared, &radii[start..]).filter(|(squared, radius)| squared < radius);
            *count += inside.count() as f64;
        })?;
        Ok(counts)
    }
}

/// Improved precision and recall. The standard errors take the balls as given.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PrecisionRecall {
    /// The part of the generated images, 0 to 1, inside a ball of a real one: how realistic they are.
    pub precision: MeanAndError,
    /// The part of the real images, 0 to 1, inside a ball of a generated one: how much of the variety is there.
    pub recall: MeanAndError,
}

/// Improved precision and recall (Kynkäänniemi et al. 2019, eq. 2, who take k = 3). A point at the very distance of
/// the k-th neighbour is outside, as in Naeem et al.'s `prdc`. Recall depends on the number of generated images,
/// so compare it among sets of one size.
///
/// # Errors
///
/// If `k` is 0 or more than either manifold was made for, the numbers of features differ, or the tensor library
/// fails.
pub fn precision_recall(real: &Manifold, generated: &Manifold, k: usize) -> Result<PrecisionRecall> {
    let share = |manifold: &Manifold, points: &Points<'_>| -> Result<MeanAndError> {
        let counts = manifold.balls_around(&manifold.radii(k)?, points)?;
        Ok(estimate(&counts.iter().map(|count| count.min(1.0)).collect::<Vec<_>>()))
    };
    Ok(PrecisionRecall {
        precision: share(real, &generated.points)?,
        recall: share(generated, &real.points)?,
    })
}

/// Density and coverage. The standard errors take the balls as given.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DensityCoverage {
    /// The balls of real images that a generated one is inside of, divided by k; about 1 for real images, and more
    /// where images crowd around the typical.
    pub density: MeanAndError,
    /// The part of the real images, 0 to 1, with a generated one inside their ball.
    pub coverage: MeanAndError,
}

/// Density and coverage (Naeem et al. 2020, eq. 5 and 6, who take k = 5), with balls around real images alone.
///
/// # Errors
///
/// If `generated` is no matrix, has no row or a number that is not finite, or as [`precision_recall`].
pub fn density_coverage(real: &Manifold, generated: &Tensor, k: usize) -> Result<DensityCoverage> {
    let generated = Points::features(generated, 1)?;
    let radii = real.radii(k)?;
    let counts = real.balls_around(&radii, &generated)?;
    let covered = std::iter::zip(nearest(&real.points, &generated)?, &radii)
        .map(|(nearest, radius)| f64::from(u8::from(nearest.squared < *radius)));
    Ok(DensityCoverage {
        density: estimate(&counts.iter().map(|count| count / k as f64).collect::<Vec<_>>()),
        coverage: estimate(&covered.collect::<Vec<_>>()),
    })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn column(values: &[f32]) -> Tensor {
        Tensor::from_slice(values, (values.len(), 1), &Device::Cpu).unwrap()
    }

    /// Real points at 0, 1, 2, 10 with k = 1 have radii 1, 1, 1, 8; generated ones at 0.5, 20, 21 have 19.5, 1, 1.
    #[test]
    fn four_and_three_points_on_a_line() {
        let (real, generated) = (column(&[0.0, 1.0, 2.0, 10.0]), column(&[0.5, 20.0, 21.0]));
        let (real, other) = (Manifold::new(&real, 1).unwrap(), Manifold::new(&generated, 1).unwrap());
        let found = precision_recall(&real, &other, 1).unwrap();
        // 0.5 is in the balls of 0 and 1, while 20 is 10 from 10; and all real points are within 19.5 of 0.5.
        assert_eq!((found.precision.mean, found.recall.mean), (1.0 / 3.0, 1.0));
        assert!((found.precision.standard_error - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(found.recall.standard_error, 0.0);
        let found = density_coverage(&real, &generated, 1).unwrap();
        // Nothing is within 1 of 2, nor within 8 of 10.
        assert_eq!((found.density.mean, found.coverage.mean), (2.0 / 3.0, 0.5));
    }

    #[test]
    fn a_set_is_precise_about_itself_and_covers_itself() {
        let features = column(&[0.0, 1.0, 3.0, 7.0, 15.0]);
        let set = Manifold::new(&features, 2).unwrap();
        let found = precision_recall(&set, &set, 2).unwrap();
        assert_eq!((found.precision.mean, found.recall.mean), (1.0, 1.0));
        assert_eq!(density_coverage(&set, &features, 2).unwrap().coverage.mean, 1.0);
    }

    #[test]
    fn a_k_without_neighbours_is_refused() {
        let failed = Manifold::new(&column(&[0.0, 1.0, 2.0]), 3);
        assert!(matches!(failed, Err(Error::Neighbours { found: 3, largest: 2 })));
        let set = Manifold::new(&column(&[0.0, 1.0, 2.0]), 1).unwrap();
        for k in [0, 2] {
            let failed = precision_recall(&set, &set, k);
            assert!(matches!(failed, Err(Error::Neighbours { found, largest: 1 }) if found == k));
        }
    }
}
