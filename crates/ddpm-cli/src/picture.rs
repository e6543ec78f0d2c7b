//! Pictures of many images: a grid with class labels, as PNG or as animated GIF.
//!
//! Everything is grey: the tiles are shown as they are stored (white on black for MNIST), enlarged
//! by a whole factor without smoothing, on a white page. The same input gives the same bytes.

use anyhow::{Context, Result, ensure};
use image::codecs::gif::{GifEncoder, Repeat};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::imageops::{self, FilterType as ResizeFilter};
use image::{Delay, ExtendedColorType, Frame, GrayImage, ImageEncoder, Luma, RgbaImage};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

/// One column of a grid: images of one class, from top to bottom.
#[derive(Debug, Clone)]
pub(crate) struct Column<'a> {
    /// What stands above the column, for example `7`; an empty text leaves the place blank.
    pub(crate) label: String,
    /// The images, each of `rows * cols` grey levels in row-major order.
    pub(crate) tiles: Vec<&'a [u8]>,
}

/// The side of a tile in a still picture, in pixels: see [`tile_scale`].
pub(crate) const PNG_TILE_SIDE: usize = 84;
/// The side of a tile in an animation, in pixels. Frames full of noise hardly compress: 50 digits
/// and 21 frames take 1.1 MB at this size and 2.0 MB at that of a still picture.
pub(crate) const GIF_TILE_SIDE: usize = 56;
/// White space between two tiles, in pixels.
const GAP: usize = 4;
/// White space around the picture, in pixels.
const MARGIN: usize = 12;
/// White space between two bands of columns, in pixels.
const BAND_GAP: usize = 14;
/// Height of a label, in pixels.
const LABEL_HEIGHT: usize = RasterHeight::Size24.val();
/// Height of a label with the space below it, in pixels.
const LABEL_STRIP: usize = LABEL_HEIGHT + 4;
/// The font of the labels.
const WEIGHT: FontWeight = FontWeight::Bold;
/// More columns than this are broken into several bands of about equal width.
const MAX_COLUMNS: usize = 20;
/// No picture has a longer side, in pixels: viewers give up before memory does.
const MAX_SIDE: usize = 16_384;
/// Grey level of the page.
const PAPER: u8 = 255;
/// Grey level of the labels.
const INK: u8 = 40;
/// Grey levels in a GIF: few, for the same reason.
const GIF_LEVELS: u16 = 16;

/// The whole factor that brings the longer side of an image closest to `tile_side` pixels.
pub(crate) fn tile_scale(rows: usize, cols: usize, tile_side: usize) -> u32 {
    let side = rows.max(cols).max(1);
    let scale = (tile_side + side.div_euclid(2)).div_euclid(side).max(1);
    u32::try_from(scale).unwrap_or(1)
}

/// Draws columns of tiles side by side, each under its label.
///
/// Every image has `rows` x `cols` pixels and is enlarged `scale` times. Columns may have different
/// lengths; the place of a missing tile stays white. More than 20 columns are broken into bands.
///
/// # Errors
/// An image is not of `rows * cols` bytes, there is nothing to draw, or the picture would be longer
/// than 16,384 pixels on a side.
pub(crate) fn labelled_grid(
    columns: &[Column<'_>],
    rows: usize,
    cols: usize,
    scale: u32,
) -> Result<GrayImage> {
    let bands = columns.len().div_ceil(MAX_COLUMNS).max(1);
    let per_band = columns.len().div_ceil(bands);
    let depth = columns.iter().map(|c| c.tiles.len()).max().unwrap_or(0);
    let tile = TileSize::new(rows, cols, scale)?;
    let mut page = Page::new(Layout { bands, per_band, depth, strip: LABEL_STRIP }, tile)?;
    let widest = columns.iter().map(|c| text_width(&c.label)).max().unwrap_or(0);
    for (index, column) in columns.iter().enumerate() {
        let (band, place) = (index.div_euclid(per_band), index.rem_euclid(per_band));
        page.draw_label(band, place, &column.label, widest);
        for (row, tile) in column.tiles.iter().enumerate() {
            page.draw_tile(band, place, row, tile)?;
        }
    }
    Ok(page.image)
}

/// Draws unlabelled images in reading order, in a grid that is as near to a square as it gets.
///
/// # Errors
/// As [`labelled_grid`].
pub(crate) fn plain_grid(tiles: &[&[u8]], rows: usize, cols: usize, scale: u32) -> Result<GrayImage> {
    let floor = tiles.len().isqrt();
    let across = if floor * floor == tiles.len() { floor } else { floor + 1 };
    let down = tiles.len().div_ceil(across.max(1));
    let tile = TileSize::new(rows, cols, scale)?;
    let mut page = Page::new(Layout { bands: 1, per_band: across, depth: down, strip: 0 }, tile)?;
    for (index, tile) in tiles.iter().enumerate() {
        page.draw_tile(0, index.rem_euclid(across), index.div_euclid(across), tile)?;
    }
    Ok(page.image)
}

/// Encodes a picture as a grey PNG.
///
/// # Errors
/// The encoder refuses the picture.
pub(crate) fn encode_png(image: &GrayImage) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Tiles repeat each pixel and each line, which the compressor sees best without a line filter.
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, FilterType::NoFilter)
        .write_image(image.as_raw(), image.width(), image.height(), ExtendedColorType::L8)
        .context("cannot encode the picture as PNG")?;
    Ok(bytes)
}

/// Encodes pictures of one size as a GIF that loops for ever, in 16 grey levels.
///
/// `delays_ms` says how long each frame is shown, in milliseconds; GIF rounds down to hundredths of
/// a second.
///
/// # Errors
/// There are no frames, their sizes differ, there is not one delay a frame, or the encoder refuses
/// a frame.
pub(crate) fn encode_gif(frames: &[GrayImage], delays_ms: &[u32]) -> Result<Vec<u8>> {
    let size = frames.first().context("a GIF needs at least one frame")?.dimensions();
    ensure!(
        frames.len() == delays_ms.len(),
        "{} frames need as many delays, found {}",
        frames.len(),
        delays_ms.len()
    );
    let mut bytes = Vec::new();
    // The speed is that of a colour search which pictures of at most 256 colours never need.
    let mut encoder = GifEncoder::new_with_speed(&mut bytes, 30);
    encoder.set_repeat(Repeat::Infinite).context("cannot start the GIF")?;
    for (index, (frame, &delay)) in frames.iter().zip(delays_ms).enumerate() {
        ensure!(
            frame.dimensions() == size,
            "frame {index} has {:?} pixels, the first one {size:?}",
            frame.dimensions()
        );
        let pixels = RgbaImage::from_fn(size.0, size.1, |x, y| {
            let level = gif_level(frame.get_pixel(x, y).0[0]);
            image::Rgba([level, level, level, u8::MAX])
        });
        let delay = Delay::from_numer_denom_ms(delay, 1);
        encoder
            .encode_frame(Frame::from_parts(pixels, 0, 0, delay))
            .with_context(|| format!("cannot encode frame {index} of the GIF"))?;
    }
    drop(encoder);
    Ok(bytes)
}

/// The nearest of the [`GIF_LEVELS`] grey levels; black and white are kept.
fn gif_level(level: u8) -> u8 {
    let steps = GIF_LEVELS - 1;
    let nearest = (u16::from(level) * steps + 127).div_euclid(255);
    u8::try_from((nearest * 255).div_euclid(steps)).unwrap_or(u8::MAX)
}

/// The size of an image and of the tile that shows it.
#[derive(Debug, Clone, Copy)]
struct TileSize {
    rows: usize,
    cols: usize,
    scale: usize,
}

impl TileSize {
    fn new(rows: usize, cols: usize, scale: u32) -> Result<Self> {
        let scale = usize::try_from(scale)?;
        ensure!(
            [rows, cols, scale].iter().all(|n| (1..=MAX_SIDE).contains(n)),
            "cannot draw images of {rows} x {cols} pixels enlarged {scale} times"
        );
        Ok(Self { rows, cols, scale })
    }

    fn height(self) -> usize {
        self.rows * self.scale
    }

    fn width(self) -> usize {
        self.cols * self.scale
    }
}

/// How many tiles stand where; `strip` is the height kept free for labels above each band.
#[derive(Debug, Clone, Copy)]
struct Layout {
    bands: usize,
    per_band: usize,
    depth: usize,
    strip: usize,
}

/// A white page that knows the place of every tile.
struct Page {
    image: GrayImage,
    layout: Layout,
    tile: TileSize,
}

impl Page {
    fn new(layout: Layout, tile: TileSize) -> Result<Self> {
        ensure!(layout.per_band > 0 && layout.depth > 0, "there are no images to draw");
        let between = |count: usize, side: usize, gap: usize| {
            count.saturating_mul(side).saturating_add((count - 1).saturating_mul(gap))
        };
        let band = layout.strip.saturating_add(between(layout.depth, tile.height(), GAP));
        let width = between(layout.per_band, tile.width(), GAP).saturating_add(2 * MARGIN);
        let height = between(layout.bands, band, BAND_GAP).saturating_add(2 * MARGIN);
        ensure!(
            width.max(height) <= MAX_SIDE,
            "a picture of {width} x {height} pixels is too large to view (at most {MAX_SIDE} on a side); draw fewer images"
        );
        let image = GrayImage::from_pixel(u32::try_from(width)?, u32::try_from(height)?, Luma([PAPER]));
        Ok(Self { image, layout, tile })
    }

    /// The left edge of a column and the upper edge of its band.
    fn corner(&self, band: usize, place: usize) -> (usize, usize) {
        let height = self.layout.strip + self.layout.depth * (self.tile.height() + GAP) - GAP;
        (MARGIN + place * (self.tile.width() + GAP), MARGIN + band * (height + BAND_GAP))
    }

    fn draw_tile(&mut self, band: usize, place: usize, row: usize, tile: &[u8]) -> Result<()> {
        let TileSize { rows, cols, scale } = self.tile;
        ensure!(
            tile.len() == rows * cols,
            "an image of {rows} x {cols} pixels has {} bytes, found {}",
            rows * cols,
            tile.len()
        );
        let (left, band_top) = self.corner(band, place);
        let top = band_top + self.layout.strip + row * (self.tile.height() + GAP);
        for (y, line) in tile.chunks_exact(cols).enumerate() {
            let wide: Vec<u8> = line.iter().flat_map(|&level| std::iter::repeat_n(level, scale)).collect();
            for copy in 0..scale {
                self.line_mut(left, top + y * scale + copy, wide.len()).copy_from_slice(&wide);
            }
        }
        Ok(())
    }

    /// Writes `label` centred above a column. If the `widest` of all labels is wider than a tile,
    /// all labels are made smaller alike.
    fn draw_label(&mut self, band: usize, place: usize, label: &str, widest: usize) {
        let room = self.tile.width();
        let Some(text) = render_text(label, room.min(widest), widest) else { return };
        let (left, top) = self.corner(band, place);
        let (width, height) = (text.width() as usize, text.height() as usize);
        let x = left + (room - width).div_euclid(2);
        let y = top + (LABEL_HEIGHT - height).div_euclid(2);
        for (row, line) in text.as_raw().chunks_exact(width).enumerate() {
            self.line_mut(x, y + row, width).copy_from_slice(line);
        }
    }

    /// `width` pixels of line `y` from `x` on.
    fn line_mut(&mut self, x: usize, y: usize, width: usize) -> &mut [u8] {
        let start = y * self.image.width() as usize + x;
        &mut (*self.image)[start..start + width]
    }
}

/// Width of a text before it is made smaller, in pixels.
fn text_width(text: &str) -> usize {
    text.chars().count() * get_raster_width(WEIGHT, RasterHeight::Size24)
}

/// Draws one line of text on white, `numerator / denominator` of its natural size (at most 1).
/// `None` if there is no text.
fn render_text(text: &str, numerator: usize, denominator: usize) -> Option<GrayImage> {
    let glyphs: Vec<_> = text.chars().filter_map(glyph).collect();
    let width = u32::try_from(text_width(text)).ok()?;
    let height = u32::try_from(LABEL_HEIGHT).ok()?;
    let mut image = GrayImage::from_pixel(width, height, Luma([PAPER]));
    let lines = (0..LABEL_HEIGHT).flat_map(|y| glyphs.iter().flat_map(move |glyph| glyph[y]));
    for (pixel, &coverage) in image.iter_mut().zip(lines) {
        *pixel = blend(coverage);
    }
    let shrink = |side: usize| u32::try_from((side * numerator).checked_div_euclid(denominator)?).ok();
    let (width, height) = (shrink(text_width(text))?, shrink(LABEL_HEIGHT)?);
    if width == 0 || height == 0 {
        return None;
    }
    Some(if numerator == denominator {
        image
    } else {
        imageops::resize(&image, width, height, ResizeFilter::Triangle)
    })
}

/// The raster of a character, of a question mark if the font lacks it.
fn glyph(character: char) -> Option<&'static [&'static [u8]]> {
    let raster = |c| get_raster(c, WEIGHT, RasterHeight::Size24);
    raster(character).or_else(|| raster('?')).map(|glyph| glyph.raster())
}

/// Paper mixed with `coverage` / 255 of ink.
fn blend(coverage: u8) -> u8 {
    let (paper, ink, part) = (u16::from(PAPER), u16::from(INK), u16::from(coverage));
    let mixed = (paper * (255 - part) + ink * part + 127).div_euclid(255);
    u8::try_from(mixed).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::AnimationDecoder;
    use image::codecs::gif::GifDecoder;
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
    fn scale_comes_closest_to_the_side_asked_for() {
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
        let bytes = encode_png(&grid).unwrap();
        let decoded = image::load_from_memory(&bytes).unwrap();
        assert_eq!(decoded.color(), image::ColorType::L8);
        assert_eq!(decoded.into_luma8(), grid);
        assert_eq!(encode_png(&labelled_grid(&[column("7", 2)], 2, 3, 9).unwrap()).unwrap(), bytes);
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
    fn gif_refuses_frames_that_do_not_fit_together() {
        let frame = GrayImage::new(4, 4);
        assert!(encode_gif(&[], &[]).is_err());
        assert!(encode_gif(std::slice::from_ref(&frame), &[1, 2]).is_err());
        assert!(encode_gif(&[frame, GrayImage::new(5, 4)], &[1, 2]).is_err());
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
}
