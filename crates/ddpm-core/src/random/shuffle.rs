//! Shuffled batches of indices, addressed by the training step.
//!
//! The order of an epoch is a function of (seed, epoch) alone. So training that resumes at step 12,345 sees the
//! batches that an uninterrupted run would have seen, and no cursor needs to be saved.

use super::{CounterRng, Purpose, philox};
use crate::{Error, Result};

impl CounterRng {
    /// A random permutation of 0 to `count` − 1: a Fisher–Yates shuffle (Durstenfeld 1964) with one random word for
    /// each swap. An index is drawn uniformly up to a bias of `count`/2³².
    #[must_use]
    pub fn permutation(&self, purpose: Purpose, index: u64, count: u32) -> Vec<u32> {
        let mut permutation: Vec<u32> = (0..count).collect();
        for last in (1..count).rev() {
            let [word, ..] = self.words(purpose, index, 0, last);
            let other = philox::high(word, last + 1);
            permutation.swap(last as usize, other as usize);
        }
        permutation
    }
}

/// Batches of a fixed size over epochs without end. Within an epoch no index
/// occurs twice. The `len % batch_size` indices left over at its end are dropped,
/// different ones in each epoch.
///
/// ```
/// use ddpm_core::ShuffledBatches;
///
/// let mut batches = ShuffledBatches::new(10, 4, 7)?;
/// assert_eq!(batches.steps_per_epoch(), 2);
/// let third = batches.batch(2).to_vec(); // the first of the second epoch
/// assert_eq!(third.len(), 4);
/// batches.batch(0);
/// assert_eq!(batches.batch(2), third);
/// # Ok::<(), ddpm_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ShuffledBatches {
    batch_size: usize,
    steps_per_epoch: usize,
    count: u32,
    rng: CounterRng,
    /// The epoch of `permutation`.
    epoch: u64,
    permutation: Vec<u32>,
}

impl ShuffledBatches {
    /// Batches of `batch_size` out of `len` indices, shuffled by `seed`.
    ///
    /// # Errors
    ///
    /// If `batch_size` is 0 or more than `len`, or `len` does not fit in 32 bits.
    pub fn new(len: usize, batch_size: usize, seed: u64) -> Result<Self> {
        let steps_per_epoch = len.checked_div(batch_size).unwrap_or(0);
        if steps_per_epoch == 0 {
            return Err(Error::out_of_range(
                "batch_size",
                batch_size,
                format!("1 to {len}, the number of images"),
            ));
        }
        let count = u32::try_from(len)
            .map_err(|_| Error::out_of_range("the number of images", len, "at most 4294967295"))?;
        let rng = CounterRng::new(seed);
        let permutation = rng.permutation(Purpose::SHUFFLE, 0, count);
        Ok(Self { batch_size, steps_per_epoch, count, rng, epoch: 0, permutation })
    }

    /// The number of indices in a batch.
    #[must_use]
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// The number of whole batches in an epoch.
    #[must_use]
    pub fn steps_per_epoch(&self) -> usize {
        self.steps_per_epoch
    }

    /// The epoch of a step; both count from 0.
    #[must_use]
    pub fn epoch_of(&self, step: u64) -> u64 {
        step.div_euclid(self.steps_per_epoch as u64)
    }

    /// The indices of one step, counted from 0 over all epochs. Steps may be
    /// requested in any order; going to another epoch costs a shuffle.
    pub fn batch(&mut self, step: u64) -> &[u32] {
        let epoch = self.epoch_of(step);
        if epoch != self.epoch {
            self.permutation = self.rng.permutation(Purpose::SHUFFLE, epoch, self.count);
            self.epoch = epoch;
        }
        let within = step.rem_euclid(self.steps_per_epoch as u64);
        // Below `steps_per_epoch`, which is a usize.
        let start = usize::try_from(within).unwrap_or(0) * self.batch_size;
        &self.permutation[start..start + self.batch_size]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(len: usize, batch_size: usize, seed: u64, epoch: u64) -> Vec<u32> {
        let mut batches = ShuffledBatches::new(len, batch_size, seed).unwrap();
        let steps = batches.steps_per_epoch() as u64;
        (0..steps).flat_map(|step| batches.batch(epoch * steps + step).to_vec()).collect()
    }

    /// The values are those of an independent implementation in Python, `fixtures/generate/shuffle.py`.
    #[test]
    fn first_indices_of_mnist_are_golden() {
        let first = [43_809, 30_966, 28_748, 16_158, 4_524, 21_829, 41_929, 21_601];
        assert_eq!(epoch(60_000, 8, 1, 0)[..8], first);
        let second = [46_685, 14_355, 38_455, 6_166, 26_601, 50_708, 9_121, 16_795];
        assert_eq!(epoch(60_000, 8, 1, 1)[..8], second);
    }

    #[test]
    fn no_index_comes_twice_in_an_epoch() {
        for number in 0..3 {
            let mut indices = epoch(1003, 10, 5, number);
            assert_eq!(indices.len(), 1000);
            indices.sort_unstable();
            indices.dedup();
            assert_eq!(indices.len(), 1000);
            assert!(indices.iter().all(|&index| index < 1003));
        }
    }

    #[test]
    fn a_batch_size_that_divides_the_set_covers_it() {
        let mut indices = epoch(60, 20, 5, 4);
        indices.sort_unstable();
        assert!(indices.into_iter().eq(0..60));
    }

    /// Each index comes first about equally often.
    #[test]
    fn permutations_are_uniform() {
        let mut counts = [0_u32; 20];
        for number in 0..20_000 {
            let first = CounterRng::new(3).permutation(Purpose::SHUFFLE, number, 20)[0];
            counts[first as usize] += 1;
        }
        let chi2: f64 = counts.iter().map(|&n| (f64::from(n) - 1e3).powi(2) / 1e3).sum();
        assert!(chi2 < 43.8, "chi² with 19 degrees of freedom, 0.1 % level: {chi2}");
    }

    #[test]
    fn order_depends_on_the_seed_and_the_epoch_but_not_on_the_batch_size() {
        let order = epoch(100, 10, 5, 0);
        assert_ne!(order, epoch(100, 10, 6, 0));
        assert_ne!(order, epoch(100, 10, 5, 1));
        assert_eq!(order, epoch(100, 100, 5, 0));
    }

    #[test]
    fn a_step_is_the_same_however_it_is_reached() {
        let mut in_order = ShuffledBatches::new(103, 10, 9).unwrap();
        let batches: Vec<_> = (0..40).map(|step| in_order.batch(step).to_vec()).collect();
        let mut jumping = ShuffledBatches::new(103, 10, 9).unwrap();
        for step in [39, 0, 25, 9, 10, 11, 38] {
            assert_eq!(jumping.batch(step), batches[usize::try_from(step).unwrap()]);
        }
        jumping.batch(u64::MAX);
        assert_eq!(jumping.epoch_of(u64::MAX), u64::MAX.div_euclid(10));
    }

    #[test]
    fn impossible_batch_sizes_are_refused() {
        for batch_size in [0, 11] {
            let error = ShuffledBatches::new(10, batch_size, 0).unwrap_err().to_string();
            assert_eq!(error, format!("batch_size is {batch_size}, expected 1 to 10, the number of images"));
        }
        ShuffledBatches::new(0, 0, 0).unwrap_err();
        ShuffledBatches::new(10, 10, 0).unwrap();
    }
}
