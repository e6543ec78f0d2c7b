//! The style that all plots share.

use anyhow::Result;
use plotters::{coord::CoordTranslate, prelude::*};

/// The colour of text and axes, and of what real images have in a plot about generated images.
pub(crate) const TEXT_COLOUR: RGBColor = RGBColor(60, 60, 60);
pub(crate) const GRID_COLOUR: RGBColor = RGBColor(226, 226, 226);
/// The main colour of the data.
pub(crate) const MAIN_COLOUR: RGBColor = RGBColor(116, 153, 190);

/// The style of a text of this size, in pixels.
pub(crate) fn text(size: f64) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&TEXT_COLOUR)
}

/// Draws the legend in the upper right corner, with text of this size in pixels.
pub(crate) fn draw_legend<'a, C: CoordTranslate>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, C>,
    background: &impl Color,
    text_size: f64,
) -> Result<()> {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .margin(14)
        .legend_area_size(34)
        .background_style(background)
        .border_style(GRID_COLOUR)
        .label_font(text(text_size))
        .draw()?;
    Ok(())
}
