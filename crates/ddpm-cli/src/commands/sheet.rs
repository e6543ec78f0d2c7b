//! A sheet of images in columns, as a picture or as text for a terminal.

use std::borrow::Cow;

use anyhow::Result;
use ddpm_model::DenoiserConfig;
use image::GrayImage;

use crate::picture::{self, Column, terminal};

/// Images of one size in columns.
pub(crate) struct Sheet<'a> {
    rows: usize,
    cols: usize,
    /// The label of each column and its images, N × rows × cols. Without labels the images are one grid.
    columns: Vec<(String, Cow<'a, [u8]>)>,
}

impl<'a> Sheet<'a> {
    /// Columns from left to right, with images from top to bottom.
    pub(crate) fn new(config: &DenoiserConfig, columns: Vec<(String, Cow<'a, [u8]>)>) -> Self {
        Self { rows: config.rows, cols: config.cols, columns }
    }

    /// The sheet with images of its own.
    pub(crate) fn into_owned(self) -> Sheet<'static> {
        let owned = |(label, pixels): (String, Cow<'_, [u8]>)| (label, Cow::Owned(pixels.into_owned()));
        Sheet { rows: self.rows, cols: self.cols, columns: self.columns.into_iter().map(owned).collect() }
    }

    /// The sheet with each image as large as fits best on a tile with a side of this number of pixels.
    ///
    /// # Errors
    /// The picture would be too large.
    pub(crate) fn draw(&self, tile_side: usize) -> Result<GrayImage> {
        let scale = picture::tile_scale(self.rows, self.cols, tile_side);
        let columns = self.tiles();
        match columns.as_slice() {
            [only] if only.label.is_empty() => picture::plain_grid(&only.tiles, self.rows, self.cols, scale),
            _ => picture::labelled_grid(&columns, self.rows, self.cols, scale),
        }
    }

    /// The sheet as text for a terminal of this number of characters in a line.
    pub(crate) fn text(&self, width: usize, colours: bool) -> String {
        let mut columns = self.tiles();
        if let [only] = columns.as_slice()
            && only.label.is_empty()
        {
            // Rows of ten images.
            let column = |at: usize| only.tiles.iter().skip(at).step_by(10).copied().collect::<Vec<_>>();
            columns = (0..only.tiles.len().min(10))
                .map(|at| Column { label: String::new(), tiles: column(at) })
                .collect();
        }
        terminal::text(&columns, [self.rows, self.cols], width, colours)
    }

    fn tiles(&self) -> Vec<Column<'_>> {
        let size = self.rows * self.cols;
        let columns = self.columns.iter();
        columns
            .map(|(label, pixels)| Column { label: label.clone(), tiles: pixels.chunks(size).collect() })
            .collect()
    }
}
