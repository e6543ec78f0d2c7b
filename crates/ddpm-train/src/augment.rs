//! Random timesteps and random shifts of the training images.

use ddpm_core::{CounterRng, Purpose};
use ddpm_data::Dataset;
use serde::{Deserialize, Serialize};

/// The distribution of training timesteps. The expected loss is the same for both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSampling {
    /// Uniform; the loss is multiplied by the loss weight of the timestep.
    #[default]
    Uniform,
    /// Proportional to the loss weight of the timestep; the loss is then multiplied by the mean weight (importance
    /// sampling as in Nichol & Dhariwal 2021, arXiv 2102.09672, section 3.3, with the loss weight in place of the
    /// measured loss).
    LossWeight,
}

/// Samples timesteps, with the factor of each one's loss.
#[derive(Debug)]
pub(crate) struct TimestepSampler {
    sampling: TimestepSampling,
    /// The loss weight of each timestep.
    weights: Vec<f64>,
    /// The sum of the loss weights.
    total: f64,
}

impl TimestepSampler {
    pub(crate) fn new(sampling: TimestepSampling, weights: Vec<f64>) -> Self {
        Self { sampling, total: weights.iter().sum(), weights }
    }

    /// The timestep of the image at position `at` of the stream of training images, and the factor of its loss.
    pub(crate) fn sample(&self, rng: CounterRng, at: u64) -> (usize, f64) {
        match self.sampling {
            TimestepSampling::Uniform => {
                let timesteps = u32::try_from(self.weights.len()).unwrap_or(u32::MAX);
                let t = rng.below(Purpose::TRAIN_TIMESTEP, at, 0, timesteps) as usize;
                (t, self.weights[t])
            }
            TimestepSampling::LossWeight => {
                let mut left = rng.uniform(Purpose::TRAIN_TIMESTEP, at, 0) * self.total;
                let t = self.weights.iter().position(|weight| {
                    left -= weight;
                    left < 0.0
                });
                // `left` may stay slightly above 0 because of rounding.
                let t = t.unwrap_or(self.weights.len() - 1);
                (t, self.total / self.weights.len() as f64)
            }
        }
    }
}

/// Shifts each image of a batch by a random whole number of pixels, uniform from −`max_shift` to `max_shift` in both
/// directions, and returns them as [B, pixels]. Pixels from beyond the edge are 0, the darkest level.
pub(crate) fn shift_images(
    data: &Dataset,
    indices: &[u32],
    positions: &[u64],
    max_shift: usize,
    rng: CounterRng,
) -> Vec<u8> {
    let distances = u32::try_from(2 * max_shift + 1).unwrap_or(u32::MAX);
    let (cols, pixels) = (data.cols(), data.image_size());
    let mut batch = vec![0; indices.len() * pixels];
    for ((to, &index), &at) in batch.chunks_mut(pixels).zip(indices).zip(positions) {
        let image = &data.images()[index as usize * pixels..][..pixels];
        let [down, across] = [0, 1].map(|step| rng.below(Purpose::SHIFT, at, step, distances) as usize);
        for (row, to) in to.chunks_mut(cols).enumerate() {
            // A window on the image with a frame of `max_shift` dark pixels, starting at row `down`, column `across`.
            let Some(from) = (row + down).checked_sub(max_shift).filter(|&row| row < data.rows()) else {
                continue;
            };
            for (col, to) in to.iter_mut().enumerate() {
                let col = (col + across).checked_sub(max_shift).filter(|&col| col < cols);
                *to = col.map_or(0, |col| image[from * cols + col]);
            }
        }
    }
    batch
}

#[cfg(test)]
mod tests {
    use ddpm_data::Images;

    use super::*;

    #[test]
    fn timesteps_have_the_given_frequencies() {
        let (rng, weights) = (CounterRng::new(1), vec![1.0, 5.0, 0.0, 2.0]);
        for (sampling, expected) in [
            (TimestepSampling::Uniform, [0.25; 4]),
            (TimestepSampling::LossWeight, [0.125, 0.625, 0.0, 0.25]),
        ] {
            let sampler = TimestepSampler::new(sampling, weights.clone());
            let (mut counts, mut sums) = ([0.0; 4], [0.0; 4]);
            for at in 0..20_000 {
                let (t, weight) = sampler.sample(rng, at);
                counts[t] += 1.0 / 20_000.0;
                sums[t] += weight / 20_000.0;
            }
            for t in 0..4 {
                let expected: f64 = expected[t];
                let deviation = (expected * (1.0 - expected) / 20_000.0).sqrt();
                assert!((counts[t] - expected).abs() <= 4.0 * deviation, "{sampling:?} {t}: {counts:?}");
                // The total weight of a timestep does not depend on the distribution.
                assert!((sums[t] - weights[t] / 4.0).abs() < 0.03, "{sampling:?} {t}: {sums:?}");
            }
        }
    }

    #[test]
    fn images_shift_by_each_distance_and_do_not_wrap_around() {
        let mut pixels = vec![0; 5 * 4];
        pixels[2 * 4 + 1] = 9;
        let data = Dataset::new("test", Images::new("test", 5, 4, pixels).unwrap(), None).unwrap();
        let positions: Vec<u64> = (0..900).collect();
        let batch = shift_images(&data, &[0; 900], &positions, 1, CounterRng::new(2));
        let mut places = [0; 20];
        for image in batch.chunks(20) {
            assert_eq!(image.iter().filter(|&&pixel| pixel > 0).count(), 1);
            places[image.iter().position(|&pixel| pixel == 9).unwrap()] += 1;
        }
        for (place, count) in places.into_iter().enumerate() {
            let near = (4..16).contains(&place) && place % 4 < 3;
            assert!(if near { (60..140).contains(&count) } else { count == 0 }, "{places:?}");
        }
        // A pixel at the edge may be shifted out of the image.
        let images = Images::new("test", 1, 1, vec![9]).unwrap();
        let data = Dataset::new("test", images, None).unwrap();
        let batch = shift_images(&data, &[0; 900], &positions, 1, CounterRng::new(2));
        assert!((60..140).contains(&batch.iter().filter(|&&pixel| pixel == 9).count()));
    }
}
