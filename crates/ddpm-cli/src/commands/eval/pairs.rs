//! The picture of generated images, each above its nearest training image.

use anyhow::{Context, Result};
use ddpm_data::Dataset;
use ddpm_eval::ClosePair;

use crate::picture::{self, Column};

/// A PNG of pairs, in order of increasing distance: the generated image above the training image. The label of a pair
/// is its distance in grey levels.
pub(super) fn png(pairs: &[ClosePair], generated: &[u8], train: &Dataset) -> Result<Vec<u8>> {
    let (rows, cols) = (train.rows(), train.cols());
    let image = |number: usize| generated.chunks(train.image_size()).nth(number);
    let column = |pair: &ClosePair| {
        let tiles = image(pair.generated)
            .zip(train.image(pair.train))
            .context("a pair refers to an image that does not exist")?;
        Ok(Column { label: format!("{:.1}", pair.distance), tiles: vec![tiles.0, tiles.1] })
    };
    let columns: Vec<Column<'_>> = pairs.iter().map(column).collect::<Result<_>>()?;
    let scale = picture::tile_scale(rows, cols, picture::PNG_TILE_SIDE);
    picture::encode_png(&picture::labelled_grid(&columns, rows, cols, scale)?, None)
}

#[cfg(test)]
mod tests {
    use ddpm_data::Images;

    use super::*;

    #[test]
    fn the_generated_image_stands_above_its_training_image() {
        let images = Images::new("train", 2, 2, vec![10, 11, 12, 13, 20, 21, 22, 23]).unwrap();
        let train = Dataset::new("train", images, None).unwrap();
        let generated = [1, 2, 3, 4, 5, 6, 7, 8];
        let pairs = [
            ClosePair { generated: 1, train: 0, distance: 1.0 },
            ClosePair { generated: 0, train: 1, distance: 2.0 },
        ];
        let picture =
            image::load_from_memory(&png(&pairs, &generated, &train).unwrap()).unwrap().into_luma8();
        // Tiles of 2 · 42 pixels, 4 apart, below a margin of 12 and a label of 28.
        let at = |column: u32, row: u32| picture.get_pixel(12 + column * 88, 12 + 28 + row * 88).0[0];
        assert_eq!([at(0, 0), at(0, 1), at(1, 0), at(1, 1)], [5, 10, 1, 20]);
        let failed = png(&[ClosePair { generated: 2, train: 0, distance: 1.0 }], &generated, &train);
        assert!(failed.is_err());
    }
}
