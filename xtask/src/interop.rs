//! `cargo xtask interop`: checks the files of this project against other programs that read and write them.
//!
//! The programs are scripts in `interop/python`. A check that succeeds prints a line `interop | CHECK | MEASURE | RESULT`, a
//! row of the table; one that fails ends the job.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::builder::RangedU64ValueParser;
use ddpm_files::write_atomic;

use crate::ddpm::Ddpm;
use crate::phases::{Phases, in_words};
use crate::printed::{cell, mean_and_error, percent};
use crate::process;
use crate::provenance::Provenance;
use crate::python::Environment;
use crate::rows::{self, Row, printed_rows};
use crate::workspace::Workspace;

/// Check the files of this project against PyTorch, diffusers, TensorBoard, NumPy, safetensors and Pillow, and write
/// results/interop.md.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// The number of images that each sampler draws with each seed.
    #[arg(long, value_name = "N", default_value_t = 2000,
        value_parser = RangedU64ValueParser::<usize>::new().range(200..))]
    images: usize,
    /// The Python interpreter, with the packages of interop/python/requirements.txt [default: a virtual environment in
    /// runs/interop-venv, which the first call creates]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
}

/// The folder of the runs and the files, below the root.
const FOLDER: &str = "runs/interop";
/// The model folder that is compiled into the program.
const BUILT_IN: &str = "crates/ddpm-cli/assets/models/mnist";
/// The seed of the trainings, and the first one of the samples.
const SEED: u64 = 1;
/// The number of seeds with which each sampler draws.
const SEEDS: u64 = 5;

/// The built program, and Python with the packages.
struct Interop<'a> {
    workspace: &'a Workspace,
    binary: &'a Path,
    python: &'a Path,
}

/// Runs all checks, and writes the table if none has failed.
pub(crate) fn run(arguments: &Arguments, workspace: &Workspace) -> Result<()> {
    let provenance = Provenance::of_this_process(workspace, SEED);
    let mut phases = Phases::start();
    let root = workspace.root();
    let binary = phases.run("build", || workspace.build_cli(&["hub"]))?;
    let environment =
        Environment { root, requirements: "interop/python/requirements.txt", folder: "runs/interop-venv" };
    let python = phases.run("Python", || environment.interpreter(arguments.python.as_deref()))?;
    let folder = root.join(FOLDER);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let interop = Interop { workspace, binary: &binary, python: &python };
    let versions = interop.print("versions", &[])?;
    let mut rows = phases.run("networks in PyTorch", || interop.networks())?;
    rows.extend(phases.run("a model of PyTorch", || interop.model_of_pytorch())?);
    rows.extend(phases.run("samples of diffusers", || interop.samples(arguments.images))?);
    rows.extend(phases.run("TensorBoard", || interop.rows("events", &[&format!("{FOLDER}/plain")]))?);
    rows.extend(phases.run("exports and imports", || interop.files())?);

    let seconds = phases.total_seconds();
    let text = format!(
        "# Other programs\n\n{}\n- {versions}\n\nEvery row is a check that succeeded; if one fails, there is no table. \
         [docs/python.md](../docs/python.md) shows how to use each of them.\n\n{}",
        provenance.markdown(seconds),
        rows::markdown("check", &rows)
    );
    write_atomic(&root.join("results/interop.md"), text.as_bytes())?;
    process::print(&format!("{text}\nDone in {}: results/interop.md", in_words(seconds)))
}

impl Interop<'_> {
    fn ddpm(&self, seed: u64) -> Ddpm<'_> {
        Ddpm { binary: self.binary, root: self.workspace.root(), seed, threads: None }
    }

    /// Runs a script of `interop/python` and returns what it prints.
    fn print(&self, script: &str, words: &[&str]) -> Result<String> {
        let mut command = Command::new(self.python);
        command.current_dir(self.workspace.root()).arg(format!("interop/python/{script}.py")).args(words);
        process::say(&format!("$ {}", process::show(&command)));
        // All files are on this machine.
        process::run_for_stdout(command.env("HF_HUB_OFFLINE", "1")).map(|text| text.trim().to_owned())
    }

    /// Runs a script and returns its rows, at least one.
    fn rows(&self, script: &str, words: &[&str]) -> Result<Vec<Row>> {
        let text = self.print(script, words)?;
        let rows = printed_rows("interop", &text);
        ensure!(!rows.is_empty(), "{script}.py printed no line `interop | …`, but: {text}");
        Ok(rows)
    }

    /// Compares the networks of model folders with those in plain PyTorch.
    fn compare(&self, models: &[&str]) -> Result<Vec<Row>> {
        let mut words = Vec::new();
        for model in models {
            let outputs = format!("{FOLDER}/outputs-{}.safetensors", model.replace('/', "-"));
            let example = "run --release --locked --quiet -p ddpm-model --example outputs --";
            let mut cargo = self.workspace.cargo();
            process::run(cargo.args(example.split(' ')).args([model, outputs.as_str()]))?;
            words.extend([(*model).to_owned(), outputs]);
        }
        self.rows("check", &words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Trains a network of each architecture, and compares them and the built-in one.
    fn networks(&self) -> Result<Vec<Row>> {
        let mut models = vec![BUILT_IN.to_owned()];
        // The first run has several epochs for TensorBoard.
        for (network, epochs) in [("plain", 3), ("mlp", 1), ("patch-mlp", 1)] {
            let run = format!("{FOLDER}/{network}");
            let options = format!("--preset quick --network {network} --epochs {epochs} -o {run} -q");
            self.ddpm(SEED).call(&format!("train {options}"), &[])?;
            models.push(format!("{run}/model"));
        }
        self.compare(&models.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Trains and saves a model in PyTorch, and loads it.
    fn model_of_pytorch(&self) -> Result<Vec<Row>> {
        let (data, model) = (format!("{FOLDER}/train.npz"), format!("{FOLDER}/pytorch"));
        self.ddpm(SEED).call(&format!("export --split train --to npz -o {data}"), &[])?;
        let mut rows = self.rows("train", &[BUILT_IN, &data, "300", &model])?;
        let [found, built_in] = [model.as_str(), BUILT_IN].map(|model| {
            let info = self.ddpm(SEED).call(&format!("info --model {model}"), &[])?;
            info.number("/parameters").map(|parameters| (info.command, parameters))
        });
        let ((command, parameters), (_, expected)) = (found?, built_in?);
        ensure!(parameters == expected, "{model} has {parameters:?} parameters, expected {expected:?}");
        let result = format!("{} parameters, as in the built-in model", cell(parameters, 0));
        rows.push(Row { claim: "it is loaded here".to_owned(), measure: format!("`{command}`"), result });
        rows.extend(self.compare(&[&model])?);
        Ok(rows)
    }

    /// Draws images with diffusers and with `--sampler ddpm`, and compares their quality.
    fn samples(&self, count: usize) -> Result<Vec<Row>> {
        let [mut diffusers, mut ours] = [Measured::default(), Measured::default()];
        for seed in SEED..SEED + SEEDS {
            let file = format!("{FOLDER}/diffusers-{seed}.npz");
            self.print("sample", &[BUILT_IN, &count.to_string(), &seed.to_string(), &file])?;
            let options = "--metrics frechet,accuracy -q";
            diffusers.add(self.ddpm(seed), &format!("eval --images {file} {options}"))?;
            let sampling = format!("--sampler ddpm --guidance-scale 1 --guide-scale 1 -n {count}");
            ours.add(self.ddpm(seed), &format!("eval --model {BUILT_IN} {sampling} {options}"))?;
        }
        let row = |claim: &str, theirs: &[f64], ours: &[f64], show: fn(f64) -> String| {
            let t = welch(theirs, ours);
            ensure!(t.abs() <= T_LIMIT, "{claim}: {theirs:?} of diffusers and {ours:?} differ, t = {t:.1}");
            let list = |values: &[f64]| values.iter().copied().map(show).collect::<Vec<_>>().join(", ");
            Ok(Row {
                claim: claim.to_owned(),
                measure: format!("{count} images of the built-in model without guidance, seeds 1 to {SEEDS}"),
                result: format!(
                    "diffusers {}; `--sampler ddpm` {}; difference of the means {t:.1} standard errors",
                    list(theirs),
                    list(ours)
                ),
            })
        };
        Ok(vec![
            row(
                "`DDPMScheduler` of diffusers: Fréchet distance",
                &diffusers.frechet,
                &ours.frechet,
                |value| cell(Some(value), 2),
            )?,
            row("and class accuracy", &diffusers.accuracy, &ours.accuracy, |value| percent(Some(value), 1))?,
        ])
    }

    /// Exports the test images in each format, reads them with Python, and imports what Python writes.
    fn files(&self) -> Result<Vec<Row>> {
        let folder = format!("{FOLDER}/files");
        let (call, out) =
            (|line: &str| self.ddpm(SEED).call(line, &[]), |name: &str| format!("{folder}/{name}"));
        for (format, name) in [
            ("idx", "test"),
            ("npz", "test.npz"),
            ("safetensors", "test.safetensors"),
            ("png-folder", "pngs"),
        ] {
            call(&format!("export --split test --to {format} -o {} -q", out(name)))?;
        }
        call(&format!("sample -o {} -q", out("sample.png")))?;
        let mut rows = self.rows("exports", &[&folder, &out("sample.png")])?;
        for index in 0..3 {
            let part = format!("--shard-index {index} --shards 3 -o {}", out(&format!("parts/{index}")));
            call(&format!("sample -n 2000 --format idx {part} -q"))?;
        }
        let (parts, parquet, whole) = (out("parts"), out("merged.parquet"), out("merged"));
        for merged in [format!("-o {parquet}"), format!("--format idx -o {whole}")] {
            call(&format!("merge {parts} {merged} -q"))?;
        }
        rows.extend(self.rows("merged", &[&parquet, &whole])?);
        let import = call(&format!("import {} -o {} -q", out("python.npz"), out("imported")))?;
        for content in ["images-idx3-ubyte", "labels-idx1-ubyte"] {
            let read = |path: String| {
                let path = self.workspace.root().join(path);
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
            };
            let [found, expected] =
                [format!("imported/train-{content}"), format!("test-{content}")].map(|name| read(out(&name)));
            ensure!(found? == expected?, "`{}` wrote other {content}", import.command);
        }
        rows.push(Row {
            claim: "arrays of NumPy imported".to_owned(),
            measure: format!("`{}`; float32 from −1 to 1, with labels, compressed", import.command),
            result: "the bytes of the IDX files".to_owned(),
        });
        Ok(rows)
    }
}

/// The quality of the images of a sampler, by seed.
#[derive(Default)]
struct Measured {
    frechet: Vec<f64>,
    accuracy: Vec<f64>,
}

impl Measured {
    fn add(&mut self, ddpm: Ddpm<'_>, line: &str) -> Result<()> {
        let report = ddpm.call(line, &[])?;
        let number = |pointer| report.number(pointer)?.with_context(|| format!("no {pointer}"));
        self.frechet.push(number("/frechet/distance")?);
        self.accuracy.push(number("/class_accuracy")?);
        Ok(())
    }
}

/// The largest t of [`welch`] for two sets of five numbers: a larger one has a probability of 0.001 for equal means, with
/// eight degrees of freedom.
const T_LIMIT: f64 = 5.04;

/// The difference of two means in standard errors of it (Welch's t).
fn welch(one: &[f64], other: &[f64]) -> f64 {
    let ((mean, error), (other_mean, other_error)) = (mean_and_error(one), mean_and_error(other));
    (mean - other_mean) / error.hypot(other_error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::parse;

    /// Student's sleep data: R's `t.test(extra ~ group, sleep)` gives t = −1.8608.
    #[test]
    fn the_difference_of_means_is_welchs_t() {
        let one = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0];
        let other = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4];
        assert!((welch(&one, &other) + 1.8608).abs() < 5e-5);
        assert!(welch(&other, &one) > 0.0);
    }

    #[test]
    fn few_images_are_refused() {
        assert_eq!(parse::<Arguments>(&[]).unwrap().images, 2000);
        assert!(parse::<Arguments>(&["--images", "100"]).is_err());
    }
}
