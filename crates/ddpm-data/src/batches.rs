//! Shuffled batches of indices, addressed by the training step.
//!
//! The order of an epoch is a function of (seed, epoch) alone: a Fisher–Yates
//! shuffle driven by ChaCha8, which does not depend on the platform or the
//! number of threads. So training that resumes at step 12,345 sees the batches
//! that an uninterrupted run would have seen, and no cursor needs to be saved.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::error::{Error, Result};

/// Separates this stream of random numbers from others with the same seed.
const PURPOSE: &[u8; 24] = b"ddpm-data: epoch shuffle";

/// Batches of a fixed size over epochs without end. Within an epoch no index
/// comes twice; the `len % batch_size` images left over at its end are dropped,
/// other ones in each epoch.
///
/// ```
/// use ddpm_data::ShuffledBatches;
///
/// let mut epochs = ShuffledBatches::new(10, 4, 7)?;
/// assert_eq!(epochs.steps_per_epoch(), 2);
/// let third = epochs.batch(2).to_vec(); // the first of the second epoch
/// assert_eq!(third.len(), 4);
/// epochs.batch(0);
/// assert_eq!(epochs.batch(2), third);
/// # Ok::<(), ddpm_data::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ShuffledBatches {
    batch_size: usize,
    steps_per_epoch: usize,
    seed: u64,
    /// The epoch that `permutation` is of.
    epoch: u64,
    permutation: Vec<u32>,
}

impl ShuffledBatches {
    /// Batches of `batch_size` out of `len` images.
    ///
    /// # Errors
    /// [`Error::BatchSize`] if `batch_size` is 0 or more than `len`,
    /// [`Error::TooMany`] if `len` does not fit in 32 bits.
    pub fn new(len: usize, batch_size: usize, seed: u64) -> Result<Self> {
        let steps_per_epoch = len.checked_div(batch_size).unwrap_or(0);
        if steps_per_epoch == 0 {
            return Err(Error::BatchSize { batch_size, len });
        }
        let count = u32::try_from(len).map_err(|_| Error::TooMany { count: len, limit: u32::MAX })?;
        let mut epochs =
            Self { batch_size, steps_per_epoch, seed, epoch: 0, permutation: (0..count).collect() };
        epochs.shuffle(0);
        Ok(epochs)
    }

    /// Number of indices in a batch.
    #[must_use]
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Number of whole batches in an epoch.
    #[must_use]
    pub fn steps_per_epoch(&self) -> usize {
        self.steps_per_epoch
    }

    /// The epoch that a step belongs to; both count from 0.
    #[must_use]
    pub fn epoch_of(&self, step: u64) -> u64 {
        step.div_euclid(self.steps_per_epoch as u64)
    }

    /// The indices of one step, counted from 0 over all epochs. Steps may be
    /// asked for in any order; going to another epoch costs a shuffle.
    pub fn batch(&mut self, step: u64) -> &[u32] {
        let epoch = self.epoch_of(step);
        if epoch != self.epoch {
            self.shuffle(epoch);
        }
        let within = step.rem_euclid(self.steps_per_epoch as u64);
        // Below `steps_per_epoch`, which is a usize.
        let start = usize::try_from(within).unwrap_or(0) * self.batch_size;
        &self.permutation[start..start + self.batch_size]
    }

    fn shuffle(&mut self, epoch: u64) {
        // From the identity, not from the last epoch's order: random access.
        for (index, slot) in (0..).zip(&mut self.permutation) {
            *slot = index;
        }
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        key[8..].copy_from_slice(PURPOSE);
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(epoch);
        self.permutation.shuffle(&mut rng);
        self.epoch = epoch;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(len: usize, batch_size: usize, seed: u64, epoch: u64) -> Vec<u32> {
        let mut epochs = ShuffledBatches::new(len, batch_size, seed).unwrap();
        let steps = epochs.steps_per_epoch() as u64;
        (0..steps).flat_map(|step| epochs.batch(epoch * steps + step).to_vec()).collect()
    }

    /// The values are those of an independent implementation of ChaCha8 and the
    /// shuffle in Python.
    #[test]
    fn first_indices_of_mnist_are_golden() {
        let first = [11_000, 48_570, 14_236, 32_531, 38_640, 46_780, 12_127, 33_710];
        assert_eq!(epoch(60_000, 8, 1, 0)[..8], first);
        let second = [45_116, 42_956, 501, 35_927, 25_110, 31_166, 8_764, 4_763];
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
            let error = ShuffledBatches::new(10, batch_size, 0).unwrap_err();
            assert!(matches!(error, Error::BatchSize { batch_size: b, len: 10 } if b == batch_size));
        }
        assert!(matches!(ShuffledBatches::new(0, 0, 0), Err(Error::BatchSize { .. })));
        assert!(ShuffledBatches::new(10, 10, 0).is_ok());
    }
}
