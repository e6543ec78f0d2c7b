//! Prediction for a batch of images, split into blocks for the threads.

use std::iter::zip;

use rayon::prelude::*;

use crate::{
    Network, Program, Slot, Weights,
    network::{Activations, Conditions},
    panel::{from_panels, to_panels},
};

/// The largest number of images that go through all layers together. Each block reads all weights once, and its
/// activations take about as much memory as the weights, so larger blocks would not read less.
const MAX_BLOCK: usize = 256;

/// The smallest number of images of a block. Each block reads all weights, so with fewer images the threads share the
/// panels of a block instead.
const MIN_BLOCK: usize = 16;

impl Network {
    /// Evaluates the network on the images `x`, with a timestep and a class for each, and writes its output to `out`.
    /// Both are [B, pixels] in row-major order.
    ///
    /// The result for an image does not depend on the other images, bit for bit.
    ///
    /// # Panics
    ///
    /// If the lengths do not fit, or a timestep or a class is out of range.
    pub fn predict(&self, weights: &Weights, x: &[f32], t: &[usize], classes: &[u32], out: &mut [f32]) {
        let batch = classes.len();
        let size = batch * self.pixels;
        assert_eq!((x.len(), out.len(), t.len()), (size, size, batch));
        // Runs inside the pool: a thread outside of it would sleep and be woken for each layer.
        rayon::scope(|_| self.predict_in_pool(weights, x, t, classes, out));
    }

    fn predict_in_pool(&self, weights: &Weights, x: &[f32], t: &[usize], classes: &[u32], out: &mut [f32]) {
        let batch = classes.len();
        let conditions: Vec<(usize, u32)> = zip(t.iter().copied(), classes.iter().copied()).collect();
        // Runs each distinct condition once: in sampling all images share a timestep, and there are few classes.
        let mut distinct = conditions.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let find = |condition| distinct.binary_search(condition).unwrap_or(0);
        let of_image: Vec<usize> = conditions.iter().map(find).collect();
        let mut shared = self.take(distinct.len(), |slot| !self.plan.of_image[slot]);
        self.run_conditions(weights, &mut shared, distinct.iter().copied());

        let rows = block(batch, rayon::current_num_threads());
        let blocks = out.par_chunks_mut(rows * self.pixels).zip(x.par_chunks(rows * self.pixels));
        let blocks = blocks.zip(of_image.par_chunks(rows));
        blocks.for_each(|((out, x), of_row)| {
            let mut slots =
                self.take(of_row.len(), |slot| self.plan.of_image[slot] && !self.plan.is_internal[slot]);
            to_panels(x, self.pixels, &self.order, &mut slots.values[Program::IMAGE]);
            self.run_images(weights, &mut slots, Conditions { slots: &shared, of_row }, false);
            from_panels(&slots.values[self.plan.output], self.pixels, &self.order, out);
            self.give_back(slots);
        });
        self.give_back(shared);
    }

    /// Returns buffers for `rows` rows of the slots for which `wanted` is true; reuses buffers of an earlier prediction.
    fn take(&self, rows: usize, wanted: impl Fn(Slot) -> bool) -> Activations {
        let mut slots = self.buffers.lock().ok().and_then(|mut buffers| buffers.pop()).unwrap_or_default();
        slots.resize(rows, &self.plan.shapes, wanted);
        slots
    }

    /// Keeps buffers for later predictions.
    fn give_back(&self, slots: Activations) {
        if let Ok(mut buffers) = self.buffers.lock() {
            buffers.push(slots);
        }
    }
}

/// The number of images of a block: `batch` divided into nearly equal blocks, whose number is a multiple of `threads`
/// unless the blocks would be too small.
fn block(batch: usize, threads: usize) -> usize {
    let max_parts = batch.div_euclid(MIN_BLOCK).max(1);
    let parts = batch.div_ceil(MAX_BLOCK).next_multiple_of(threads.max(1)).min(max_parts);
    batch.div_ceil(parts.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Inputs, Shape};

    /// With several threads, buffers return in any order, so a reused buffer may have served images or conditions and
    /// may have any size.
    #[test]
    fn buffers_of_images_serve_conditions() {
        let mut program = Program::new(Inputs { rows: 3, cols: 4, patch: 4, time: 4, classes: 6 });
        let e = program.linear("time", &[Program::TIME], Shape::flat(20), 1.0, None);
        let condition = program.class("class", e);
        program.silu();
        let h = program.linear("input", &[Program::IMAGE], Shape::flat(20), 1.0, Some(condition));
        program.silu();
        program.linear("output", &[h], program.shape(Program::IMAGE), 1.0, None);
        let times = (0..80).map(|i| (i as f32).sin()).collect();
        let network = Network::new(&program, times);
        let number = |i: usize| (i * 37 % 101) as f32 / 50.0 - 1.0;
        let parameters: Vec<Vec<f32>> =
            network.lengths.iter().map(|&length| (0..length).map(number).collect()).collect();
        let (weights, x) = (network.pack(&parameters), (0..24).map(number).collect::<Vec<_>>());
        let predict = || {
            let mut out = vec![0.0; 24];
            network.predict(&weights, &x, &[3, 4], &[0, 1], &mut out);
            out
        };
        let expected = predict();
        for rows in [1, 2, 7] {
            for of_image in [true, false] {
                network.buffers.lock().unwrap().clear();
                network.give_back(network.take(rows, |slot| network.plan.of_image[slot] == of_image));
                assert_eq!(predict(), expected);
            }
        }
    }

    #[test]
    fn blocks_are_equal_and_neither_too_small_nor_too_large() {
        assert_eq!([0, 1, 20, 31, 32, 50].map(|batch| block(batch, 2)), [1, 1, 20, 31, 16, 25]);
        assert_eq!([96, 513, 1000].map(|batch| block(batch, 2)), [48, 129, 250]);
        assert_eq!(block(50, 16), 17, "the other threads share panels");
        assert_eq!(block(1000, 1), 250);
    }
}
