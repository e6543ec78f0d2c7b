//! Sets of points, with products and distances between them.
//!
//! The matrix of all distances may not fit in memory. It is computed block by block, as a matrix product, and each row
//! of a block is folded into the state of its point.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::{Error, Result};

/// Rows of a block. A block of 512 × 4096 f64 products takes 16 MiB.
const QUERIES: usize = 512;
/// Columns of a block.
const REFERENCES: usize = 4096;

/// A squared distance below this fraction of |x|² + |y|² is a rounding error, and counts as 0. The relative error of a
/// product is about 1e-15.
const ROUNDING: f64 = 1e-13;

/// Points with the same number of dimensions.
#[derive(Clone, Debug)]
pub(super) struct Points<'a> {
    rows: Rows<'a>,
    /// |x|² of each point.
    squares: Vec<f64>,
}

#[derive(Clone, Debug)]
enum Rows<'a> {
    /// f64 [N, D] on the CPU. f64, because a small distance is the difference of large norms.
    Features(Tensor),
    /// Grey levels of consecutive images, from which 128 is subtracted. A product of two images of up to 1024 pixels is
    /// then an integer of at most 2²⁴, which f32 holds without rounding.
    Images { pixels: &'a [u8], size: usize, device: &'a Device },
}

impl Points<'static> {
    /// Features [N, D] with at least `min_rows` rows.
    pub(super) fn features(features: &Tensor, min_rows: usize) -> Result<Self> {
        let &[found, 1..=usize::MAX] = features.dims() else {
            let shape = format!("{:?}", features.dims());
            return Err(Error::out_of_range("shape of the features", shape, "[images, features]"));
        };
        if found < min_rows {
            return Err(Error::too_few_images(found, min_rows));
        }
        let rows = features.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.contiguous()?;
        let squares = rows.sqr()?.sum(1)?.to_vec1::<f64>()?;
        match squares.iter().position(|square| !square.is_finite()) {
            Some(row) => Err(Error::NotFinite { row }),
            None => Ok(Self { rows: Rows::Features(rows), squares }),
        }
    }
}

impl<'a> Points<'a> {
    /// Consecutive images of `size` pixels each. `device` computes their products.
    pub(super) fn images(pixels: &'a [u8], size: usize, device: &'a Device) -> Self {
        let square = |level: &u8| (f64::from(*level) - 128.0).powi(2);
        let squares = pixels.chunks_exact(size).map(|image| image.iter().map(square).sum()).collect();
        Self { rows: Rows::Images { pixels, size, device }, squares }
    }

    pub(super) fn len(&self) -> usize {
        self.squares.len()
    }

    /// The number of dimensions.
    pub(super) fn width(&self) -> usize {
        match &self.rows {
            Rows::Features(rows) => rows.dims().last().copied().unwrap_or_default(),
            Rows::Images { size, .. } => *size,
        }
    }

    /// All rows [N, D].
    pub(super) fn to_tensor(&self) -> Result<Tensor> {
        Ok(self.block(0..self.len())?)
    }

    /// The points with these indices, in this order.
    pub(super) fn select(&self, indices: &[u32]) -> Result<Points<'static>> {
        let at = Tensor::from_slice(indices, indices.len(), &Device::Cpu)?;
        let rows = self.to_tensor()?.index_select(&at, 0)?;
        Ok(Points {
            rows: Rows::Features(rows),
            squares: indices.iter().map(|&index| self.squares[index as usize]).collect(),
        })
    }

    /// For each point x of `self`, folds the products x·y with all points y of `others` into the state of x.
    /// `fold(index of x, state of x, index of the first y, products)` is called for blocks of consecutive y.
    pub(super) fn fold_products<S: Send>(
        &self,
        others: &Points<'_>,
        states: &mut [S],
        fold: impl Fn(usize, &mut S, usize, &mut [f64]) + Sync,
    ) -> Result<()> {
        if self.width() != others.width() {
            return Err(Error::feature_count(self.width(), others.width()));
        }
        for first in (0..self.len()).step_by(QUERIES) {
            let queries = first..self.len().min(first + QUERIES);
            let left = self.block(queries.clone())?;
            for start in (0..others.len()).step_by(REFERENCES) {
                let references = start..others.len().min(start + REFERENCES);
                let width = references.len();
                let products = left.matmul(&others.block(references)?.t()?)?;
                let mut products =
                    products.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
                let rows = products.par_chunks_mut(width).zip(&mut states[queries.clone()]).enumerate();
                rows.for_each(|(row, (products, state))| fold(first + row, state, start, products));
            }
        }
        Ok(())
    }

    /// Like [`Points::fold_products`], with the squared distances |x − y|² = |x|² + |y|² − 2 x·y.
    pub(super) fn fold_distances<S: Send>(
        &self,
        others: &Points<'_>,
        states: &mut [S],
        fold: impl Fn(usize, &mut S, usize, &[f64]) + Sync,
    ) -> Result<()> {
        self.fold_products(others, states, |query, state, start, values| {
            for (value, other) in std::iter::zip(&mut *values, &others.squares[start..]) {
                let squares = self.squares[query] + other;
                let squared = squares - 2.0 * *value;
                *value = if squared > ROUNDING * squares { squared } else { 0.0 };
            }
            fold(query, state, start, values);
        })
    }

    fn block(&self, rows: Range<usize>) -> candle_core::Result<Tensor> {
        match &self.rows {
            Rows::Features(features) => features.narrow(0, rows.start, rows.len()),
            Rows::Images { pixels, size, device } => {
                let pixels = &pixels[rows.start * size..rows.end * size];
                let levels = Tensor::from_slice(pixels, (rows.len(), *size), device)?;
                levels.to_dtype(DType::F32)?.affine(1.0, -128.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_every_pair_once() {
        let rows = |n: usize| -> Vec<f32> { (0..n).map(|row| row as f32).collect() };
        let points = |n: usize| {
            let features = Tensor::from_vec(rows(n), (n, 1), &Device::Cpu).unwrap();
            Points::features(&features, 1).unwrap()
        };
        let (left, right) = (points(QUERIES + 3), points(REFERENCES + 5));
        let mut found = vec![vec![]; left.len()];
        left.fold_distances(&right, &mut found, |_, found, start, squared| {
            assert_eq!(found.len(), start);
            found.extend_from_slice(squared);
        })
        .unwrap();
        for (x, found) in found.iter().enumerate() {
            let expected: Vec<f64> = (0..right.len()).map(|y| (x as f64 - y as f64).powi(2)).collect();
            assert_eq!(found, &expected);
        }
    }

    /// Far from the origin, most digits of |x|² + |y|² and 2 x·y cancel.
    #[test]
    fn the_same_point_is_at_distance_zero() {
        let features: Vec<f32> = (0..4 * 64).map(|i| 100.0 + (i % 64) as f32 * 0.37).collect();
        let points =
            Points::features(&Tensor::from_vec(features, (4, 64), &Device::Cpu).unwrap(), 1).unwrap();
        let mut sums = [1.0; 4];
        points.fold_distances(&points, &mut sums, |_, sum, _, squared| *sum = squared.iter().sum()).unwrap();
        assert_eq!(sums, [0.0; 4]);
    }

    #[test]
    fn distances_of_images_are_exact() {
        let (black, white) = ([0_u8; 784], [255_u8; 784]);
        let mut grey = [255_u8; 784];
        grey[5] = 254;
        let pixels = [black, white, grey].concat();
        let images = Points::images(&pixels, 784, &Device::Cpu);
        let mut found = vec![vec![]; 3];
        images
            .fold_distances(&images, &mut found, |_, found, _, squared| found.extend_from_slice(squared))
            .unwrap();
        let all = 784.0 * 255.0 * 255.0;
        assert_eq!(found[0], [0.0, all, all - 255.0 * 255.0 + 254.0 * 254.0]);
        assert_eq!(found[2][1..], [1.0, 0.0]);
    }

    #[test]
    fn invalid_features_are_refused() {
        let tensor =
            |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
        let error = |tensor: Tensor, min_rows| Points::features(&tensor, min_rows).unwrap_err().to_string();
        let found = error(tensor(&[0.0; 4], &[4]), 1);
        assert_eq!(found, "shape of the features is [4], expected [images, features]");
        let found = error(tensor(&[], &[3, 0]), 1);
        assert_eq!(found, "shape of the features is [3, 0], expected [images, features]");
        let found = error(tensor(&[0.0; 4], &[2, 2]), 3);
        assert_eq!(found, "number of images is 2, expected at least 3");
        let failed = Points::features(&tensor(&[0.0, 1.0, f32::NAN, 1.0], &[2, 2]), 1);
        assert!(matches!(failed, Err(Error::NotFinite { row: 1 })));
        let (narrow, wide) = (tensor(&[0.0; 4], &[4, 1]), tensor(&[0.0; 4], &[2, 2]));
        let (narrow, wide) = (Points::features(&narrow, 1).unwrap(), Points::features(&wide, 1).unwrap());
        let error = narrow.fold_distances(&wide, &mut [(); 4], |_, (), _, _| ()).unwrap_err().to_string();
        assert_eq!(error, "number of features is 1, expected 2, as in the other set");
    }
}
