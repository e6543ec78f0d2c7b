//! Pictures of many images: a grid with class labels, written as PNG or animated GIF.
//!
//! Pictures have grey levels only. Tiles keep the stored grey levels (white on black for MNIST) and are enlarged by an
//! integer factor without smoothing, on a white page. The same input gives the same bytes.

mod encode;
pub(crate) mod terminal;
#[cfg(test)]
mod tests;

use anyhow::{Result, ensure};
use image::imageops::{self, FilterType};
use image::{GrayImage, Luma};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

pub(crate) use encode::{encode_apng, encode_gif, encode_png};

/// One column of a grid: images of one class, from top to bottom.
#[derive(Debug, Clone)]
pub(crate) struct Column<'a> {
    /// The label above the column, for example `7`; it may be empty.
    pub(crate) label: String,
    /// The images, each of `rows * cols` grey levels in row-major order.
    pub(crate) tiles: Vec<&'a [u8]>,
}

/// The side of a tile in a still picture, in pixels: see [`tile_scale`].
pub(crate) const PNG_TILE_SIDE: usize = 84;
/// The side of a tile in an animation, in pixels. It is smaller than in a still picture because frames of noise hardly
/// compress.
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
/// Maximum number of columns in a band. More columns are arranged in several bands of about equal width.
const MAX_COLUMNS: usize = 20;
/// Maximum width and height of a picture, in pixels: most viewers cannot open larger ones.
const MAX_SIDE: usize = 16_384;
/// Grey level of the page.
const PAPER: u8 = 255;
/// Grey level of the labels.
const INK: u8 = 40;

/// The integer factor that brings the longer side of an image closest to `tile_side` pixels.
pub(crate) fn tile_scale(rows: usize, cols: usize, tile_side: usize) -> usize {
    let side = rows.max(cols).max(1);
    (tile_side + side.div_euclid(2)).div_euclid(side).max(1)
}

/// Draws columns of tiles side by side, each under its label.
///
/// Every image has `rows` x `cols` pixels and is enlarged `scale` times. Columns may have different
/// lengths; the place of a missing tile stays white. More than 20 columns are arranged in bands.
///
/// # Errors
/// An image does not have `rows * cols` bytes, there are no images, or the picture would have a side of more than
/// 16,384 pixels.
pub(crate) fn labelled_grid(
    columns: &[Column<'_>],
    rows: usize,
    cols: usize,
    scale: usize,
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

/// Draws unlabelled images in reading order, in a grid as close to a square as possible.
///
/// # Errors
/// As [`labelled_grid`].
pub(crate) fn plain_grid(tiles: &[&[u8]], rows: usize, cols: usize, scale: usize) -> Result<GrayImage> {
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

/// The size of an image and of the tile that shows it.
#[derive(Debug, Clone, Copy)]
struct TileSize {
    rows: usize,
    cols: usize,
    scale: usize,
}

impl TileSize {
    fn new(rows: usize, cols: usize, scale: usize) -> Result<Self> {
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

/// The arrangement of the tiles; `strip` is the height of the labels above each band, in pixels.
#[derive(Debug, Clone, Copy)]
struct Layout {
    bands: usize,
    per_band: usize,
    depth: usize,
    strip: usize,
}

/// A white page with a position for every tile.
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
            "a picture of {width} x {height} pixels is too large to view (at most {MAX_SIDE} on a side); use fewer images"
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

    /// Draws `label` centred above a column. If the `widest` of all labels is wider than a tile, all labels are scaled
    /// down by the same factor.
    fn draw_label(&mut self, band: usize, place: usize, label: &str, widest: usize) {
        let available = self.tile.width();
        let Some(text) = render_text(label, available.min(widest), widest) else { return };
        let (left, top) = self.corner(band, place);
        let (width, height) = (text.width() as usize, text.height() as usize);
        let x = left + (available - width).div_euclid(2);
        let y = top + (LABEL_HEIGHT - height).div_euclid(2);
        for (row, line) in text.as_raw().chunks_exact(width).enumerate() {
            self.line_mut(x, y + row, width).copy_from_slice(line);
        }
    }

    /// The `width` pixels of line `y` that start at `x`.
    fn line_mut(&mut self, x: usize, y: usize, width: usize) -> &mut [u8] {
        let start = y * self.image.width() as usize + x;
        &mut (*self.image)[start..start + width]
    }
}

/// Width of a text at its natural size, in pixels.
fn text_width(text: &str) -> usize {
    text.chars().count() * get_raster_width(WEIGHT, RasterHeight::Size24)
}

/// Draws one line of text on white, scaled by `numerator / denominator` (at most 1). `None` if the text is empty.
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
        imageops::resize(&image, width, height, FilterType::Triangle)
    })
}

/// The raster of a character, or the raster of a question mark if the font lacks the character.
fn glyph(character: char) -> Option<&'static [&'static [u8]]> {
    let raster = |c| get_raster(c, WEIGHT, RasterHeight::Size24);
    raster(character).or_else(|| raster('?')).map(|glyph| glyph.raster())
}

/// The grey level of paper that is covered with ink by `coverage` / 255.
fn blend(coverage: u8) -> u8 {
    let (paper, ink, part) = (u16::from(PAPER), u16::from(INK), u16::from(coverage));
    let mixed = (paper * (255 - part) + ink * part + 127).div_euclid(255);
    u8::try_from(mixed).unwrap_or(u8::MAX)
}
