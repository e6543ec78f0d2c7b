//! Diversity: how much the images of a class differ from each other.

use candle_core::Tensor;
use serde::Serialize;

use super::points::Points;
use crate::{Error, Result};

/// The mean distance between images of the same class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diversity {
    /// The unweighted mean over the classes with a value; `None` if no class has one.
    pub overall: Option<f64>,
    /// For each class, the mean distance between two of its images; `None` for a class with fewer than two images.
    pub by_class: Vec<Option<f64>>,
}

impl Diversity {
    /// The mean Euclidean distance Σ_{i<j} |xᵢ − xⱼ| / (n(n−1)/2) over the n images of each class, from features
    /// [N, D]. `labels[i]` is the class of row i, 0 to `num_classes` − 1.
    ///
    /// # Errors
    ///
    /// If `labels` does not have N entries below `num_classes`, the tensor is not a matrix or has a value that is
    /// infinite or NaN, or the tensor library fails.
    pub fn new(features: &Tensor, labels: &[u8], num_classes: usize) -> Result<Self> {
        let points = Points::features(features, 1)?;
        if labels.len() != points.len() {
            return Err(Error::label_count(labels.len(), points.len()));
        }
        if let Some(&found) = labels.iter().find(|&&label| usize::from(label) >= num_classes) {
            return Err(Error::out_of_range("label", found, format!("below {num_classes}")));
        }
        let by_class = (0..num_classes).map(|class| {
            let rows = (0_u32..).zip(labels).filter(|(_, label)| usize::from(**label) == class);
            let rows: Vec<u32> = rows.map(|(row, _)| row).collect();
            if rows.len() < 2 { Ok(None) } else { Ok(Some(mean_distance(&points.select(&rows)?)?)) }
        });
        Ok(Self::from_classes(by_class.collect::<Result<_>>()?))
    }

    /// The diversity divided by the diversity of a reference set, class by class: 1 is as diverse as the reference,
    /// below 1 is less diverse. A class is `None` if it is `None` in either set, or 0 in the reference.
    #[must_use]
    pub fn relative_to(&self, reference: &Self) -> Self {
        let ratio = |(value, reference): (&Option<f64>, &Option<f64>)| {
            reference.filter(|reference| *reference > 0.0).and_then(|reference| Some((*value)? / reference))
        };
        Self::from_classes(std::iter::zip(&self.by_class, &reference.by_class).map(ratio).collect())
    }

    fn from_classes(by_class: Vec<Option<f64>>) -> Self {
        let count = by_class.iter().flatten().count();
        let overall = (count > 0).then(|| by_class.iter().flatten().sum::<f64>() / count as f64);
        Self { overall, by_class }
    }
}

/// The mean distance over all pairs of different points.
fn mean_distance(points: &Points<'_>) -> Result<f64> {
    let mut sums = vec![0.0; points.len()];
    points.fold_distances(points, &mut sums, |_, sum, _, squared| {
        *sum += squared.iter().map(|squared| squared.sqrt()).sum::<f64>();
    })?;
    // The sums have each pair in both orders, and each point with itself, at distance 0.
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
    fn only_distances_within_classes_count() {
        let found = features(&[[0.0, 0.0], [100.0, 0.0], [3.0, 0.0], [100.0, 8.0], [0.0, 4.0], [7.0, 7.0]]);
        let found = Diversity::new(&found, &[0, 1, 0, 1, 0, 2], 4).unwrap();
        // Class 0 is a triangle with sides 3, 4 and 5.
        assert_eq!(found.by_class, [Some(4.0), Some(8.0), None, None]);
        assert_eq!(found.overall, Some(6.0));
        let reference = Diversity::from_classes(vec![Some(16.0), Some(0.0), Some(1.0), None]);
        let ratio = found.relative_to(&reference);
        assert_eq!(ratio.by_class, [Some(0.25), None, None, None]);
        assert_eq!(ratio.overall, Some(0.25));
    }

    #[test]
    fn invalid_labels_are_refused() {
        for (labels, num_classes, expected) in [
            (&[][..], 1, "number of labels is 0, expected 1, one for each image"),
            (&[3], 3, "label is 3, expected below 3"),
        ] {
            let error = Diversity::new(&features(&[[0.0, 0.0]]), labels, num_classes).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }
}
