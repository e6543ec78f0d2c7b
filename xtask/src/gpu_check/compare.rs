//! Comparisons of two devices: the same commands on both, and how far their results may differ.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::images::difference;
use crate::ddpm::Ddpm;
use crate::printed::Printed;
use crate::workspace::Workspace;

/// Every sampler of `ddpm-cli sample`.
pub(super) const SAMPLERS: [&str; 9] =
    ["ddpm", "ddim", "dpmpp-2m", "dpmpp-2m-sde", "euler", "euler-ancestral", "heun", "unipc", "repaint"];

/// The device, a CPU as reference, and the sizes of the comparisons.
#[derive(Debug, Clone, Copy)]
pub(super) struct Devices<'a> {
    pub(super) workspace: &'a Workspace,
    pub(super) binary: &'a Path,
    /// The value of --device.
    pub(super) device: &'a str,
    pub(super) data: &'a str,
    /// The folder for files, below the root.
    pub(super) folder: &'a str,
    /// The numbers of images: of each sampler, of a Fréchet distance, of the likelihood.
    pub(super) sampled: usize,
    pub(super) measured: usize,
    pub(super) test_images: usize,
    pub(super) batch_size: usize,
}

/// The same quantity on both devices.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Compared {
    pub(super) quantity: String,
    /// The command on the device.
    pub(super) command: String,
    pub(super) cpu: f64,
    pub(super) gpu: f64,
    pub(super) tolerance: Tolerance,
}

/// The largest absolute difference of two results, and why it is not smaller.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tolerance {
    pub(super) limit: f64,
    /// Whether the limit is a share of the result on the CPU.
    pub(super) kind: Kind,
    pub(super) reason: &'static str,
}

/// How the limit of a tolerance is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Absolute,
    Relative,
}

impl Tolerance {
    const fn absolute(limit: f64, reason: &'static str) -> Self {
        Self { limit, kind: Kind::Absolute, reason }
    }

    const fn relative(limit: f64, reason: &'static str) -> Self {
        Self { limit, kind: Kind::Relative, reason }
    }

    pub(super) fn show(&self) -> String {
        match self.kind {
            Kind::Absolute => format!("{}", self.limit),
            Kind::Relative => format!("{} %", self.limit * 100.0),
        }
    }
}

/// The test `kernels_and_tensors_sample_the_same_images` allows two engines on a CPU as much.
const IMAGES: Tolerance = Tolerance::absolute(
    0.1,
    "sums in another order; a single other digit among fifty would be 0.5 grey levels",
);
const LOSS: Tolerance = Tolerance::relative(
    0.01,
    "each step carries the rounding errors of the steps before it; the noise is the same",
);
const BITS: Tolerance =
    Tolerance::absolute(0.001, "sums in another order; tables show three digits after the point");
const FEATURES: Tolerance =
    Tolerance::relative(0.005, "sums in another order; the distance is a small difference of large traces");
const ACCURACY: Tolerance = Tolerance::absolute(0.001, "an image between two classes may change sides");
const TRAINED: Tolerance = Tolerance::absolute(
    0.02,
    "two nets, since rounding errors grow in training, measured on images of the test set",
);
const HALF_FRECHET: Tolerance =
    Tolerance::relative(0.03, "half precision moves images by less than a grey level, other seeds by more");
const HALF_ACCURACY: Tolerance =
    Tolerance::absolute(0.005, "half precision; an image between two classes may change sides");

impl Compared {
    fn difference(&self) -> f64 {
        (self.gpu - self.cpu).abs()
    }

    fn limit(&self) -> f64 {
        match self.tolerance.kind {
            Kind::Absolute => self.tolerance.limit,
            Kind::Relative => self.tolerance.limit * self.cpu.abs(),
        }
    }

    /// Fails if the results differ by more than the tolerance, or one of them is NaN.
    pub(super) fn check(&self) -> Result<()> {
        let Self { quantity, command, cpu, gpu, tolerance } = self;
        ensure!(
            self.difference() <= self.limit(),
            "{quantity}: {gpu} on the GPU and {cpu} on the CPU differ by {}, expected at most {} ({}); the command is \
             `{command}`",
            self.difference(),
            self.limit(),
            tolerance.reason
        );
        Ok(())
    }

    /// A row of the table.
    pub(super) fn row(&self) -> String {
        let Self { quantity, command, cpu, gpu, tolerance } = self;
        let Tolerance { reason, .. } = tolerance;
        format!(
            "| {quantity} | `{command}` | {cpu:.5} | {gpu:.5} | {:.2e} | {}: {reason} |\n",
            self.difference(),
            tolerance.show()
        )
    }
}

/// The comparisons as a Markdown table.
pub(super) fn markdown(compared: &[Compared]) -> String {
    let rows: String = compared.iter().map(Compared::row).collect();
    format!(
        "| quantity | command | CPU | GPU | difference | tolerance |\n| --- | --- | ---: | ---: | ---: | --- |\n{rows}"
    )
}

impl Devices<'_> {
    fn call(&self, line: &str, device: &str) -> Result<Printed> {
        let root = self.workspace.root();
        let ddpm = Ddpm { binary: self.binary, root, seed: 1, threads: None };
        ddpm.call(&format!("{line} --device {device} --quiet"), &[])
    }

    /// The numbers at pointers in what a command prints, on the device and on a CPU.
    fn numbers(&self, line: &str, pointers: &[(&str, &str, Tolerance)]) -> Result<Vec<Compared>> {
        let (gpu, cpu) = (self.call(line, self.device)?, self.call(line, "cpu")?);
        let compared = pointers.iter().map(|&(quantity, pointer, tolerance)| {
            let number = |printed: &Printed| {
                let number = printed.number(pointer)?;
                number.with_context(|| format!("`{}` printed null at {pointer}", printed.command))
            };
            let (quantity, command) = (quantity.to_owned(), gpu.command.clone());
            Ok(Compared { quantity, command, cpu: number(&cpu)?, gpu: number(&gpu)?, tolerance })
        });
        compared.collect()
    }

    /// The images of every sampler. The reference of their difference is 0.
    pub(super) fn samplers(&self) -> Result<Vec<Compared>> {
        let compared = SAMPLERS.iter().map(|sampler| {
            let sample = |device: &str| {
                let out = format!("{}/{sampler}-{}", self.folder, device.replace(':', "-"));
                let printed = self.call(
                    &format!("sample --sampler {sampler} -n {} --format idx --out {out}-on", self.sampled),
                    device,
                )?;
                Ok::<_, anyhow::Error>((
                    printed.command,
                    self.workspace.root().join(out + "-on-images-idx3-ubyte"),
                ))
            };
            let (_, cpu) = sample("cpu")?;
            let expected = cpu.with_file_name(format!("{sampler}-expected"));
            // Both may be the same device.
            fs::rename(&cpu, &expected).with_context(|| format!("cannot rename {}", cpu.display()))?;
            let (command, found) = sample(self.device)?;
            let gpu = difference(&expected, &found)?;
            let quantity = format!("`{sampler}`: mean difference of the images, grey levels");
            Ok(Compared { quantity, command, cpu: 0.0, gpu, tolerance: IMAGES })
        });
        compared.collect()
    }

    /// The losses of an epoch of training in the lines of its log, and on test images.
    pub(super) fn training(&self) -> Result<Vec<Compared>> {
        let train = |device: &str| {
            let out = format!("{}/train-{}", self.folder, device.replace(':', "-"));
            let line = format!(
                "train --preset quick --data {} --epochs 1 --batch-size {} --overwrite --out-dir {out}",
                self.data, self.batch_size
            );
            let printed = self.call(&line, device)?;
            let losses = losses(&self.workspace.root().join(out).join("metrics.jsonl"))?;
            Ok::<_, anyhow::Error>((printed.command, losses))
        };
        let ((_, cpu), (command, gpu)) = (train("cpu")?, train(self.device)?);
        ensure!(cpu.len() == gpu.len(), "the logs have {} and {} losses", cpu.len(), gpu.len());
        let compared = std::iter::zip(cpu, gpu).map(|((quantity, cpu), (_, gpu))| Compared {
            quantity,
            command: command.clone(),
            cpu,
            gpu,
            tolerance: LOSS,
        });
        Ok(compared.collect())
    }

    /// The variational bound of test images.
    pub(super) fn likelihood(&self) -> Result<Vec<Compared>> {
        let line = format!("likelihood --data {} --num-images {}", self.data, self.test_images);
        self.numbers(&line, &[("the variational bound, bits per dimension", BOUND, BITS)])
    }

    /// The feature net: its features of the same images, and its training.
    pub(super) fn features(&self) -> Result<Vec<Compared>> {
        let (out, net) = (format!("{}/features", self.folder), format!("{}/net", self.folder));
        let line = format!("train-features --data {} --epochs 1 --out-dir {net}", self.data);
        let mut compared =
            self.numbers(&line, &[("accuracy of a feature net after an epoch", "/accuracy", TRAINED)])?;
        self.call(&format!("sample -n {} --format idx --out {out}", self.measured), "cpu")?;
        let images = format!("{out}-images-idx3-ubyte");
        let line = format!(
            "eval --images {images} --data {} --features {net} --metrics frechet,accuracy",
            self.data
        );
        compared.extend(self.numbers(
            &line,
            &[
                ("Fréchet distance of the same images", "/frechet/distance", FEATURES),
                ("class accuracy of the same images", "/class_accuracy", ACCURACY),
            ],
        )?);
        Ok(compared)
    }

    /// The quality of images in half precision on the device, beside those in f32 on a CPU.
    pub(super) fn half_precision(&self) -> Result<Vec<Compared>> {
        // With the feature net of `features`.
        let line = format!(
            "eval --data {} --num-images {} --features {}/net --metrics frechet,accuracy",
            self.data, self.measured, self.folder
        );
        let cpu = self.call(&line, "cpu")?;
        let mut compared = Vec::new();
        for compute in ["f16", "bf16"] {
            let gpu = self.call(&format!("{line} --compute {compute}"), self.device)?;
            for (quantity, pointer, tolerance) in [
                ("Fréchet distance", "/frechet/distance", HALF_FRECHET),
                ("class accuracy", "/class_accuracy", HALF_ACCURACY),
            ] {
                let number =
                    |printed: &Printed| printed.number(pointer)?.with_context(|| format!("no {pointer}"));
                compared.push(Compared {
                    quantity: format!("{compute}: {quantity} of images sampled on each device"),
                    command: gpu.command.clone(),
                    cpu: number(&cpu)?,
                    gpu: number(&gpu)?,
                    tolerance,
                });
            }
        }
        Ok(compared)
    }
}

/// The variational bound with the optimal variances in what `likelihood` prints.
const BOUND: &str = "/bound/optimal/total_bits_per_dim/mean";

/// The losses in the log of a run, with a name for each.
fn losses(log: &Path) -> Result<Vec<(String, f64)>> {
    let text = fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))?;
    let mut losses = Vec::new();
    for line in text.lines() {
        let record: Value =
            serde_json::from_str(line).with_context(|| format!("{}: {line}", log.display()))?;
        for (key, name) in
            [("loss", "mean training loss up to step"), ("test_loss", "loss on test images at step")]
        {
            if let (Some(loss), Some(step)) = (record[key].as_f64(), record["step"].as_u64()) {
                losses.push((format!("{name} {step}"), loss));
            }
        }
    }
    ensure!(!losses.is_empty(), "{} has no losses", log.display());
    Ok(losses)
}
