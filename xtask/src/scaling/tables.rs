//! The tables of trainings.

use std::iter::zip;

use serde_json::Value;

use super::{Trained, WAYS, Way};
use crate::machine::Machine;
use crate::printed::{cell, mean_and_error, median};

/// The steps of the table of loss curves, of those in the logs.
const CURVE: [u64; 9] = [50, 100, 150, 200, 300, 400, 600, 800, 1000];

/// All tables. `rounds` holds the runs of all ways for each seed.
pub(super) fn training(rounds: &[Vec<Trained>]) -> String {
    format!(
        "## Training\n\nAll rows train on the same images in the same number of steps, 128 images a step over all \
         processes.\n\n{}\n{}\n{}\n{}",
        speed(rounds, Machine::this().cores),
        weights(&rounds[0]),
        curves(&rounds[0]),
        quality(rounds)
    )
}

/// The name of a way with its processes and options, as the first cells of a row.
fn cells(way: &Way) -> String {
    format!("| {} | {} | {} | {} |", way.name, way.processes.unwrap_or(1), way.threads, way.options)
}

const HEADER: &str = "| | processes | threads of each | options |";

/// The median of the speeds, and what of it is due to the cores of the machine.
fn speed(rounds: &[Vec<Trained>], cores: usize) -> String {
    let of_way = |way: usize| {
        let speeds = rounds.iter().filter_map(|runs| runs[way].printed.number("/images_per_second").ok()?);
        median(speeds.collect())
    };
    let ratio = |way: usize, base: usize| of_way(way).zip(of_way(base)).map(|(this, base)| this / base);
    let mut text = format!(
        "### Speed\n\nImages per second, the median of {} runs. The runs of one seed came one after the other, then those of \
         the next.\n\n{HEADER} images/s | of one process with 1 thread | of one process with 2 threads |\n\
         | --- | ---: | ---: | --- | ---: | ---: | ---: |\n",
        rounds.len()
    );
    for (index, way) in WAYS.iter().enumerate() {
        let [speed, of_one, of_two] = [of_way(index), ratio(index, 0), ratio(index, 1)];
        text += &format!("{} {} | {} | {} |\n", cells(way), cell(speed, 0), cell(of_one, 2), cell(of_two, 2));
    }
    text + &format!(
        "\nThe machine has {cores} cores, and all rows share them and its memory. A second thread makes one process {} times as \
         fast, so {} is what {cores} cores give, and what two processes can reach. The rest is the price of processes: a gradient \
         in memory instead of an update within the backward pass, and the exchange, which is a copy here and messages between \
         machines. Four processes have half a core each; they show that the sums are right, not a speed.\n",
        cell(ratio(1, 0), 2),
        cell(of_way(1), 0),
    )
}

/// Digests of the weights, and how far they are from those of the first row.
fn weights(runs: &[Trained]) -> String {
    let mut text = format!(
        "### Weights, seed 1\n\nThe last column is the largest difference of a weight to the first row, divided by the largest \
         weight. The number of threads changes nothing, and neither does `--mpi` with one process. Processes that add \
         gradients round differently.\n\n{HEADER} training loss of the last epoch | test loss after each epoch | weights \
         (SHA-256) | difference |\n| --- | ---: | ---: | --- | ---: | --- | --- | ---: |\n"
    );
    for run in runs {
        let losses: Vec<String> = test_losses(run).map(|loss| format!("{loss:.7}")).collect();
        text += &format!(
            "{} {} | {} | {} | {:.1e} |\n",
            cells(run.way),
            cell(run.printed.number("/train_loss").ok().flatten(), 9),
            losses.join(", "),
            &run.weights_sha256[..12],
            difference(&run.weights, &runs[0].weights)
        );
    }
    text
}

fn test_losses(run: &Trained) -> impl Iterator<Item = f64> {
    run.records.iter().filter_map(|record| record["test_loss"].as_f64())
}

/// The largest difference of two lists of weights, divided by the largest weight.
fn difference(a: &[f32], b: &[f32]) -> f64 {
    let largest = b.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let difference = zip(a, b).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs()));
    f64::from(difference) / f64::from(largest)
}

/// The training losses at some steps.
fn curves(runs: &[Trained]) -> String {
    let losses = |run: &Trained| -> Vec<(u64, f64)> {
        let of_step = |record: &Value| {
            let (step, loss) = (record["step"].as_u64()?, record["loss"].as_f64()?);
            CURVE.contains(&step).then_some((step, loss))
        };
        run.records.iter().filter_map(of_step).collect()
    };
    let columns: Vec<String> = losses(&runs[0]).iter().map(|(step, _)| format!(" step {step} |")).collect();
    let mut text = format!(
        "### Loss curves, seed 1\n\nThe mean training loss of the 50 steps before. Local SGD shows that of process 0.\n\n\
         {HEADER}{}\n| --- | ---: | ---: | --- |{}\n",
        columns.concat(),
        " ---: |".repeat(columns.len())
    );
    for run in runs {
        let row: String = losses(run).iter().map(|(_, loss)| format!(" {loss:.5} |")).collect();
        text += &format!("{}{row}\n", cells(run.way));
    }
    text
}

/// Losses and distances over the seeds.
fn quality(rounds: &[Vec<Trained>]) -> String {
    let mut text = format!(
        "### Quality at equal images, {} seeds\n\nThe Fréchet distance of 2,000 images is divided by that of training \
         images.\n\n{HEADER} test loss, each seed | mean ± standard error | Fréchet distance, each seed | mean ± standard \
         error |\n| --- | ---: | ---: | --- | --- | ---: | --- | ---: |\n",
        rounds.len()
    );
    for (index, way) in WAYS.iter().enumerate() {
        let losses: Vec<f64> = rounds.iter().filter_map(|runs| test_losses(&runs[index]).last()).collect();
        let distances: Vec<f64> = rounds.iter().filter_map(|runs| runs[index].frechet).collect();
        let list = |values: &[f64], digits: usize| {
            values.iter().map(|value| format!("{value:.digits$}")).collect::<Vec<_>>().join(", ")
        };
        let (loss, loss_error) = mean_and_error(&losses);
        let (distance, distance_error) = mean_and_error(&distances);
        text += &format!(
            "{} {} | {loss:.4} ± {loss_error:.4} | {} | {distance:.2} ± {distance_error:.2} |\n",
            cells(way),
            list(&losses, 4),
            list(&distances, 2),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{super::tests::trained, *};

    #[test]
    fn tables_have_a_row_for_each_way() {
        let round = |speed: f64| -> Vec<_> {
            let speeds = zip(&WAYS, 1..);
            speeds.map(|(way, factor)| trained(way, "ab", speed * f64::from(factor))).collect()
        };
        let text = training(&[round(1000.0), round(500.0), round(800.0)]);
        for row in [
            "| one process | 1 | 1 |  | 800 | 1.00 | 0.50 |\n",
            "| data-parallel | 2 | 1 |  | 3200 | 4.00 | 2.00 |\n",
            "| data-parallel | 4 | 1 |  | 0.250000000 | 0.2000000, 0.1000000 | abababababab | 0.0e0 |\n",
            "| | processes | threads of each | options | step 50 | step 100 | step 150 | step 200 |\n",
            "| local SGD | 2 | 1 | --sync-every 20 | 0.02000 | 0.01000 | 0.00667 | 0.00500 |\n",
            "| local SGD | 4 | 1 | --sync-every 20 | 0.1000, 0.1000, 0.1000 | 0.1000 ± 0.0000 | 3.00, 3.00, 3.00 |",
        ] {
            assert!(text.contains(row), "{row}{text}");
        }
        assert!(text.contains("makes one process 2.00 times as fast, so 1600 is what"), "{text}");
        assert_eq!(difference(&[1.0, 3.0], &[1.5, -4.0]), 1.75);
    }
}
