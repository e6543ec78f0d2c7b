//! What a step varies about an image besides its noise: which timestep it is shown at, and where it lies.

use ddpm_core::{CounterRng, Purpose};
use ddpm_data::Dataset;
use serde::{Deserialize, Serialize};

/// How timesteps are drawn. The expected loss is the same for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSampling {
    /// Each as often; the loss counts the weight of the timestep.
    #[default]
    Uniform,
    /// In proportion to the weight of the timestep, which the loss then does not count (importance sampling; Nichol &
    /// Dhariwal 2021, arXiv 2102.09672, section 3.3, with the weight for the size of the loss).
    LossWeight,
}

/// Timesteps with the weights of their losses.
#[derive(Debug)]
pub(crate) struct TimestepSampler {
    sampling: TimestepSampling,
    /// The loss's weight for each timestep.
    weights: Vec<f64>,
    /// Their sum.
    total: f64,
}

impl TimestepSampler {
    pub(crate) fn new(sampling: TimestepSampling, weights: Vec<f64>) -> Self {
        Self { sampling, total: weights.iter().sum(), weights }
    }

    /// The timestep of the image at a place in the stream of training images, and its weight.
    pub(crate) fn draw(&self, rng: CounterRng, at: u64) -> (usize, f64) {
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
                // Rounding may leave a little after the last one.
                let t = t.unwrap_or(self.weights.len() - 1);
                (t, self.total / self.weights.len() as f64)
            }
        }
    }
}

/// Images of a batch, [B, pixels], each moved by up to `most` pixels down or up and across, as often by each distance;
/// the darkest level comes in from beyond the edge.
pub(crate) fn moved(
    data: &Dataset,
    indices: &[u32],
    positions: &[u64],
    most: usize,
    rng: CounterRng,
) -> Vec<u8> {
    let distances = u32::try_from(2 * most + 1).unwrap_or(u32::MAX);
    let (cols, pixels) = (data.cols(), data.image_size());
    let mut batch = vec![0; indices.len() * pixels];
    for ((to, &index), &at) in batch.chunks_mut(pixels).zip(indices).zip(positions) {
        let image = &data.images()[index as usize * pixels..][..pixels];
        let [down, across] = [0, 1].map(|step| rng.below(Purpose::SHIFT, at, step, distances) as usize);
        for (row, to) in to.chunks_mut(cols).enumerate() {
            // In a frame of `most` dark pixels, the image is seen from `down` and `across` on.
            let Some(from) = (row + down).checked_sub(most).filter(|&row| row < data.rows()) else {
                continue;
            };
            for (col, to) in to.iter_mut().enumerate() {
                let col = (col + across).checked_sub(most).filter(|&col| col < cols);
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
    fn a_timestep_comes_as_often_as_it_weighs() {
        let (rng, weights) = (CounterRng::new(1), vec![1.0, 5.0, 0.0, 2.0]);
        for (sampling, expected) in [
            (TimestepSampling::Uniform, [0.25; 4]),
            (TimestepSampling::LossWeight, [0.125, 0.625, 0.0, 0.25]),
        ] {
            let sampler = TimestepSampler::new(sampling, weights.clone());
            let (mut counts, mut sums) = ([0.0; 4], [0.0; 4]);
            for at in 0..20_000 {
                let (t, weight) = sampler.draw(rng, at);
                counts[t] += 1.0 / 20_000.0;
                sums[t] += weight / 20_000.0;
            }
            for t in 0..4 {
                let expected: f64 = expected[t];
                let deviation = (expected * (1.0 - expected) / 20_000.0).sqrt();
                assert!((counts[t] - expected).abs() <= 4.0 * deviation, "{sampling:?} {t}: {counts:?}");
                // How much a timestep counts in all does not depend on how it is drawn.
                assert!((sums[t] - weights[t] / 4.0).abs() < 0.03, "{sampling:?} {t}: {sums:?}");
            }
        }
    }

    #[test]
    fn images_move_by_each_distance_and_nothing_comes_around() {
        let mut pixels = vec![0; 5 * 4];
        pixels[2 * 4 + 1] = 9;
        let data = Dataset::new("test", Images::new("test", 5, 4, pixels).unwrap(), None).unwrap();
        let positions: Vec<u64> = (0..900).collect();
        let batch = moved(&data, &[0; 900], &positions, 1, CounterRng::new(2));
        let mut places = [0; 20];
        for image in batch.chunks(20) {
            assert_eq!(image.iter().filter(|&&pixel| pixel > 0).count(), 1);
            places[image.iter().position(|&pixel| pixel == 9).unwrap()] += 1;
        }
        for (place, count) in places.into_iter().enumerate() {
            let near = (4..16).contains(&place) && place % 4 < 3;
            assert!(if near { (60..140).contains(&count) } else { count == 0 }, "{places:?}");
        }
        // One that lies at the edge may leave.
        let images = Images::new("test", 1, 1, vec![9]).unwrap();
        let data = Dataset::new("test", images, None).unwrap();
        let batch = moved(&data, &[0; 900], &positions, 1, CounterRng::new(2));
        assert!((60..140).contains(&batch.iter().filter(|&&pixel| pixel == 9).count()));
    }
}
