//! `cargo xtask gpu-check --trace`: commands on the pretend GPU, and the checks of their calls.

use std::fs::{self, File};

use anyhow::{Context, Result, bail};

use super::pretend::Pretend;
use super::trace::{Call, Kind, calls, count, few_reads, launches, no_read, one_stream, steps};
use crate::process;
use crate::rows::{self, Row};
use crate::workspace::Workspace;

/// The most launches of a sampling step with one pass of the network: the network, the sampler and the check of its output.
const SAMPLING_LAUNCHES: usize = 82;
/// The most launches of a training step: forward, backward, optimizer and the average of the weights. Lower it when a step
/// needs fewer: `cargo xtask gpu-check --trace` prints the number that it found.
const TRAINING_LAUNCHES: usize = 690;

/// The bytes of the noise of an image.
const NOISE: u64 = 28 * 28 * 4;
/// A training run reads the losses, for the log, at every fiftieth step.
const LOG_STEPS: usize = 50;

/// A command and the checks of its calls.
struct Trace {
    name: &'static str,
    line: &'static str,
    /// The number of images of a batch, as in the command.
    images: u64,
    checks: Checks,
}

/// The checks of the calls of a trace, and of its steps.
type Checks = fn(&[Call<'_>], &[&[Call<'_>]]) -> Vec<Result<String>>;

const TRACES: [Trace; 3] = [
    Trace {
        name: "sampling",
        line: "sample --device cuda --quiet -n 50 --out runs/gpu-check/trace/sample.png",
        images: 50,
        checks: |calls, steps| vec![one_stream(calls), no_read(steps)],
    },
    Trace {
        name: "sampling in half precision without guidance",
        line: "sample --device cuda --compute bf16 --guidance-scale 1 --guide-scale 1 --quiet -n 50 \
            --out runs/gpu-check/trace/half.png",
        images: 50,
        checks: |calls, steps| {
            vec![one_stream(calls), no_read(steps), launches(all_but_last(steps), SAMPLING_LAUNCHES)]
        },
    },
    Trace {
        name: "an epoch of training",
        line: "train --device cuda --preset quick --epochs 1 --batch-size 480 --checkpoint-every 1000000 --overwrite \
            --quiet --out-dir runs/gpu-check/trace/train",
        images: 480,
        checks: |calls, steps| {
            let steps = all_but_last(steps);
            vec![one_stream(calls), few_reads(steps, LOG_STEPS), launches(steps, TRAINING_LAUNCHES)]
        },
    },
];

/// The steps without the last one, to which the calls after the run belong.
fn all_but_last<'a, 'b>(steps: &'b [&'a [Call<'a>]]) -> &'b [&'a [Call<'a>]] {
    steps.split_last().map_or(&[], |(_, steps)| steps)
}

/// Runs the commands, prints a table, and fails if one of the checks has failed.
pub(super) fn run(workspace: &Workspace) -> Result<()> {
    let pretend = Pretend::build(workspace)?;
    let folder = workspace.root().join("runs/gpu-check/trace");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let (mut rows, mut failed) = (Vec::new(), 0);
    for (number, trace) in TRACES.iter().enumerate() {
        let log = folder.join(format!("{}.log", number + 1));
        let mut command = pretend.command(workspace.root(), trace.line, &log);
        process::say(&format!("$ {}", process::show(&command)));
        let output = log.with_extension("txt");
        let output = File::create(&output).with_context(|| format!("cannot write {}", output.display()))?;
        process::run(command.stdout(output))?;
        let text = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
        let (found, wrong) = check(trace, &text)
            .with_context(|| format!("the log {} of `{}`", log.display(), process::show(&command)))?;
        rows.extend(found);
        failed += wrong;
    }
    process::print(&rows::markdown("trace", &rows))?;
    if failed > 0 {
        bail!(
            "{failed} of the checks failed, see the table; the logs of all calls are in {}",
            folder.display()
        );
    }
    Ok(())
}

/// The rows of a trace, and the number of checks that failed.
fn check(trace: &Trace, log: &str) -> Result<(Vec<Row>, usize)> {
    let calls = calls(log)?;
    let steps = steps(&calls, trace.images * NOISE);
    let row = |measure: &str, result: String| Row {
        claim: trace.name.to_owned(),
        measure: measure.to_owned(),
        result,
    };
    let number = |kind, name| format!("{} {name}", count(&calls, kind));
    let kinds = [
        (Kind::Kernel, "kernels"),
        (Kind::Product, "products"),
        (Kind::Upload, "uploads"),
        (Kind::Copy, "copies"),
        (Kind::Fill, "fills"),
        (Kind::Read, "reads"),
        (Kind::Wait, "waits"),
    ];
    let numbers = kinds.map(|(kind, name)| number(kind, name)).join(", ");
    let mut rows = vec![row("calls", format!("{numbers}; {} steps", steps.len()))];
    let mut failed = 0;
    for found in (trace.checks)(&calls, &steps) {
        let (measure, result) = match found {
            Ok(found) => ("passed", found),
            Err(error) => {
                failed += 1;
                ("FAILED", format!("{error:#}"))
            }
        };
        rows.push(row(measure, result));
    }
    Ok((rows, failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The noise of two steps, each with as many kernels.
    fn log(kernels: usize) -> String {
        let step = "7 upload 0x2 1505280 noise\n".to_owned() + &"7 kernel 0x2 0 add\n".repeat(kernels);
        step.repeat(2)
    }

    #[test]
    fn a_trace_with_too_many_launches_fails_and_says_which() {
        let training = &TRACES[2];
        let (rows, failed) = check(training, &log(TRAINING_LAUNCHES)).unwrap();
        assert_eq!((rows.len(), failed), (4, 0), "{rows:?}");
        let (rows, failed) = check(training, &log(TRAINING_LAUNCHES + 1)).unwrap();
        assert_eq!(failed, 1);
        let wrong = rows.iter().find(|row| row.measure == "FAILED").unwrap();
        assert!(wrong.result.contains(&format!("{} add", TRAINING_LAUNCHES + 1)), "{wrong:?}");
    }

    #[test]
    fn the_number_of_images_is_that_of_the_command() {
        for Trace { line, images, .. } in &TRACES {
            let is_given = |option: &str| line.contains(&format!("{option} {images} "));
            assert!(is_given("-n") || is_given("--batch-size"), "{line}");
        }
    }
}
