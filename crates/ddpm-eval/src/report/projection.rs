//! Features in two dimensions, for a plot.

use candle_core::{Device, Tensor};
use nalgebra::DMatrix;

use super::select::random_subset;
use crate::{GaussianFit, Result};

/// The largest number of points of a set in the plot.
const MAX_POINTS: usize = 1000;

/// Features projected onto the first two principal components of the training images.
#[derive(Clone, Debug, PartialEq)]
pub struct PcaProjection {
    /// Training images, at most 1000, evenly spaced.
    pub train: Vec<[f32; 2]>,
    /// Generated images, at most 1000: the first of each class, then the second of each class, and so on; without
    /// labels, a random subset.
    pub generated: Vec<[f32; 2]>,
    /// The index of each of these generated images.
    pub generated_indices: Vec<u32>,
    /// The fraction of the variance of training images along each component, 0 to 1.
    pub explained: [f64; 2],
}

impl PcaProjection {
    /// Projects features [N, D] of training and generated images, the latter with their labels. `fit` is the normal
    /// distribution fitted to `train`.
    pub(super) fn new(
        train: &Tensor,
        fit: &GaussianFit,
        (generated, labels): (&Tensor, Option<&[u8]>),
        seed: u64,
    ) -> Result<Self> {
        let width = fit.width();
        let covariance = DMatrix::from_row_slice(width, width, fit.covariance());
        let eigen = covariance.symmetric_eigen();
        let mut order: Vec<usize> = (0..width).collect();
        order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
        let total: f64 = eigen.eigenvalues.sum();
        let (mut axes, mut explained) = (Vec::with_capacity(2 * width), [0.0; 2]);
        for (fraction, at) in std::iter::zip(&mut explained, (0..2).map(|axis| order.get(axis))) {
            // A single feature has no second component.
            let Some(&at) = at else {
                axes.extend(vec![0.0; width]);
                continue;
            };
            let axis = eigen.eigenvectors.column(at);
            // The sign of an eigenvector is arbitrary: the largest entry becomes positive.
            let sign = axis[axis.iamax()].signum();
            axes.extend(axis.iter().map(|value| value * sign));
            *fraction = if total > 0.0 { eigen.eigenvalues[at] / total } else { 0.0 };
        }
        let axes = Tensor::from_vec(axes, (2, width), &Device::Cpu)?.t()?;
        let mean = Tensor::from_slice(fit.mean(), (1, width), &Device::Cpu)?;
        let project = |features: &Tensor, rows: &[u32]| -> Result<Vec<[f32; 2]>> {
            let rows = Tensor::new(rows, features.device())?;
            let features = features.index_select(&rows, 0)?.to_device(&Device::Cpu)?;
            let features = features.to_dtype(candle_core::DType::F64)?.broadcast_sub(&mean)?;
            let points = features.matmul(&axes)?.to_dtype(candle_core::DType::F32)?.to_vec2()?;
            Ok(points.into_iter().map(|point: Vec<f32>| [point[0], point[1]]).collect())
        };
        let step = train.dim(0)?.div_ceil(MAX_POINTS).max(1);
        let rows: Vec<u32> = (0..).take(train.dim(0)?).step_by(step).collect();
        let generated_indices = match labels {
            Some(labels) => in_rounds(labels),
            None => random_subset(generated.dim(0)?, MAX_POINTS, seed)?,
        };
        Ok(Self {
            train: project(train, &rows)?,
            generated: project(generated, &generated_indices)?,
            generated_indices,
            explained,
        })
    }
}

/// The indices of at most [`MAX_POINTS`] images: the first of each class, then the second of each class, and so on.
fn in_rounds(labels: &[u8]) -> Vec<u32> {
    let mut counts = [0_usize; 256];
    let round = |(index, &label): (u32, &u8)| {
        let count = &mut counts[usize::from(label)];
        *count += 1;
        (*count, index)
    };
    let mut rounds: Vec<_> = (0..).zip(labels).map(round).collect();
    rounds.sort_unstable();
    rounds.into_iter().take(MAX_POINTS).map(|(_, index)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_all_classes_are_shown_whatever_their_order() {
        assert_eq!(in_rounds(&[0, 0, 0, 7, 7, 3]), [0, 3, 5, 1, 4, 2]);
        let alternating: Vec<u8> = (0..10).cycle().take(3 * MAX_POINTS).collect();
        assert!(in_rounds(&alternating).into_iter().eq((0..).take(MAX_POINTS)), "the first images");
        let mut sorted = alternating;
        sorted.sort_unstable();
        let shown = in_rounds(&sorted);
        let of_class = |class| shown.iter().filter(|&&index| sorted[index as usize] == class).count();
        assert!((0..10).all(|class| of_class(class) == MAX_POINTS.div_euclid(10)));
    }

    #[test]
    fn components_are_the_directions_of_largest_variance() {
        // Variances 2 and 8 along the diagonals, 0 along the third axis; the mean is (1, 1, 1).
        let rows = [[2.0, 0.0, 1.0], [0.0, 2.0, 1.0], [3.0, 3.0, 1.0], [-1.0, -1.0, 1.0]];
        let train = Tensor::from_slice(rows.as_flattened(), (4, 3), &Device::Cpu).unwrap();
        let generated = Tensor::from_slice(&[1.0, 1.0, 9.0], (1, 3), &Device::Cpu).unwrap();
        let fit = GaussianFit::new(&train).unwrap();
        let projection = PcaProjection::new(&train, &fit, (&generated, None), 1).unwrap();
        let (long, short) = (8.0_f32.sqrt(), 2.0_f32.sqrt());
        let near = |found: f32, expected: f32| assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        for (found, expected) in
            std::iter::zip(&projection.train, [[0.0, short], [0.0, short], [long, 0.0], [-long, 0.0]])
        {
            near(found[0], expected[0]);
            near(found[1].abs(), expected[1]);
        }
        near(projection.train[0][1], -projection.train[1][1]);
        near(projection.generated[0][0], 0.0);
        assert!(
            (projection.explained[0] - 0.8).abs() < 1e-12 && (projection.explained[1] - 0.2).abs() < 1e-12
        );
    }
}
