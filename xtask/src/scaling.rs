//! `cargo xtask scaling`: trains with one and several processes, samples in parts, and compares.

mod sample;
mod tables;

use std::fs;
use std::iter::zip;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::builder::RangedU64ValueParser;
use ddpm_files::{sha256_of_file, write_atomic};
use serde_json::Value;

use crate::ddpm::{self, Ddpm};
use crate::phases::{Phases, in_words};
use crate::printed::Printed;
use crate::process;
use crate::provenance::Provenance;
use crate::workspace::Workspace;

/// Train with 1, 2 and 4 processes on this machine in both modes, sample in parts, and write results/scaling.md. Installs Open
/// MPI and libclang from Debian.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// The number of epochs of the trainings whose quality is compared; those whose speed is compared have one.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = RangedU64ValueParser::<u64>::new().range(1..=1000))]
    epochs: u64,
    /// The number of seeds. Each way of training is tried with all of them.
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
}

const fn way(name: &'static str, processes: Option<usize>, threads: usize, options: &'static str) -> Way {
    Way { name, processes, threads, options }
}

/// The ways whose speed and weights are compared. All take the same images in the same steps.
static WAYS: [Way; 9] = [
    way("one process", None, 1, ""),
    way("one process", None, 2, ""),
    way("data-parallel", Some(1), 1, ""),
    way("data-parallel", Some(2), 1, ""),
    way("data-parallel", Some(4), 1, ""),
    way("local SGD", Some(2), 1, "--sync-every 20"),
    way("local SGD", Some(4), 1, "--sync-every 20"),
    way("local SGD", Some(2), 1, "--sync-every 100"),
    way("local SGD", Some(4), 1, "--sync-every 100"),
];

/// The ways whose quality is compared. The last one has the learning rate of the preset times √2, for the two processes.
static QUALITY: [Way; 4] = [
    way("one process", None, 2, ""),
    way("local SGD", Some(2), 1, "--sync-every 20"),
    way("local SGD", Some(2), 1, "--sync-every 100"),
    way("local SGD", Some(2), 1, "--sync-every 100 --set learning_rate=0.0014"),
];

/// A finished training.
struct Trained {
    way: &'static Way,
    /// Its folder, below the root.
    run: String,
    printed: Printed,
    /// The lines of the log of the run.
    records: Vec<Value>,
    weights_sha256: String,
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
    // A round of all ways for each seed, so that a slow minute of the machine does not hit all runs of one way.
    let mut rounds_of = |name: &str, ways: &'static [Way], epochs: u64| -> Result<Vec<Vec<Trained>>> {
        let round = |seed| {
            phases.run(&format!("{name}, seed {seed}"), || {
                let ways = ways.iter().enumerate();
                ways.map(|(index, way)| {
                    let run = format!("{FOLDER}/{name}-{index}-{seed}");
                    train(way, epochs, seed, &run, root, &binary)
                })
                .collect()
            })
        };
        (SEED..SEED + arguments.seeds).map(round).collect()
    };
    let rounds = rounds_of("speed", &WAYS, 1)?;
    rounds.iter().try_for_each(|runs| check_digests(runs))?;
    let quality = rounds_of("quality", &QUALITY, arguments.epochs)?;
    let distances = phases.run("Fréchet distances", || {
        let round = |(seed, runs): (u64, &Vec<Trained>)| {
            runs.iter().map(|trained| frechet(&trained.run, seed, root, &binary)).collect()
        };
        zip(SEED.., &quality).map(round).collect::<Result<Vec<Vec<_>>>>()
    })?;
    // The weights of all runs would take much memory, and only those of the first round are compared.
    let read = |trained: &Trained| weights(&root.join(&trained.run).join(WEIGHTS));
    let first = read(&rounds[0][0])?;
    let differences = rounds[0].iter().map(|trained| Ok(difference(&read(trained)?, &first)));
    let differences = differences.collect::<Result<Vec<_>>>()?;
    let shards = phases.run("sampling", || sample::table(arguments.num_images, root, &binary))?;

    let seconds = phases.total_seconds();
    let text = format!(
        "# Several processes\n\n{}\n\n{}\n{}\n{shards}",
        provenance.markdown(seconds),
        tables::training(&rounds, &differences),
        tables::quality(&quality, &distances, arguments.epochs)
    );
    write_atomic(&root.join("results/scaling.md"), text.as_bytes())?;
    process::print(&format!("{text}\nDone in {}: results/scaling.md", in_words(seconds)))
}

fn train(
    way: &'static Way,
    epochs: u64,
    seed: u64,
    run: &str,
    root: &Path,
    binary: &Path,
) -> Result<Trained> {
    let line = format!(
        "train --preset quick --epochs {epochs} --threads {} {} --out-dir {run} --quiet",
        way.threads, way.options
    );
    let ddpm = Ddpm { binary, root, seed, threads: None };
    let printed = match way.processes {
        None => ddpm.call(&line, &[])?,
        Some(processes) => {
            let mut command = mpirun(processes);
            command.current_dir(root).arg(binary).args(line.split_whitespace());
            command.args(["--mpi", "--json", "--seed", &seed.to_string()]);
            ddpm::printed(&mut command)?
        }
    };
    let log = root.join(run).join("metrics.jsonl");
    let text = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    Ok(Trained {
        way,
        printed,
        records: text.lines().map(serde_json::from_str).collect::<serde_json::Result<_>>()?,
        weights_sha256: sha256_of_file(&root.join(run).join(WEIGHTS))?,
        run: run.to_owned(),
    })
}

/// The Fréchet distance to test images, divided by the distance of training images; `None` if it is not finite.
fn frechet(run: &str, seed: u64, root: &Path, binary: &Path) -> Result<Option<f64>> {
    let ddpm = Ddpm { binary, root, seed, threads: None };
    let options = "--metrics frechet --num-images 2000 --quiet";
    ddpm.call(&format!("eval --model {run}/model {options}"), &[])?.number("/frechet/ratio")
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
    let difference = zip(a, b).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs()));
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A run with two epochs of 100 steps.
    pub(super) fn trained(way: &'static Way, digest: &str, images_per_second: f64) -> Trained {
        let output = json!({ "images_per_second": images_per_second, "train_loss": 0.25 });
        let train = |step: u64| json!({ "kind": "train", "step": step, "loss": 1.0 / step as f64 });
        let epoch = |loss| json!({ "kind": "epoch", "step": 100, "train_loss": 0.5, "test_loss": loss });
        Trained {
            way,
            run: "run".to_owned(),
            printed: Printed { command: way.name.to_owned(), output },
            records: vec![train(50), train(100), epoch(0.2), train(150), train(200), epoch(0.1)],
            weights_sha256: digest.repeat(32),
        }
    }

    #[test]
    fn processes_that_are_alone_must_have_equal_weights() {
        let mut runs: Vec<_> = WAYS.iter().map(|way| trained(way, "ab", 2000.0)).collect();
        check_digests(&runs).unwrap();
        runs[3].weights_sha256 = "cd".repeat(32);
        check_digests(&runs).unwrap();
        runs[2].weights_sha256 = "cd".repeat(32);
        assert!(check_digests(&runs).unwrap_err().to_string().contains("other weights"));
    }
}
