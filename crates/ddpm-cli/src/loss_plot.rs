//! A plot of the loss curve of a training run, as SVG.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use ddpm_files::write_atomic;
use ddpm_train::Record;
use plotters::prelude::*;

use crate::plot_style::{GRID_COLOUR, MAIN_COLOUR, TEXT_COLOUR, draw_legend, text};

/// Width and height of the plot, in pixels.
const SIZE: (u32, u32) = (880, 500);
/// Maximum number of points of the training curve. More points are averaged in groups.
const MAX_POINTS: usize = 600;
const MAX_EPOCH_LABELS: u16 = 13;
const TEST_COLOUR: RGBColor = RGBColor(200, 72, 35);

/// Reads the losses from `metrics.jsonl` in a run folder and writes the plot to `loss.svg` beside it.
///
/// # Errors
/// The log cannot be read, or the plot cannot be written.
pub(crate) fn write(run: &Path, title: &str) -> Result<()> {
    if let Some(svg) = loss_svg(&records(run)?, title)? {
        write_atomic(&run.join("loss.svg"), svg.as_bytes())?;
    }
    Ok(())
}

/// The log of a run folder.
///
/// # Errors
/// The log cannot be read, or is not one of a training run.
pub(crate) fn records(run: &Path) -> Result<Vec<Record>> {
    let log = run.join("metrics.jsonl");
    let lines = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let records = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>();
    records.with_context(|| format!("{} is not a training log", log.display()))
}

/// The losses over epochs on a logarithmic scale; `None` if no loss is positive.
///
/// # Errors
/// The plot cannot be drawn.
pub(crate) fn loss_svg(records: &[Record], title: &str) -> Result<Option<String>> {
    let [mut train, mut test] = [Vec::new(), Vec::new()];
    for record in records {
        match *record {
            Record::Train { epoch, loss, .. } => train.push((epoch, loss)),
            Record::Epoch { epoch, test_loss, .. } => test.extend(test_loss.map(|loss| (epoch as f64, loss))),
            Record::Start { .. } => {}
        }
    }
    for points in [&mut train, &mut test] {
        points.retain(|&(_, loss)| loss > 0.0);
    }
    if train.is_empty() && test.is_empty() {
        return Ok(None);
    }
    let mut svg = String::new();
    draw(&mut svg, title, &smoothed(&train), &test).context("cannot draw the loss curve")?;
    Ok(Some(svg))
}

fn draw(svg: &mut String, title: &str, train: &[(f64, f64)], test: &[(f64, f64)]) -> Result<()> {
    let points = || train.iter().chain(test);
    let epochs = points().map(|point| point.0).fold(0.0, f64::max);
    let lowest = points().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let highest = points().map(|point| point.1).fold(0.0, f64::max);
    // The upper fifth of the plot is reserved for the legend.
    let (low, high) = (lowest / 1.05, highest * 1.05 * (highest / lowest).powf(0.25));

    // One label for each epoch up to a maximum, so that labels are whole numbers.
    let epoch_labels = (1..MAX_EPOCH_LABELS).find(|&n| f64::from(n) > epochs).unwrap_or(MAX_EPOCH_LABELS);

    let page = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    page.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&page)
        .caption(title, text(24.0))
        .margin(14)
        .margin_right(28)
        .x_label_area_size(52)
        .y_label_area_size(76)
        .build_cartesian_2d(0.0..epochs, (low..high).log_scale().with_key_points(loss_ticks(low, high)))?;
    chart
        .configure_mesh()
        .bold_line_style(GRID_COLOUR)
        .light_line_style(TRANSPARENT)
        .axis_style(TEXT_COLOUR)
        .label_style(text(16.0))
        .axis_desc_style(text(18.0))
        .x_labels(usize::from(epoch_labels))
        .x_desc("epoch")
        .y_desc("loss (logarithmic)")
        .x_label_formatter(&|epoch| epoch.to_string())
        .y_label_formatter(&|loss| loss.to_string())
        .draw()?;

    let thin = MAIN_COLOUR.stroke_width(1);
    if !train.is_empty() {
        chart
            .draw_series(LineSeries::new(train.iter().copied(), thin))?
            .label("training images")
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 24, y)], thin));
    }
    let bold = TEST_COLOUR.stroke_width(2).filled();
    if !test.is_empty() {
        chart
            .draw_series(LineSeries::new(test.iter().copied(), bold).point_size(3))?
            .label("test images, averaged weights")
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 24, y)], bold));
    }
    draw_legend(&mut chart, &WHITE, 16.0)?;
    page.present()?;
    Ok(())
}

/// Replaces groups of neighbouring points by their mean, so that a curve has at most [`MAX_POINTS`].
pub(crate) fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    averaged(points, MAX_POINTS)
}

/// Replaces groups of neighbouring points by their mean, so that at most `limit` are left.
fn averaged(points: &[(f64, f64)], limit: usize) -> Vec<(f64, f64)> {
    let mean = |group: &[(f64, f64)]| {
        let count = group.len() as f64;
        let (x, y) = (group.iter().map(|point| point.0), group.iter().map(|point| point.1));
        (x.sum::<f64>() / count, y.sum::<f64>() / count)
    };
    points.chunks(points.len().div_ceil(limit).max(1)).map(mean).collect()
}

/// Positions of the labels between `low` and `high`: 1, 2 and 5 times powers of ten. If these are fewer than three,
/// multiples of one round number.
fn loss_ticks(low: f64, high: f64) -> Vec<f64> {
    const EXPONENTS: std::ops::RangeInclusive<i32> = -12..=12;
    // Parsed from decimal digits, so that a label does not show the rounding error of a product.
    let number = |digits: u32, exponent: i32| format!("{digits}e{exponent}").parse().unwrap_or(f64::NAN);
    let round = EXPONENTS.flat_map(|exponent| [1, 2, 5].map(|digit| number(digit, exponent)));
    let ticks: Vec<f64> = round.filter(|tick| (low..=high).contains(tick)).collect();
    if ticks.len() >= 3 {
        return ticks;
    }
    let mut steps = EXPONENTS.flat_map(|exponent| [1, 2, 5].map(|digit| (digit, exponent)));
    let Some((digit, exponent)) =
        steps.find(|&(digit, exponent)| (high - low) / number(digit, exponent) < 8.0)
    else {
        return ticks;
    };
    let multiples = (1..).map(|n| number(n * digit, exponent));
    multiples.take_while(|&tick| tick <= high).filter(|&tick| tick >= low).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train(epoch: f64, loss: f64) -> Record {
        let (step, images, learning_rate, images_per_second, seconds) = (1, 1, 1e-3, 1.0, 1.0);
        Record::Train {
            step,
            epoch,
            images,
            loss,
            learning_rate,
            images_per_second,
            seconds,
            grad_norm: None,
        }
    }

    fn epoch(epoch: u64, test_loss: Option<f64>) -> Record {
        Record::Epoch { epoch, step: 1, train_loss: 0.5, test_loss, seconds: 1.0 }
    }

    /// A log of `epochs` epochs with `lines` training records each.
    fn log(epochs: u64, lines: u64) -> Vec<Record> {
        let loss = |at: f64| (0.02 + 0.3 / at) * (1.0 + 0.1 * (at * 7.0).sin());
        let of_epoch = |n: u64| {
            let at = move |line: u64| (n - 1) as f64 + line as f64 / lines as f64;
            let losses = (1..=lines).map(move |line| train(at(line), loss(at(line) * lines as f64)));
            losses.chain([epoch(n, Some(loss(n as f64)))])
        };
        (1..=epochs).flat_map(of_epoch).collect()
    }

    fn svg(records: &[Record]) -> String {
        loss_svg(records, "Training on MNIST").unwrap().unwrap()
    }

    #[test]
    fn both_series_are_drawn_with_axes_legend_and_title() {
        let svg = svg(&log(12, 25));
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        for text in
            ["Training on MNIST", "epoch", "loss (logarithmic)", "training images", "averaged weights"]
        {
            assert!(svg.contains(text), "{text}");
        }
        assert_eq!(svg.matches("<circle").count(), 12, "one point an epoch");
        let line = |colour: &str, points: usize| {
            svg.lines().any(|line| {
                line.starts_with("<polyline") && line.contains(colour) && line.matches(',').count() >= points
            })
        };
        assert!(line("#7499BE", 300), "training");
        assert!(line("#C84823", 12), "test");
    }

    #[test]
    fn without_test_images_training_is_drawn_alone() {
        let svg = svg(&[train(0.5, 0.5), train(1.0, 0.4), epoch(1, None)]);
        assert!(svg.contains("training images") && !svg.contains("averaged weights"));
    }

    #[test]
    fn losses_that_are_not_positive_are_left_out() {
        assert_eq!(loss_svg(&[train(1.0, 0.0), epoch(1, Some(-0.5))], "t").unwrap(), None);
        let svg = svg(&[train(0.5, 0.5), train(1.0, 0.0), epoch(1, Some(0.25)), epoch(2, Some(-1.0))]);
        assert_eq!(svg.matches("<circle").count(), 1);
    }

    #[test]
    fn many_points_become_means() {
        let points: Vec<_> = (0..1000).map(|n| (f64::from(n), f64::from(n % 2))).collect();
        let few = averaged(&points, 500);
        assert_eq!(few.len(), 500);
        assert_eq!(few[1], (2.5, 0.5));
        assert_eq!(averaged(&points[..7], 500), points[..7]);
    }

    #[test]
    fn epochs_are_labelled_with_whole_numbers() {
        for (epochs, last) in [(1, "1"), (4, "4"), (30, "30"), (200, "200")] {
            let svg = svg(&log(epochs, 3));
            // A label of an axis is a line that consists of a number.
            let numbers = || svg.lines().filter_map(|line| line.parse::<f64>().ok());
            assert!(svg.lines().any(|line| line == last), "{epochs}");
            assert!(numbers().filter(|n| *n >= 1.0).all(|n| n.fract() == 0.0), "{epochs}");
            assert!(numbers().filter(|n| *n >= 1.0).count() <= 13, "{epochs}");
        }
    }

    #[test]
    fn loss_ticks_are_round() {
        assert_eq!(loss_ticks(0.018, 0.6), [0.02, 0.05, 0.1, 0.2, 0.5]);
        assert_eq!(loss_ticks(0.03, 0.3), [0.05, 0.1, 0.2]);
        assert_eq!(loss_ticks(0.021, 0.027), [0.021, 0.022, 0.023, 0.024, 0.025, 0.026, 0.027]);
        assert_eq!(loss_ticks(0.98, 1.03), [0.98, 0.99, 1.0, 1.01, 1.02, 1.03]);
    }
}
