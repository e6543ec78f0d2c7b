//! Least squares over tensors, by normal equations in f64.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::{Error, Result, likelihood::host};

/// The part of a column's squared length that must be left beside the columns before it, so that it counts as
/// independent of them. Rounding of f32 leaves about 1e-14.
const INDEPENDENT: f64 = 1e-9;

/// The number of values in a partial sum. It is fixed, so the result does not depend on the number of threads.
const PIECE: usize = 1 << 14;

/// The factors with which the sum of `columns` comes closest to `target`. A column that depends on the columns before it
/// gets the factor 0.
///
/// # Errors
///
/// If the shapes differ, or a value is NaN or infinite.
pub(super) fn least_squares(columns: &[&Tensor], target: &Tensor) -> Result<Vec<f64>> {
    for column in columns {
        if column.dims() != target.dims() {
            return Err(Error::Shapes { first: target.dims().to_vec(), second: column.dims().to_vec() });
        }
    }
    let tensors = columns.iter().copied().chain([target]);
    let values = tensors.map(host).collect::<Result<Vec<_>>>()?;
    let products = products(&values);
    if let Some(found) = products.iter().flatten().find(|product| !product.is_finite()) {
        return Err(Error::out_of_range("a sum of squares of images", found, "a finite number"));
    }
    Ok(solve(&products))
}

/// The products of each tensor with itself and with those before it.
fn products(values: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let product = |a: &[f64], b: &[f64]| -> f64 {
        let pieces = a.par_chunks(PIECE).zip(b.par_chunks(PIECE));
        let sums = pieces.map(|(a, b)| std::iter::zip(a, b).map(|(a, b)| a * b).sum());
        sums.collect::<Vec<f64>>().into_iter().sum()
    };
    (0..values.len()).map(|i| values[..=i].iter().map(|other| product(&values[i], other)).collect()).collect()
}

/// Solves the normal equations by Cholesky's decomposition. `products[i][j]`, with j ≤ i, is the product of columns i and
/// j; the last row is that of the target.
fn solve(products: &[Vec<f64>]) -> Vec<f64> {
    let n = products.len().saturating_sub(1);
    // Row i of the factor L; the last row is L⁻¹ times the products with the target.
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(products.len());
    for (i, products) in products.iter().enumerate() {
        let mut row: Vec<f64> = Vec::with_capacity(i + 1);
        for (j, product) in products.iter().enumerate().take(n) {
            let above = rows.get(j).unwrap_or(&row);
            let rest = product - std::iter::zip(&row, above).map(|(a, b)| a * b).sum::<f64>();
            row.push(match rows.get(j) {
                // A dependent column has 0 on the diagonal.
                Some(above) if above[j] == 0.0 => 0.0,
                Some(above) => rest / above[j],
                None if rest > INDEPENDENT * product => rest.sqrt(),
                None => 0.0,
            });
        }
        rows.push(row);
    }
    let mut factors = rows.pop().unwrap_or_default();
    for i in (0..n).rev() {
        let later: f64 = (i + 1..n).map(|j| rows[j][i] * factors[j]).sum();
        factors[i] = if rows[i][i] == 0.0 { 0.0 } else { (factors[i] - later) / rows[i][i] };
    }
    factors
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::{CounterRng, Purpose};

    /// Independent standard normal numbers, more than one piece of them.
    fn column(index: u64, dtype: DType) -> Tensor {
        let rng = CounterRng::new(5);
        rng.normal(Purpose::EVALUATION, &[index], 0, &[40_000], dtype, &Device::Cpu).unwrap()
    }

    fn sum(terms: &[(f64, &Tensor)]) -> Tensor {
        crate::weighted_sum::weighted_sum(terms).unwrap()
    }

    #[track_caller]
    fn assert_near(found: &[f64], expected: &[f64], tolerance: f64) {
        assert_eq!(found.len(), expected.len());
        let near = |(found, expected): (&f64, &f64)| (found - expected).abs() < tolerance;
        assert!(std::iter::zip(found, expected).all(near), "{found:?}, expected {expected:?}");
    }

    #[test]
    fn the_factors_of_a_sum_are_found() {
        for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-6)] {
            let [a, b, c] = [0, 1, 2].map(|index| column(index, dtype));
            // Columns with much in common: 0.99 and 1 times the same numbers.
            let near = sum(&[(1.0, &a), (0.01, &b)]);
            let target = sum(&[(2.0, &a), (-3.0, &near), (0.5, &c)]);
            assert_near(
                &least_squares(&[&a, &near, &c], &target).unwrap(),
                &[2.0, -3.0, 0.5],
                1e3 * tolerance,
            );
            let target = sum(&[(2.0, &a), (-3.0, &b), (0.5, &c)]);
            assert_near(&least_squares(&[&a, &b, &c], &target).unwrap(), &[2.0, -3.0, 0.5], tolerance);
        }
    }

    /// The solution of two columns by Cramer's rule, for a target that is no sum of them.
    #[test]
    fn the_rest_is_orthogonal_to_the_columns() {
        let [a, b, target] = [0, 1, 2].map(|index| column(index, DType::F64));
        let target = sum(&[(1.0, &target), (0.3, &a), (-0.2, &b)]);
        let dot = |x: &Tensor, y: &Tensor| (x * y).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
        let (aa, ab, bb) = (dot(&a, &a), dot(&a, &b), dot(&b, &b));
        let (at, bt) = (dot(&a, &target), dot(&b, &target));
        let determinant = aa * bb - ab * ab;
        let expected = [(at * bb - bt * ab) / determinant, (aa * bt - ab * at) / determinant];
        assert_near(&least_squares(&[&a, &b], &target).unwrap(), &expected, 1e-12);
    }

    #[test]
    fn a_column_that_depends_on_those_before_it_gets_0() {
        let [a, b, target] = [0, 1, 2].map(|index| column(index, DType::F32));
        let (sum_of_both, zero) = (sum(&[(0.5, &a), (0.7, &b)]), a.zeros_like().unwrap());
        let two = least_squares(&[&a, &b], &target).unwrap();
        let four = least_squares(&[&zero, &a, &b, &sum_of_both], &target).unwrap();
        assert_eq!(four, [0.0, two[0], two[1], 0.0]);
    }

    #[test]
    fn the_factors_are_the_same_bits_on_any_number_of_threads() {
        let [a, b, target] = [0, 1, 2].map(|index| column(index, DType::F32));
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| least_squares(&[&a, &b], &target)).unwrap()
        };
        let one = on(1);
        assert!([2, 3].into_iter().all(|threads| on(threads) == one));
    }
}
