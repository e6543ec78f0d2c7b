//! Grids of tiles, labels, and encoded files.

use super::encode::gif_level;
use super::*;
use image::AnimationDecoder;
use image::codecs::{gif::GifDecoder, png::PngDecoder};
use std::io::Cursor;

/// A 2 x 3 image of six different levels.
const TILE: [u8; 6] = [0, 50, 100, 150, 200, 250];

fn column(label: &str, tiles: usize) -> Column<'static> {
    Column { label: label.into(), tiles: vec![&TILE; tiles] }
}

/// All pixels of a rectangle, by lines.
fn crop(image: &GrayImage, x: u32, y: u32, width: u32, height: u32) -> Vec<u8> {
    imageops::crop_imm(image, x, y, width, height).to_image().into_raw()
}

#[test]
fn the_scale_comes_closest_to_the_given_side() {
    assert_eq!(tile_scale(28, 28, PNG_TILE_SIDE), 3);
    assert_eq!(tile_scale(28, 28, GIF_TILE_SIDE), 2);
    assert_eq!(tile_scale(8, 8, PNG_TILE_SIDE), 11);
    assert_eq!(tile_scale(64, 32, PNG_TILE_SIDE), 1);
    assert_eq!(tile_scale(32, 32, PNG_TILE_SIDE), 3);
    assert_eq!(tile_scale(500, 500, PNG_TILE_SIDE), 1);
}

#[test]
fn the_mnist_grid_has_the_expected_size() {
    let digit = vec![0; 784];
    let columns: Vec<_> =
        (0..10).map(|d| Column { label: d.to_string(), tiles: vec![digit.as_slice(); 5] }).collect();
    let grid = labelled_grid(&columns, 28, 28, 3).unwrap();
    assert_eq!(grid.dimensions(), (2 * 12 + 10 * 84 + 9 * 4, 2 * 12 + 28 + 5 * 84 + 4 * 4));
}

#[test]
fn tiles_are_enlarged_without_smoothing_at_their_place() {
    let grid = labelled_grid(&[column("", 1), column("", 2)], 2, 3, 2).unwrap();
    let (x, y) = (12 + 6 + 4, 12 + 28 + 4 + 4);
    let expected = [
        [0, 0, 50, 50, 100, 100],
        [0, 0, 50, 50, 100, 100],
        [150, 150, 200, 200, 250, 250],
        [150, 150, 200, 200, 250, 250],
    ];
    assert_eq!(crop(&grid, x, y, 6, 4), expected.concat());
    assert_eq!(crop(&grid, 12, 12 + 28, 6, 4), expected.concat());
    assert!(crop(&grid, 12, y, 6, 4).iter().all(|&level| level == PAPER), "no tile, no ink");
    assert!(crop(&grid, 12 + 6, 0, 4, grid.height()).iter().all(|&level| level == PAPER));
}

#[test]
fn labels_stand_above_their_column() {
    let columns = [column("1", 1), column("", 1), column("8", 1)];
    let grid = labelled_grid(&columns, 2, 3, 10).unwrap();
    let strip = |place: u32| crop(&grid, 12 + place * 34, 12, 30, 24);
    let ink = |place| strip(place).iter().filter(|&&level| level < 128).count();
    assert!(ink(0) > 20);
    assert_eq!(ink(1), 0);
    assert!(ink(2) > ink(0), "an 8 takes more ink than a 1");
}

#[test]
fn long_and_foreign_labels_stay_within_the_tile() {
    let grid = labelled_grid(&[column("Ankle böt", 1)], 2, 3, 20).unwrap();
    assert_eq!(grid.width(), 60 + 24);
    let strip = crop(&grid, 12, 12, 60, 24);
    assert!(strip.iter().filter(|&&level| level < 150).count() > 50);
    assert!(crop(&grid, 0, 0, 12, grid.height()).iter().all(|&level| level == PAPER));
}

#[test]
fn many_classes_are_broken_into_bands() {
    let columns: Vec<_> = (0..62).map(|class| column(&class.to_string(), 3)).collect();
    let grid = labelled_grid(&columns, 2, 3, 10).unwrap();
    let band = 28 + 3 * 20 + 2 * 4;
    assert_eq!(grid.dimensions(), (24 + 16 * 30 + 15 * 4, 24 + 4 * band + 3 * 14));
    let last_row_of_band_2 = 12 + 2 * (band + 14) + 28 + 2 * 24;
    assert_eq!(crop(&grid, 12, last_row_of_band_2, 1, 1), [0]);
}

#[test]
fn unlabelled_images_fill_a_near_square() {
    let grid = plain_grid(&[TILE.as_slice(); 7], 2, 3, 1).unwrap();
    assert_eq!(grid.dimensions(), (24 + 3 * 3 + 2 * 4, 24 + 3 * 2 + 2 * 4));
    assert_eq!(crop(&grid, 12, 12 + 12, 3, 2), TILE, "the seventh image");
    assert_eq!(crop(&grid, 12 + 7, 12 + 12, 3, 2), [PAPER; 6], "no eighth image");
}

#[test]
fn malformed_input_is_refused() {
    let short = Column { label: "0".into(), tiles: vec![&TILE[..5]] };
    let error = labelled_grid(&[short], 2, 3, 1).unwrap_err().to_string();
    assert!(error.contains("6 bytes, found 5"), "{error}");
    assert!(labelled_grid(&[], 2, 3, 1).is_err());
    assert!(labelled_grid(&[column("0", 0)], 2, 3, 1).is_err());
    assert!(plain_grid(&[], 2, 3, 1).is_err());
    assert!(plain_grid(&[TILE.as_slice()], 2, 3, 0).is_err());
    let error = labelled_grid(&[column("0", 4000)], 2, 3, 10).unwrap_err().to_string();
    assert!(error.contains("too large"), "{error}");
}

#[test]
fn png_gives_the_same_pixels_back_and_the_same_bytes_again() {
    let grid = labelled_grid(&[column("7", 2)], 2, 3, 9).unwrap();
    let bytes = encode_png(&grid, None).unwrap();
    let decoded = image::load_from_memory(&bytes).unwrap();
    assert_eq!(decoded.color(), image::ColorType::L8);
    assert_eq!(decoded.into_luma8(), grid);
    assert_eq!(encode_png(&labelled_grid(&[column("7", 2)], 2, 3, 9).unwrap(), None).unwrap(), bytes);
}

#[test]
fn gif_holds_every_frame_with_its_delay() {
    let frames = [1, 2, 1].map(|n| labelled_grid(&[column("7", n), column("8", 2)], 2, 3, 9).unwrap());
    let bytes = encode_gif(&frames, &[120, 40, 2000]).unwrap();
    assert_eq!(encode_gif(&frames, &[120, 40, 2000]).unwrap(), bytes);
    assert!(bytes.windows(11).any(|window| window == b"NETSCAPE2.0"), "loops");
    let decoder = GifDecoder::new(Cursor::new(&bytes)).unwrap();
    let decoded = decoder.into_frames().collect_frames().unwrap();
    let delays: Vec<_> = decoded.iter().map(|f| f.delay().numer_denom_ms()).collect();
    assert_eq!(delays, [(120, 1), (40, 1), (2000, 1)]);
    for (frame, shown) in frames.iter().zip(&decoded) {
        for (x, y, pixel) in shown.buffer().enumerate_pixels() {
            let level = frame.get_pixel(x, y).0[0];
            assert!(pixel.0[0].abs_diff(level) <= 9, "within half of a grey step");
        }
    }
}

#[test]
fn apng_holds_every_frame_exactly_with_its_delay() {
    let frames = [1, 2, 1].map(|n| labelled_grid(&[column("7", n), column("8", 2)], 2, 3, 9).unwrap());
    let bytes = encode_apng(&frames, &[120, 40, 2000], None).unwrap();
    let decoder = PngDecoder::new(Cursor::new(&bytes)).unwrap();
    assert!(decoder.is_apng().unwrap());
    let decoded = decoder.apng().unwrap().into_frames().collect_frames().unwrap();
    let delays: Vec<_> = decoded.iter().map(|f| f.delay().numer_denom_ms()).collect();
    assert_eq!(delays, [(120, 1), (40, 1), (2000, 1)]);
    for (frame, shown) in frames.iter().zip(&decoded) {
        assert!(shown.buffer().pixels().map(|pixel| pixel.0[0]).eq(frame.as_raw().iter().copied()));
    }
    // Programs without animation show the first frame.
    assert_eq!(image::load_from_memory(&bytes).unwrap().into_luma8(), frames[0]);
}

#[test]
fn animations_refuse_frames_that_do_not_fit_together() {
    let frame = GrayImage::new(4, 4);
    let apng = |frames: &[GrayImage], delays: &[u32]| encode_apng(frames, delays, None);
    for encode in [&encode_gif as &dyn Fn(&[GrayImage], &[u32]) -> Result<Vec<u8>>, &apng] {
        assert!(encode(&[], &[]).is_err());
        assert!(encode(std::slice::from_ref(&frame), &[1, 2]).is_err());
        assert!(encode(&[frame.clone(), GrayImage::new(5, 4)], &[1, 2]).is_err());
    }
}

#[test]
fn gif_of_pure_noise_stays_small() {
    let mut state = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    })
    .take(784 * 50)
    .collect();
    let tiles: Vec<&[u8]> = noise.chunks_exact(784).collect();
    let scale = tile_scale(28, 28, GIF_TILE_SIDE);
    let frames = vec![plain_grid(&tiles, 28, 28, scale).unwrap(); 21];
    let bytes = encode_gif(&frames, &[100; 21]).unwrap();
    assert!(bytes.len() < 1_500_000, "{} bytes", bytes.len());
}

#[test]
fn gif_levels_keep_black_and_white() {
    assert_eq!([0, 8, 9, 128, 250, 255].map(gif_level), [0, 0, 17, 136, 255, 255]);
}
