//! Uniform numbers.

use rayon::prelude::*;

use super::{CounterRng, Purpose, TASK, philox::philox4x32_10, row_length};
use crate::Result;

impl CounterRng {
    /// Fills `out` with uniform numbers in [0, 1), multiples of 2⁻²⁴, an equal part for each index. They share the random words
    /// of [`CounterRng::fill_normal`], so an address serves one of the two.
    ///
    /// # Errors
    ///
    /// If `step` is 2²⁴ or more, or `out` cannot be divided equally.
    #[allow(clippy::cast_possible_truncation, reason = "words of an address")]
    pub fn fill_uniform(
        &self,
        purpose: Purpose,
        indices: &[u64],
        step: usize,
        out: &mut [f32],
    ) -> Result<()> {
        let purpose_and_step = Self::purpose_and_step(purpose, step)?;
        let Some(each) = row_length(indices, out)? else { return Ok(()) };
        let (rows, key) = (TASK.div_ceil(each), self.key());
        out.par_chunks_mut(each * rows).zip(indices.par_chunks(rows)).for_each(|(rows, indices)| {
            for (row, &index) in rows.chunks_mut(each).zip(indices) {
                for (block, numbers) in (0_u32..).zip(row.chunks_mut(4)) {
                    let counter = [block, purpose_and_step, index as u32, (index >> 32) as u32];
                    let words = philox4x32_10(counter.map(|word| [word]), key);
                    for (number, [word]) in numbers.iter_mut().zip(words) {
                        *number = (word >> 8) as f32 * 2.0_f32.powi(-24);
                    }
                }
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean, variance and the correlation of neighbours, within five standard errors.
    #[test]
    fn the_numbers_are_uniform_and_independent() {
        let mut numbers = vec![0.0; 200_000];
        CounterRng::new(3).fill_uniform(Purpose::WEIGHTS, &[1, 2], 0, &mut numbers).unwrap();
        assert!(numbers.iter().all(|x| (0.0..1.0).contains(x)));
        let x: Vec<f64> = numbers.iter().map(|&x| f64::from(x) - 0.5).collect();
        let mean = |of: &dyn Fn(usize) -> f64| (0..199_999).map(of).sum::<f64>() / 199_999.0;
        let error = |variance: f64| 5.0 * (variance / 199_999.0).sqrt();
        assert!(mean(&|i| x[i]).abs() < error(1.0 / 12.0));
        assert!((mean(&|i| x[i] * x[i]) - 1.0 / 12.0).abs() < error(1.0 / 180.0));
        assert!(mean(&|i| x[i] * x[i + 1]).abs() < error(1.0 / 144.0));
    }

    #[test]
    fn a_row_is_the_same_alone_and_in_a_batch_and_starts_with_the_scalar() {
        let rng = CounterRng::new(5);
        let [mut batch, mut alone] = [vec![0.0; 27], vec![0.0; 9]];
        rng.fill_uniform(Purpose::WEIGHTS, &[3, 17, 4], 9, &mut batch).unwrap();
        rng.fill_uniform(Purpose::WEIGHTS, &[17], 9, &mut alone).unwrap();
        assert_eq!(batch[9..18], alone);
        let scalar = rng.uniform(Purpose::WEIGHTS, 17, 9);
        assert!((f64::from(alone[0]) - scalar).abs() < 2.0_f64.powi(-24), "{alone:?} {scalar}");
        assert!(rng.fill_uniform(Purpose::WEIGHTS, &[1, 2], 0, &mut alone).is_err());
    }
}
