//! How much the images of a class differ.

use candle_core::Tensor;
use serde::Serialize;

use super::points::Points;
use crate::{Error, Result};

/// How much the images of a class differ from each other.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diversity {
    /// The mean over the classes that have a value, each counting the same; none if no class has one.
    pub overall: Option<f64>,
    /// For each class the mean distance of two of its images; none where there are no two.
    pub by_class: Vec<Option<f64>>,
}

impl Diversity {
    /// The mean Euclidean distance between the features [N, D] of two different images of a class, Σ_{i<j} |xᵢ − xⱼ| /
    /// (n(n−1)/2), for each class. `labels[i]` is the class of row i.
    ///
    /// # Errors
    ///
    /// If there is not one label below `classes` for each row, the tensor is no matrix or has a number that is not
    /// finite, or the tensor library fails.
    pub fn new(features: &Tensor, labels: &[u8], classes: usize) -> Result<Self> {
        let points = Points::features(features, 1)?;
        if labels.len() != points.len() {
            return Err(Error::Counts { found: labels.len(), expected: points.len() });
        }
        if let Some(&found) = labels.iter().find(|&&label| usize::from(label) >= classes) {
            return Err(Error::Label { found, classes });
        }
        let by_class = (0..classes).map(|class| {
            let rows = (0_u32..).zip(labels).filter(|(_, label)| usize::from(**label) == class);
            let rows: Vec<u32> = rows.map(|(row, _)| row).collect();
            if rows.len() < 2 { Ok(None) } else { Ok(Some(mean_distance(&points.select(&rows)?)?)) }
        });
        Ok(Self::of(by_class.collect::<Result<_>>()?))
    }

    /// This diversity in units of that of a reference set, class by class: 1 is as diverse as the reference, and less
    /// means that images resemble each other too much. There is no value for a class that either lacks, or that the
    /// reference has no diversity in.
    #[must_use]
    pub fn relative_to(&self, reference: &Self) -> Self {
        let ratio = |(own, reference): (&Option<f64>, &Option<f64>)| {
            reference.filter(|reference| *reference > 0.0).and_then(|reference| Some((*own)? / reference))
        };
        Self::of(std::iter::zip(&self.by_class, &reference.by_class).map(ratio).collect())
    }

    fn of(by_class: Vec<Option<f64>>) -> Self {
        let count = by_class.iter().flatten().count();
        let overall = (count > 0).then(|| by_class.iter().flatten().sum::<f64>() / count as f64);
        Self { overall, by_class }
    }
}

/// Of all pairs of two different points.
fn mean_distance(points: &Points<'_>) -> Result<f64> {
    let mut sums = vec![0.0; points.len()];
    points.fold_distances(points, &mut sums, |_, sum, _, squared| {
        *sum += squared.iter().map(|squared| squared.sqrt()).sum::<f64>();
    })?;
    // Both orders of each pair, and each point with itself at distance 0.
    let n = points.len() as f64;
    Ok(sums.iter().sum::<f64>() / (n * (n - 1.0)))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn features(values: &[[f32; 2]]) -> Tensor {
        Tensor::from_slice(values.as_flattened(), (values.len(), 2), &Device::Cpu).unwrap()
    }

    #[test]
    fn distances_count_within_classes_only() {
        let found = features(&[[0.0, 0.0], [100.0, 0.0], [3.0, 0.0], [100.0, 8.0], [0.0, 4.0], [7.0, 7.0]]);
        let found = Diversity::new(&found, &[0, 1, 0, 1, 0, 2], 4).unwrap();
        // A triangle of sides 3, 4 and 5.
        assert_eq!(found.by_class, [Some(4.0), Some(8.0), None, None]);
        assert_eq!(found.overall, Some(6.0));
        let reference = Diversity::of(vec![Some(16.0), Some(0.0), Some(1.0), None]);
        let ratio = found.relative_to(&reference);
        assert_eq!(ratio.by_class, [Some(0.25), None, None, None]);
        assert_eq!(ratio.overall, Some(0.25));
    }

    #[test]
    fn labels_that_do_not_fit_are_refused() {
        let failed = Diversity::new(&features(&[[0.0, 0.0]]), &[], 1);
        assert!(matches!(failed, Err(Error::Counts { found: 0, expected: 1 })));
        let failed = Diversity::new(&features(&[[0.0, 0.0]]), &[3], 3);
        assert!(matches!(failed, Err(Error::Label { found: 3, classes: 3 })));
    }
}
