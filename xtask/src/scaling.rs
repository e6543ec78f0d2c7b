//! `cargo xtask scaling`: trains with one and several processes, samples in parts, and compares.

mod sample;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::builder::RangedU64ValueParser;
use ddpm_files::{sha256_of_file, write_atomic};
use serde_json::Value;

use crate::ddpm::Ddpm;
use crate::phases::{Phases, in_words};
use crate::printed::{Printed, cell, mean_and_error};
use crate::process;
use crate::provenance::Provenance;
use crate::workspace::Workspace;

/// Train with 1, 2 and 4 processes on this machine in both modes, sample in parts, and write results/scaling.md. Installs Open
/// MPI and libclang from Debian.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// The number of epochs of each training.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = RangedU64ValueParser::<u64>::new().range(1..=1000))]
    epochs: u64,
    /// The number of seeds of the trainings whose quality is compared.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = RangedU64ValueParser::<u64>::new().range(2..=100))]
    seeds: u64,
    /// The number of images that are sampled.
    #[arg(short, long, value_name = "N", default_value_t = 2000, value_parser = RangedU64ValueParser::<usize>::new().range(8..))]
    num_images: usize,
    /// Install nothing: Open MPI and libclang are already there.
    #[arg(long)]
    installed: bool,
}

/// The folder of the runs, below the root.
const FOLDER: &str = "runs/scaling";
const SEED: u64 = 1;
/// The weights in a run folder.
const WEIGHTS: &str = "model/denoiser/diffusion_pytorch_model.safetensors";

/// A way of training: processes (`None` without MPI), threads of each, and options.
struct Way {
    name: &'static str,
    processes: Option<usize>,
    threads: usize,
    options: &'static str,
    /// Whether it is trained with all seeds.
    has_seeds: bool,
}

const fn way(
    name: &'static str,
    processes: Option<usize>,
    threads: usize,
    options: &'static str,
    has_seeds: bool,
) -> Way {
    Way { name, processes, threads, options, has_seeds }
}

/// The ways. All take the same images in the same steps.
static WAYS: [Way; 9] = [
    way("one process, 1 thread", None, 1, "", false),
    way("one process, 2 threads", None, 2, "", true),
    way("data-parallel", Some(1), 1, "", false),
    way("data-parallel", Some(2), 1, "", false),
    way("data-parallel", Some(4), 1, "", false),
    way("local SGD", Some(2), 1, "--sync-every 20", false),
    way("local SGD", Some(4), 1, "--sync-every 20", true),
    way("local SGD", Some(2), 1, "--sync-every 100", false),
    way("local SGD", Some(4), 1, "--sync-every 100", true),
];

/// A finished training.
struct Trained {
    way: &'static Way,
    printed: Printed,
    /// The loss of test images after each epoch.
    test_losses: Vec<f64>,
    weights_sha256: String,
    weights: Vec<f32>,
    /// The Fréchet distance to test images, divided by the distance of training images; `None` if it was not measured.
    frechet: Option<f64>,
}

/// Runs everything, and writes the table if all digests are as they should be.
pub(crate) fn run(arguments: &Arguments, workspace: &Workspace) -> Result<()> {
    let provenance = Provenance::of_this_process(workspace, SEED);
    let mut phases = Phases::start();
    let root = workspace.root();
    if !arguments.installed {
        process::run(&mut Command::new(root.join(".ci/install-mpi")))?;
    }
    let binary = phases.run("build", || workspace.build_cli(&["mpi"]))?;
    let folder = root.join(FOLDER);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut runs: BTreeMap<u64, Vec<Trained>> = BTreeMap::new();
    for seed in SEED..SEED + arguments.seeds {
        let ways = WAYS.iter().enumerate().filter(|(_, way)| seed == SEED || way.has_seeds);
        let trained = phases.run(&format!("training, seed {seed}"), || {
            ways.map(|(index, way)| train(index, way, arguments, seed, root, &binary))
                .collect::<Result<Vec<_>>>()
        })?;
        runs.insert(seed, trained);
    }
    check_digests(&runs[&SEED])?;
    let shards = phases.run("sampling", || sample::table(arguments.num_images, root, &binary))?;

    let seconds = phases.total_seconds();
    let text = format!(
        "# Several processes\n\n{}\n\n{}\n{}\n{}",
        provenance.markdown(seconds),
        speed_table(&runs[&SEED]),
        quality_table(&runs),
        shards
    );
    write_atomic(&root.join("results/scaling.md"), text.as_bytes())?;
    process::print(&format!("{text}\nDone in {}: results/scaling.md", in_words(seconds)))
}

fn train(
    index: usize,
    way: &'static Way,
    arguments: &Arguments,
    seed: u64,
    root: &Path,
    binary: &Path,
) -> Result<Trained> {
    let run = format!("{FOLDER}/{index}-{seed}");
    let line = format!(
        "train --preset quick --epochs {} --threads {} {} --out-dir {run} --quiet",
        arguments.epochs, way.threads, way.options
    );
    let ddpm = Ddpm { binary, root, seed, threads: None };
    let printed = match way.processes {
        None => ddpm.call(&line, &[])?,
        Some(processes) => {
            let mut command = mpirun(processes);
            command.current_dir(root).arg(binary).args(line.split_whitespace());
            command.args(["--mpi", "--json", "--seed", &seed.to_string()]);
            let shown = process::show(&command);
            process::say(&format!("$ {shown}"));
            Printed::parse(shown, &process::run_for_stdout(&mut command)?)?
        }
    };
    let frechet = way.has_seeds.then(|| {
        let options = "--metrics frechet --num-images 2000 --quiet";
        ddpm.call(&format!("eval --model {run}/model {options}"), &[])?.number("/frechet/ratio")
    });
    let log = root.join(&run).join("metrics.jsonl");
    let text = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let lines = text.lines().map(serde_json::from_str::<Value>).collect::<serde_json::Result<Vec<_>>>()?;
    Ok(Trained {
        way,
        printed,
        test_losses: lines.iter().filter_map(|line| line["test_loss"].as_f64()).collect(),
        weights_sha256: sha256_of_file(&root.join(&run).join(WEIGHTS))?,
        weights: weights(&root.join(&run).join(WEIGHTS))?,
        frechet: frechet.transpose()?.flatten(),
    })
}

/// All numbers of a safetensors file of f32 tensors, in the order of the file.
fn weights(file: &Path) -> Result<Vec<f32>> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let (length, rest) = bytes.split_first_chunk().context("the file of weights has no header")?;
    let data = rest.get(usize::try_from(u64::from_le_bytes(*length))?..).context("the header is cut off")?;
    Ok(data.as_chunks().0.iter().copied().map(f32::from_le_bytes).collect())
}

/// The largest difference of two lists of weights, divided by the largest weight.
fn difference(a: &[f32], b: &[f32]) -> f64 {
    let largest = b.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let difference = a.iter().zip(b).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs()));
    f64::from(difference) / f64::from(largest)
}

/// The launcher, for this number of processes on this machine.
fn mpirun(processes: usize) -> Command {
    let mut command = Command::new("mpirun");
    command.args(["--bind-to", "none", "--oversubscribe", "-n", &processes.to_string()]);
    // A container's user is often root, which Open MPI warns of.
    command.envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")]);
    command
}

/// Weights do not depend on threads, and one process that adds gradients alone has those of a process without MPI.
fn check_digests(runs: &[Trained]) -> Result<()> {
    let alone: Vec<_> = runs.iter().filter(|run| run.way.processes.is_none_or(|count| count == 1)).collect();
    for run in &alone {
        ensure!(
            run.weights_sha256 == alone[0].weights_sha256,
            "`{}` and `{}` have other weights",
            run.printed.command,
            alone[0].printed.command
        );
    }
    Ok(())
}

/// A table of speed, losses and digests.
fn speed_table(runs: &[Trained]) -> String {
    let speed = |run: &Trained| run.printed.number("/images_per_second").ok().flatten();
    let first = speed(&runs[0]);
    let loss = |run: &Trained| run.printed.number("/train_loss").ok().flatten();
    let mut text = "## Training\n\nAll rows train on the same images in the same number of steps, 128 images a step over all \
        processes. Those of local SGD show the training loss of process 0. The machine has the cores that are named above, \
        so more processes than cores are slower.\n\n| | processes | options | images/s | of the first row | training loss of \
        the last epoch | test loss after each epoch | weights (SHA-256) | largest difference of a weight to the first row, \
        divided by the largest weight |\n| --- | ---: | --- | ---: | ---: | ---: | --- | --- | ---: |\n"
        .to_owned();
    for run in runs {
        let ratio = speed(run).zip(first).map(|(this, first)| this / first);
        let losses: Vec<String> = run.test_losses.iter().map(|loss| format!("{loss:.7}")).collect();
        text += &format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {:.1e} |\n",
            run.way.name,
            run.way.processes.unwrap_or(1),
            run.way.options,
            cell(speed(run), 0),
            cell(ratio, 2),
            cell(loss(run), 9),
            losses.join(", "),
            &run.weights_sha256[..12],
            difference(&run.weights, &runs[0].weights)
        );
    }
    text
}

/// A table of the quality of each way over the seeds.
fn quality_table(runs: &BTreeMap<u64, Vec<Trained>>) -> String {
    let mut text = format!(
        "## Quality at equal images, {} seeds\n\nThe Fréchet distance of 2,000 images is divided by that of training \
         images.\n\n| | processes | options | test loss, each seed | mean ± standard error | Fréchet distance, each seed | mean \
         ± standard error |\n| --- | ---: | --- | --- | ---: | --- | ---: |\n",
        runs.len()
    );
    for way in WAYS.iter().filter(|way| way.has_seeds) {
        let of_way = || runs.values().flatten().filter(|run| std::ptr::eq(run.way, way));
        let losses: Vec<f64> = of_way().filter_map(|run| run.test_losses.last().copied()).collect();
        let distances: Vec<f64> = of_way().filter_map(|run| run.frechet).collect();
        let list = |values: &[f64], digits: usize| {
            values.iter().map(|value| format!("{value:.digits$}")).collect::<Vec<_>>().join(", ")
        };
        let (loss, loss_error) = mean_and_error(&losses);
        let (distance, distance_error) = mean_and_error(&distances);
        text += &format!(
            "| {} | {} | {} | {} | {loss:.4} ± {loss_error:.4} | {} | {distance:.2} ± {distance_error:.2} |\n",
            way.name,
            way.processes.unwrap_or(1),
            way.options,
            list(&losses, 4),
            list(&distances, 2),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trained(way: &'static Way, digest: &str) -> Trained {
        let output = serde_json::json!({ "images_per_second": 2000.0, "train_loss": 0.25 });
        Trained {
            way,
            printed: Printed { command: way.name.to_owned(), output },
            test_losses: vec![0.2, 0.1],
            weights_sha256: digest.repeat(32),
            weights: vec![0.5, -2.0],
            frechet: way.has_seeds.then_some(3.0),
        }
    }

    #[test]
    fn processes_that_are_alone_must_have_equal_weights() {
        let mut runs: Vec<_> = WAYS.iter().map(|way| trained(way, "ab")).collect();
        check_digests(&runs).unwrap();
        runs[3].weights_sha256 = "cd".repeat(32);
        check_digests(&runs).unwrap();
        runs[2].weights_sha256 = "cd".repeat(32);
        assert!(check_digests(&runs).unwrap_err().to_string().contains("other weights"));
    }

    #[test]
    fn tables_have_a_row_for_each_way() {
        let runs: Vec<_> = WAYS.iter().map(|way| trained(way, "ab")).collect();
        let text = speed_table(&runs);
        assert!(text.contains(
            "| data-parallel | 4 |  | 2000 | 1.00 | 0.250000000 | 0.2000000, 0.1000000 | abababababab | 0.0e0 |"
        ));
        let seeded: Vec<_> = WAYS.iter().filter(|way| way.has_seeds).map(|way| trained(way, "ab")).collect();
        let text = quality_table(&BTreeMap::from([(1, runs), (2, seeded)]));
        assert!(
            text.contains("| local SGD | 4 | --sync-every 20 | 0.1000, 0.1000 | 0.1000 ± 0.0000 |"),
            "{text}"
        );
        assert_eq!(difference(&[1.0, 3.0], &[1.5, -4.0]), 1.75);
    }
}
