//! The tables of trainings.

use std::iter::zip;

use serde_json::Value;

use super::{QUALITY, Trained, WAYS, Way};
use crate::machine::Machine;
use crate::printed::{cell, mean_and_error, median};

/// The steps of the table of loss curves, of those in the logs.
const CURVE: [u64; 7] = [50, 100, 150, 200, 250, 300, 400];

/// The tables of speed, weights and losses. `rounds` holds the runs of all ways for each seed, `differences` the differences of
/// the weights of the first seed.
pub(super) fn training(rounds: &[Vec<Trained>], differences: &[f64]) -> String {
    format!(
        "## Training\n\nAll rows train on the same images in the same number of steps, 128 images a step over all \
         processes.\n\n{}\n{}\n{}",
        speed(rounds, Machine::this().cores),
        weights(&rounds[0], differences),
        curves(&rounds[0]),
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
        "### Speed\n\nImages per second, the median of {} runs. Each seed ran all rows once, in this order, before the next seed.\n\n{HEADER} images/s | of one process with 1 thread | of one process with 2 threads |\n\
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

/// For each run the SHA-256 of its weights, and their largest difference to those of the first run.
fn weights(runs: &[Trained], differences: &[f64]) -> String {
    let mut text = format!(
        "### Weights after one epoch, seed 1\n\nThe last column is the largest difference of a weight to the first row, divided by the largest \
         weight. The number of threads changes nothing, and neither does `--mpi` with one process. Processes that add \
         gradients round differently.\n\n{HEADER} training loss | test loss | weights \
         (SHA-256) | difference |\n| --- | ---: | ---: | --- | ---: | --- | --- | ---: |\n"
    );
    for (run, difference) in zip(runs, differences) {
        text += &format!(
            "{} {} | {} | {} | {difference:.1e} |\n",
            cells(run.way),
            cell(run.printed.number("/train_loss").ok().flatten(), 9),
            cell(test_loss(run), 7),
            &run.weights_sha256[..12]
        );
    }
    text
}

/// The loss of test images after the last epoch.
fn test_loss(run: &Trained) -> Option<f64> {
    run.records.iter().rev().find_map(|record| record["test_loss"].as_f64())
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
pub(super) fn quality(rounds: &[Vec<Trained>], distances: &[Vec<Option<f64>>], epochs: u64) -> String {
    let mut text = format!(
        "### Quality at equal images, {} seeds, {epochs} epochs\n\nThe noise of seeds is the standard deviation of the first \
         row. The third column of losses compares runs of the same seed. The Fréchet distance of 2,000 images is divided by \
         that of training images; ± is the standard error.\n\n{HEADER} test loss, each seed | mean | standard deviation | \
         difference to the first row | Fréchet distance, each seed | mean |\n\
         | --- | ---: | ---: | --- | --- | ---: | ---: | ---: | --- | ---: |\n",
        rounds.len()
    );
    let losses =
        |way: usize| -> Vec<f64> { rounds.iter().filter_map(|runs| test_loss(&runs[way])).collect() };
    let list = |values: &[f64], digits: usize| {
        values.iter().map(|value| format!("{value:.digits$}")).collect::<Vec<_>>().join(", ")
    };
    for (index, way) in QUALITY.iter().enumerate() {
        let of_way = losses(index);
        let differences: Vec<f64> = zip(&of_way, losses(0)).map(|(this, first)| this - first).collect();
        let distances: Vec<f64> = distances.iter().filter_map(|of_seed| of_seed[index]).collect();
        let (loss, error) = mean_and_error(&of_way);
        let (difference, difference_error) = mean_and_error(&differences);
        let (distance, distance_error) = mean_and_error(&distances);
        text += &format!(
            "{} {} | {loss:.4} | {:.4} | {difference:+.4} ± {difference_error:.4} | {} | {distance:.2} ± {distance_error:.2} |\n",
            cells(way),
            list(&of_way, 4),
            error * (of_way.len() as f64).sqrt(),
            list(&distances, 2),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{
        super::{difference, tests::trained},
        *,
    };

    fn with_test_loss(mut run: Trained, loss: f64) -> Trained {
        run.records.push(serde_json::json!({ "kind": "epoch", "test_loss": loss }));
        run
    }

    #[test]
    fn tables_have_a_row_for_each_way() {
        let round = |speed: f64| -> Vec<_> {
            let speeds = zip(&WAYS, 1..);
            speeds.map(|(way, factor)| trained(way, "ab", speed * f64::from(factor))).collect()
        };
        let rounds = [round(1000.0), round(500.0), round(800.0)];
        let seeds = [[0.1; 4], [0.2; 4], [0.3; 4]];
        let of_seed = |losses: [f64; 4]| -> Vec<_> {
            zip(&QUALITY, losses).map(|(way, loss)| with_test_loss(trained(way, "ab", 1.0), loss)).collect()
        };
        let quality = quality(&seeds.map(of_seed), &vec![vec![Some(3.0); 4]; 3], 6);
        let text = training(&rounds, &[0.0; WAYS.len()]) + &quality;
        for row in [
            "| one process | 1 | 1 |  | 800 | 1.00 | 0.50 |\n",
            "| data-parallel | 2 | 1 |  | 3200 | 4.00 | 2.00 |\n",
            "| data-parallel | 4 | 1 |  | 0.250000000 | 0.1000000 | abababababab | 0.0e0 |\n",
            "| | processes | threads of each | options | step 50 | step 100 | step 150 | step 200 |\n",
            "| local SGD | 2 | 1 | --sync-every 20 | 0.02000 | 0.01000 | 0.00667 | 0.00500 |\n",
            "| local SGD | 2 | 1 | --sync-every 20 | 0.1000, 0.2000, 0.3000 | 0.2000 | 0.1000 | +0.0000 ± 0.0000 | 3.00, ",
        ] {
            assert!(text.contains(row), "{row}{text}");
        }
        assert!(text.contains("makes one process 2.00 times as fast, so 1600 is what"), "{text}");
        assert_eq!(difference(&[1.0, 3.0], &[1.5, -4.0]), 1.75);
    }
}
