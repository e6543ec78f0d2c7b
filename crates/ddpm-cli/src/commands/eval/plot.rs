//! Plots of the accuracy by class and of the features in two dimensions, as SVG.

use anyhow::{Context, Result};
use ddpm_eval::{ClassAccuracy, MetricResult, PcaProjection, Report};
use plotters::{coord::Shift, prelude::*};

use crate::plot_style::{GRID_COLOUR, MAIN_COLOUR, TEXT_COLOUR, draw_legend, text};

/// Width and height of a panel, in pixels.
const PANEL: (u32, u32) = (560, 500);
const TRAIN_COLOUR: RGBColor = RGBColor(196, 196, 196);
/// Ten distinguishable colours, from Tableau.
const CLASS_COLOURS: [RGBColor; 10] = [
    RGBColor(78, 121, 167),
    RGBColor(242, 142, 43),
    RGBColor(225, 87, 89),
    RGBColor(118, 183, 178),
    RGBColor(89, 161, 79),
    RGBColor(237, 201, 72),
    RGBColor(176, 122, 161),
    RGBColor(255, 157, 167),
    RGBColor(156, 117, 95),
    RGBColor(20, 120, 120),
];

/// The plots of class accuracy and of features, side by side; a plot without data is left out. `None` if neither has
/// data. `labels` are the classes of the generated images.
pub(super) fn svg(report: &Report, labels: Option<&[u8]>) -> Result<Option<String>> {
    let panels = u32::from(report.accuracy.is_some()) + u32::from(report.projection.is_some());
    if panels == 0 {
        return Ok(None);
    }
    let mut svg = String::new();
    draw(&mut svg, panels, report, labels).context("cannot draw the plot")?;
    Ok(Some(svg))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw(svg: &mut String, panels: u32, report: &Report, labels: Option<&[u8]>) -> Result<()> {
    let page = SVGBackend::with_string(svg, (panels * PANEL.0, PANEL.1)).into_drawing_area();
    page.fill(&WHITE)?;
    let mut areas = page.split_evenly((1, panels as usize)).into_iter();
    if let (Some(accuracy), Some(area)) = (&report.accuracy, report.accuracy.as_ref().and(areas.next())) {
        draw_accuracy(&area, accuracy)?;
    }
    if let (Some(view), Some(area)) = (&report.projection, areas.next()) {
        draw_view(&area, view, labels)?;
    }
    page.present()?;
    Ok(())
}

/// Draws a bar for each class, and a line across it at the accuracy of test images.
fn draw_accuracy(area: &Area<'_>, accuracy: &MetricResult<ClassAccuracy>) -> Result<()> {
    let by_class = &accuracy.generated.by_class;
    let floor = accuracy.floor.as_ref().map(|floor| floor.by_class.as_slice()).unwrap_or_default();
    let least = by_class.iter().chain(floor).flatten().copied().fold(1.0, f64::min);
    // If all accuracies are 0.9 or more, the axis starts just below the lowest, so that small differences are visible.
    let low = if least >= 0.9 { (least * 50.0).floor() / 50.0 - 0.02 } else { 0.0 };
    let digits = if low > 0.0 { 3 } else { 1 };
    // The upper part of the plot is reserved for the legend.
    let high = 1.0 + 0.2 * (1.0 - low);
    let mut chart = ChartBuilder::on(area)
        .caption("Class accuracy", text(24.0))
        .margin(14)
        .x_label_area_size(52)
        .y_label_area_size(76)
        .build_cartesian_2d(-0.6..by_class.len() as f64 - 0.4, low..high)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID_COLOUR)
        .light_line_style(TRANSPARENT)
        .axis_style(TEXT_COLOUR)
        .label_style(text(16.0))
        .axis_desc_style(text(18.0))
        .x_labels(by_class.len().min(20) + 1)
        .x_desc("class")
        .y_desc("share of images")
        .x_label_formatter(&|class| if class.fract() == 0.0 { class.to_string() } else { String::new() })
        .y_label_formatter(&|part| if *part > 1.001 { String::new() } else { format!("{part:.digits$}") })
        .draw()?;
    chart
        .draw_series(shares(by_class).map(|(class, part)| {
            Rectangle::new([(class - 0.35, low), (class + 0.35, part)], MAIN_COLOUR.filled())
        }))?
        .label("generated images")
        .legend(|(x, y)| Rectangle::new([(x, y - 5), (x + 24, y + 5)], MAIN_COLOUR.filled()));
    if !floor.is_empty() {
        let line = TEXT_COLOUR.stroke_width(2);
        let across = |(class, part)| PathElement::new(vec![(class - 0.42, part), (class + 0.42, part)], line);
        chart
            .draw_series(shares(floor).map(across))?
            .label("real test images")
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 24, y)], line));
    }
    draw_legend(&mut chart, &WHITE.mix(0.8), 14.0)
}

/// The class and the share of each class that has one.
fn shares(by_class: &[Option<f64>]) -> impl Iterator<Item = (f64, f64)> {
    (0_u8..).zip(by_class).filter_map(|(class, share)| Some((f64::from(class), (*share)?)))
}

/// Draws the features of training images in grey, and over them the features of generated images in the colour of
/// their class.
fn draw_view(area: &Area<'_>, view: &PcaProjection, labels: Option<&[u8]>) -> Result<()> {
    // The right part of the plot is reserved for the legend.
    let range = |axis: usize, beyond: f32| {
        let values = || view.train.iter().chain(&view.generated).map(|point| point[axis]);
        let (low, high) =
            (values().fold(f32::INFINITY, f32::min), values().fold(f32::NEG_INFINITY, f32::max));
        let width = (high - low).max(f32::MIN_POSITIVE);
        low - 0.04 * width..high + beyond * width
    };
    let mut chart = ChartBuilder::on(area)
        .caption("Features", text(24.0))
        .margin(14)
        .x_label_area_size(52)
        .y_label_area_size(52)
        .build_cartesian_2d(range(0, 0.6), range(1, 0.04))?;
    let axis = |n: usize| {
        let number = ["first", "second"][n];
        format!("{number} principal component, {:.0} % of the variance", 100.0 * view.explained[n])
    };
    chart
        .configure_mesh()
        .disable_mesh()
        .axis_style(TEXT_COLOUR)
        .axis_desc_style(text(18.0))
        .x_labels(0)
        .y_labels(0)
        .x_desc(axis(0))
        .y_desc(axis(1))
        .draw()?;
    let dot = |point: &[f32; 2], colour: RGBColor| Circle::new((point[0], point[1]), 2, colour.filled());
    chart
        .draw_series(view.train.iter().map(|point| dot(point, TRAIN_COLOUR)))?
        .label("training images")
        .legend(|at| Circle::new(at, 4, TRAIN_COLOUR.filled()));
    let colour = |class: u8| CLASS_COLOURS[usize::from(class) % CLASS_COLOURS.len()];
    let Some(labels) = labels else {
        chart
            .draw_series(view.generated.iter().map(|point| dot(point, MAIN_COLOUR)))?
            .label("generated images")
            .legend(|at| Circle::new(at, 4, MAIN_COLOUR.filled()));
        return draw_legend(&mut chart, &WHITE.mix(0.8), 14.0);
    };
    let mut classes = labels.to_vec();
    classes.sort_unstable();
    classes.dedup();
    for class in classes {
        let points = view.generated.iter().zip(&view.generated_indices);
        let of_class = points.filter(|(_, index)| labels.get(**index as usize) == Some(&class));
        let series = chart.draw_series(of_class.map(|(point, _)| dot(point, colour(class))))?;
        // Further classes repeat the colours, so they are not in the legend.
        if usize::from(class) < CLASS_COLOURS.len() {
            series
                .label(format!("generated, class {class}"))
                .legend(move |at| Circle::new(at, 4, colour(class).filled()));
        }
    }
    draw_legend(&mut chart, &WHITE.mix(0.8), 14.0)
}
