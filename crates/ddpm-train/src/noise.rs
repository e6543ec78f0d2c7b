//! The noise of training images.

use std::iter::zip;

use ddpm_core::{CounterRng, Purpose};
use ddpm_data::to_model_scale;
use rayon::prelude::*;

use crate::Result;

/// Fills `eps` [B, pixels] with the noise of a batch: for each image the nearest of `candidates` draws of standard normal
/// numbers, at the steps 0, 1, … of the address of its position. `image` gives the levels of an image by its index in the
/// batch. With one candidate the noise does not depend on the image.
///
/// Distances are ‖x₀ − ε‖² on the scale [−1, 1]; of equally near draws the first one is taken.
pub(crate) fn fill_noise<'a>(
    rng: CounterRng,
    positions: &[u64],
    candidates: usize,
    image: impl Fn(usize) -> &'a [u8] + Sync,
    eps: &mut [f32],
) -> Result<()> {
    rng.fill_normal(Purpose::TRAIN_NOISE, positions, 0, eps)?;
    if candidates == 1 {
        return Ok(());
    }
    let pixels = image(0).len();
    eps.par_chunks_mut(pixels).zip(positions).enumerate().try_for_each_init(
        || vec![0.0; pixels],
        |other, (index, (nearest, position))| {
            let mut smallest = distance(image(index), nearest);
            for step in 1..candidates {
                rng.fill_normal(Purpose::TRAIN_NOISE, &[*position], step, other)?;
                let found = distance(image(index), other);
                if found < smallest {
                    smallest = found;
                    nearest.copy_from_slice(other);
                }
            }
            Ok(())
        },
    )
}

/// ‖x₀ − ε‖², summed in the order of the pixels.
fn distance(image: &[u8], eps: &[f32]) -> f64 {
    zip(image, eps).map(|(&level, &eps)| f64::from(to_model_scale(level) - eps).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIXELS: usize = 30;

    fn rng() -> CounterRng {
        CounterRng::new(5)
    }

    fn images() -> Vec<u8> {
        (0..40 * PIXELS).map(|i| (i * 37 % 256).to_le_bytes()[0]).collect()
    }

    fn noise(positions: &[u64], candidates: usize, images: &[u8]) -> Vec<f32> {
        let mut eps = vec![0.0; positions.len() * PIXELS];
        let image = |index: usize| &images[index * PIXELS..][..PIXELS];
        fill_noise(rng(), positions, candidates, image, &mut eps).unwrap();
        eps
    }

    /// A draw of the image at a position of the training stream.
    fn draw(position: u64, step: usize) -> Vec<f32> {
        let mut eps = vec![0.0; PIXELS];
        rng().fill_normal(Purpose::TRAIN_NOISE, &[position], step, &mut eps).unwrap();
        eps
    }

    #[test]
    fn one_candidate_is_the_first_draw() {
        let positions: Vec<u64> = (7..47).collect();
        let expected: Vec<f32> = positions.iter().flat_map(|&position| draw(position, 0)).collect();
        assert_eq!(noise(&positions, 1, &images()), expected);
    }

    #[test]
    fn the_nearest_of_four_draws_is_taken() {
        let (positions, images): (Vec<u64>, _) = ((7..47).collect(), images());
        let mut taken = [0; 4];
        for (index, eps) in noise(&positions, 4, &images).chunks(PIXELS).enumerate() {
            let draws: Vec<Vec<f32>> = (0..4).map(|step| draw(positions[index], step)).collect();
            let distances: Vec<f64> = draws
                .iter()
                .map(|draw| {
                    let pairs = zip(draw, &images[index * PIXELS..]);
                    pairs.map(|(&e, &level)| (f64::from(level) / 127.5 - 1.0 - f64::from(e)).powi(2)).sum()
                })
                .collect();
            let best = (0..4).min_by(|&a, &b| distances[a].total_cmp(&distances[b])).unwrap();
            assert_eq!(eps, draws[best], "image {index}: {distances:?}");
            taken[best] += 1;
        }
        assert!(taken.iter().all(|&count| count > 3), "{taken:?}");
    }

    #[test]
    fn the_noise_of_an_image_does_not_depend_on_its_batch_or_on_threads() {
        let (positions, images): (Vec<u64>, _) = ((7..47).collect(), images());
        let whole = noise(&positions, 4, &images);
        for threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(pool.install(|| noise(&positions, 4, &images)) == whole, "{threads} threads");
        }
        // In another order, and alone.
        for index in (0..40).rev() {
            let image = &images[index * PIXELS..][..PIXELS];
            let alone = noise(&positions[index..=index], 4, image);
            assert_eq!(alone, whole[index * PIXELS..][..PIXELS]);
        }
    }
}
