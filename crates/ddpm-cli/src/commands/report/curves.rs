//! The curves of a training run, as SVG.

use anyhow::{Context, Result};
use ddpm_train::Record;
use plotters::prelude::*;

use crate::{
    loss_plot,
    plot_style::{GRID_COLOUR, MAIN_COLOUR, TEXT_COLOUR, text},
};

/// Width and height of a small plot, in pixels.
const SIZE: (u32, u32) = (440, 240);

/// The losses, and small plots of learning rate, gradient norm and speed.
pub(super) fn all(records: &[Record]) -> Result<Vec<String>> {
    let mut plots: Vec<String> = loss_plot::loss_svg(records, "Loss")?.into_iter().collect();
    let points = |value: fn(&Record) -> Option<f64>| {
        let point = |record: &Record| match *record {
            Record::Train { epoch, .. } => value(record).map(|value| (epoch, value)),
            _ => None,
        };
        loss_plot::smoothed(&records.iter().filter_map(point).collect::<Vec<_>>())
    };
    for (title, points) in [
        ("Learning rate", points(|record| field(record).map(|(rate, ..)| rate))),
        ("Gradient norm", points(|record| field(record).and_then(|(_, norm, _)| norm))),
        ("Images per second", points(|record| field(record).map(|(.., speed)| speed))),
    ] {
        if points.len() > 1 {
            plots.push(draw(title, &points).with_context(|| format!("cannot draw the plot of {title}"))?);
        }
    }
    Ok(plots)
}

fn field(record: &Record) -> Option<(f64, Option<f64>, f64)> {
    match *record {
        Record::Train { learning_rate, grad_norm, images_per_second, .. } => {
            Some((learning_rate, grad_norm, images_per_second))
        }
        _ => None,
    }
}

fn draw(title: &str, points: &[(f64, f64)]) -> Result<String> {
    let mut svg = String::new();
    let last = points.iter().map(|point| point.0).fold(0.0, f64::max);
    let highest = points.iter().map(|point| point.1).fold(0.0, f64::max);
    let page = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    page.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&page)
        .caption(title, text(18.0))
        .margin(10)
        .margin_right(18)
        .x_label_area_size(30)
        .y_label_area_size(62)
        .build_cartesian_2d(0.0..last, 0.0..highest * 1.1 + f64::MIN_POSITIVE)?;
    chart
        .configure_mesh()
        .bold_line_style(GRID_COLOUR)
        .light_line_style(TRANSPARENT)
        .axis_style(TEXT_COLOUR)
        .label_style(text(13.0))
        .x_labels(6)
        .y_labels(5)
        .x_label_formatter(&|epoch| epoch.to_string())
        .y_label_formatter(&|value| short(*value))
        .draw()?;
    chart.draw_series(LineSeries::new(points.iter().copied(), MAIN_COLOUR.stroke_width(1)))?;
    page.present()?;
    drop(chart);
    drop(page);
    Ok(svg)
}

/// A number of an axis.
fn short(value: f64) -> String {
    if value == 0.0 || (0.01..100_000.0).contains(&value) {
        format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        format!("{value:.0e}")
    }
}
