//! Random shifts of the training images.

use ddpm_core::{CounterRng, Purpose};
use ddpm_data::Dataset;

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
