//! Sets of points, and the products and distances between them.
//!
//! A table of all distances would not fit in memory, so it is computed block by block, as a product of two
//! matrices, and each row of a block is folded into what is kept of it.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::{Error, Result};

/// Points on the left of a block of products: 512 × 4096 of them take 16 MB.
const QUERIES: usize = 512;
/// Points on the right.
const REFERENCES: usize = 4096;

/// Squared distances below this part of the squared norms are rounding alone, so the points are the same: the
/// sums of a product are exact to some 1e-15.
const ROUNDING: f64 = 1e-13;

/// Points of the same number of dimensions.
#[derive(Clone, Debug)]
pub(super) struct Points<'a> {
    rows: Rows<'a>,
    /// |x|² of each.
    squares: Vec<f64>,
}

#[derive(Clone, Debug)]
enum Rows<'a> {
    /// f64 [N, D], on the CPU: the difference of two large norms is a small distance.
    Features(Tensor),
    /// Grey levels of images one after another, taken less 128: then f32 holds every product of images of up to
    /// 1024 pixels, a whole number below 2²⁴, without rounding.
    Images { pixels: &'a [u8], size: usize, device: &'a Device },
}

impl Points<'static> {
    /// Features [N, D], of at least `least` rows.
    pub(super) fn features(features: &Tensor, least: usize) -> Result<Self> {
        let &[found, width] = features.dims() else {
            return Err(Error::FeatureShape { found: features.dims().to_vec() });
        };
        if width == 0 {
            return Err(Error::FeatureShape { found: features.dims().to_vec() });
        }
        if found < least {
            return Err(Error::TooFewRows { found, least });
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
    /// Images of `size` pixels each, compared on `device`.
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

    /// Some of the points, in the order of the indices.
    pub(super) fn select(&self, indices: &[u32]) -> Result<Points<'static>> {
        let at = Tensor::from_slice(indices, indices.len(), &Device::Cpu)?;
        let rows = self.to_tensor()?.index_select(&at, 0)?;
        Ok(Points {
            rows: Rows::Features(rows),
            squares: indices.iter().map(|&index| self.squares[index as usize]).collect(),
        })
    }

    /// Folds x·y for each of these points x and all `others` y into a state of each x. `fold` gets the number of
    /// x, its state, the number of the first y, and some products.
    pub(super) fn fold_products<S: Send>(
        &self,
        others: &Points<'_>,
        states: &mut [S],
        fold: impl Fn(usize, &mut S, usize, &mut [f64]) + Sync,
    ) -> Result<()> {
        if self.width() != others.width() {
            return Err(Error::FeatureWidths { found: self.width(), expected: others.width() });
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

    /// As [`Points::fold_products`], with |x − y|² = |x|² + |y|² − 2 x·y.
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

    /// Far from the origin most of the digits of the products cancel.
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
    fn images_keep_every_digit() {
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
    fn what_is_no_matrix_of_features_is_refused() {
        let tensor =
            |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
        let failed = Points::features(&tensor(&[0.0; 4], &[4]), 1);
        assert!(matches!(failed, Err(Error::FeatureShape { found }) if found == [4]));
        let failed = Points::features(&tensor(&[0.0; 4], &[2, 2]), 3);
        assert!(matches!(failed, Err(Error::TooFewRows { found: 2, least: 3 })));
        let failed = Points::features(&tensor(&[0.0, 1.0, f32::NAN, 1.0], &[2, 2]), 1);
        assert!(matches!(failed, Err(Error::NotFinite { row: 1 })));
        let (narrow, wide) = (tensor(&[0.0; 4], &[4, 1]), tensor(&[0.0; 4], &[2, 2]));
        let (narrow, wide) = (Points::features(&narrow, 1).unwrap(), Points::features(&wide, 1).unwrap());
        let failed = narrow.fold_distances(&wide, &mut [(); 4], |_, (), _, _| ());
        assert!(matches!(failed, Err(Error::FeatureWidths { found: 1, expected: 2 })));
    }
}
