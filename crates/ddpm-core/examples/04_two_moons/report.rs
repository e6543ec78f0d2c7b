//! Compares samples with data in a table and a picture.

#![allow(clippy::print_stdout, reason = "an example prints its results")]

use anyhow::Result;
use candle_core::{D, DType, Tensor};
use plotters::prelude::*;

/// Prints the distances of samples from the curves and from test data.
pub(crate) fn compare(panels: &[(String, Tensor)], test: &Tensor) -> Result<()> {
    println!("\n{:30}  to the moons     first moon    to test data", "distance");
    for (name, x) in panels {
        let all: Vec<[f64; 2]> = points(x)?.into_iter().map(distances).collect();
        let distance = all.iter().map(|d| d[0].min(d[1])).sum::<f64>() / all.len() as f64;
        let first = 100.0 * all.iter().filter(|d| d[0] < d[1]).count() as f64 / all.len() as f64;
        println!("{name:30}{distance:14.3}   {first:10.1} %   {:13.4}", energy_distance(x, test)?);
    }
    println!(
        "\nTo the moons: the mean distance of a point to the nearer curve. First moon: the percentage of"
    );
    println!(
        "points nearer to the first curve. To test data: the energy distance. Its first row compares two"
    );
    println!(
        "samples of the data, so it is sampling error; 0.01 is hard to see in the picture. Without noise"
    );
    println!("all points end at nearly the same place, which the distance to the curves does not show.");
    Ok(())
}

/// Draws five sets of points, and the paths of 160 points through all steps of a run.
pub(crate) fn draw(path: &str, panels: &[(String, Tensor)], run: &[Vec<(f64, f64)>]) -> Result<()> {
    let root = SVGBackend::new(path, (1260, 720)).into_drawing_area();
    root.fill(&WHITE)?;
    let areas = root.margin(12, 4, 8, 8).split_evenly((2, 3));
    let curve = |side: f64| {
        let angles = (0..=40).map(|i| std::f64::consts::PI * f64::from(i) / 40.0);
        let points = angles.map(|angle| (side * (angle.cos() - 0.5), side * (angle.sin() - 0.25)));
        PathElement::new(points.collect::<Vec<_>>(), RGBColor(190, 190, 190))
    };
    let color = |p| {
        let [first, second] = distances(p);
        if first < second { RGBColor(31, 91, 168) } else { RGBColor(226, 106, 44) }
    };
    let dot = |p| Circle::new(p, 2, color(p).mix(0.55).filled());
    for (area, (name, x)) in std::iter::zip(&areas, panels) {
        let area = area.titled(name, ("sans-serif", 22))?;
        let mut chart = ChartBuilder::on(&area).build_cartesian_2d(-1.9..1.9, -1.4..1.4)?;
        chart.draw_series([curve(1.0), curve(-1.0)])?;
        chart.draw_series(points(x)?.into_iter().map(dot))?;
    }
    let area = areas[5].titled("from noise to moons: paths of DDIM", ("sans-serif", 22))?;
    let mut chart = ChartBuilder::on(&area).build_cartesian_2d(-3.8..3.8, -2.8..2.8)?;
    for image in 0..160 {
        let path: Vec<(f64, f64)> = run.iter().map(|x| x[image]).collect();
        let end = path[path.len() - 1];
        chart.draw_series([PathElement::new(path, color(end).mix(0.35))])?;
        chart.draw_series([dot(end)])?;
    }
    root.present()?;
    Ok(())
}

pub(crate) fn points(x: &Tensor) -> candle_core::Result<Vec<(f64, f64)>> {
    Ok(x.to_dtype(DType::F64)?.to_vec2()?.into_iter().map(|p| (p[0], p[1])).collect())
}

/// The distances of a point to the two half circles.
fn distances((x, y): (f64, f64)) -> [f64; 2] {
    [1.0, -1.0].map(|side| {
        let (x, y) = (side * x + 0.5, side * y + 0.25);
        if y >= 0.0 { (x.hypot(y) - 1.0).abs() } else { (x.abs() - 1.0).hypot(y) }
    })
}

/// The energy distance 2 E‖x − y‖ − E‖x − x′‖ − E‖y − y′‖. It is 0 only for equal distributions (Székely & Rizzo 2013).
fn energy_distance(x: &Tensor, y: &Tensor) -> Result<f64> {
    let mean = |a: &Tensor, b: &Tensor| -> Result<f64> {
        let differences = a.unsqueeze(0)?.broadcast_sub(&b.unsqueeze(1)?)?;
        Ok(f64::from(differences.sqr()?.sum(D::Minus1)?.sqrt()?.mean_all()?.to_scalar::<f32>()?))
    };
    Ok(2.0 * mean(x, y)? - mean(x, x)? - mean(y, y)?)
}
