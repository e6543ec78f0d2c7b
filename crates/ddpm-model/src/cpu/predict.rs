//! Prediction: many images at one timestep.

use rayon::prelude::*;

use super::{
    Activations, Conditions, CpuNetwork, Packed,
    panel::{from_panels, to_panels},
};
use crate::program::IMAGE;

/// Images that go through all layers together at most: what a core's second cache holds.
const MAX_BLOCK: usize = 96;

/// Images below which threads share panels, not images: each thread reads all weights for its images.
const MIN_BLOCK: usize = 16;

impl CpuNetwork {
    /// The raw output for `x_t`, both [B, pixels] image by image, at timestep `t` and for a class each.
    ///
    /// The result for an image does not depend on the others, bit for bit.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit, or the timestep or a class is out of range.
    pub fn predict(&self, weights: &Packed, x_t: &[f32], t: usize, labels: &[u32], out: &mut [f32]) {
        let batch = labels.len();
        assert_eq!((x_t.len(), out.len()), (batch * self.pixels, batch * self.pixels));
        let mut classes = labels.to_vec();
        classes.sort_unstable();
        classes.dedup();
        let of_image: Vec<usize> =
            labels.iter().map(|label| classes.binary_search(label).unwrap_or(0)).collect();
        let mut shared = self.take(classes.len(), false);
        self.run_conditions(weights, &mut shared, classes.iter().map(|&label| (t, label)));

        let rows = block(batch, rayon::current_num_threads());
        let blocks = out.par_chunks_mut(rows * self.pixels).zip(x_t.par_chunks(rows * self.pixels));
        blocks.zip(of_image.par_chunks(rows)).for_each(|((out, x_t), of_row)| {
            let mut slots = self.take(of_row.len(), true);
            to_panels(x_t, self.pixels, &mut slots.values[IMAGE]);
            self.run_images(weights, &mut slots, Conditions { slots: &shared, of_row });
            from_panels(&slots.values[self.plan.output], self.pixels, out);
            self.give_back(slots);
        });
        self.give_back(shared);
    }

    /// Buffers for `rows` rows, of images or of conditions, perhaps those of an earlier prediction.
    fn take(&self, rows: usize, of_images: bool) -> Activations {
        let mut slots = self.buffers.lock().ok().and_then(|mut buffers| buffers.pop()).unwrap_or_default();
        slots.resize(rows, &self.plan.widths, |slot| self.plan.of_image[slot] == of_images);
        slots
    }

    fn give_back(&self, slots: Activations) {
        if let Ok(mut buffers) = self.buffers.lock() {
            buffers.push(slots);
        }
    }
}

/// How many of `batch` images go through the layers together: equal parts, a whole number for each thread.
fn block(batch: usize, threads: usize) -> usize {
    let most = batch.div_euclid(MIN_BLOCK).max(1);
    let parts = batch.div_ceil(MAX_BLOCK).next_multiple_of(threads.max(1)).min(most);
    batch.div_ceil(parts).max(1)
}

#[cfg(test)]
mod tests {
    use super::block;

    #[test]
    fn blocks_are_equal_and_neither_too_small_nor_too_large() {
        assert_eq!([0, 1, 20, 31, 32, 50].map(|batch| block(batch, 2)), [1, 1, 20, 31, 16, 25]);
        assert_eq!([96, 193, 1000].map(|batch| block(batch, 2)), [48, 49, 84]);
        assert_eq!(block(50, 16), 17, "the other threads share panels");
        assert_eq!(block(1000, 1), 91);
    }
}
