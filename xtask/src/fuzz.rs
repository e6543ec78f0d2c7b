//! `cargo xtask fuzz`: runs the parsers of untrusted files under libFuzzer, on the stable toolchain.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

use crate::process;
use crate::workspace::Workspace;

/// Run the parsers of untrusted files under libFuzzer.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// The targets [default: all of this build]
    targets: Vec<String>,
    /// The seconds for each target.
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    /// The number of executions after which a target ends sooner.
    #[arg(long, value_name = "N")]
    runs: Option<u64>,
    /// Leave out the targets of model folders and parquet files, whose dependencies take minutes to compile.
    #[arg(long)]
    light: bool,
    /// Run the light targets for seven seconds each. Without a C++ compiler, say so and do nothing.
    #[arg(long, conflicts_with_all = ["targets", "seconds", "runs"])]
    smoke: bool,
}

/// The instrumentation that libFuzzer needs. Overflow is a panic, as in a debug build.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Coverflow-checks=yes -Cdebug-assertions=yes";

/// The seconds after which a target of [`Arguments::all`] ends in any case.
const ALL_SECONDS: u64 = 6 * 3600;

/// The result of a target.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Fuzzed {
    pub(crate) target: String,
    pub(crate) executions: u64,
    /// The peak of the memory in MB.
    pub(crate) peak_mb: u64,
}

pub(crate) fn run(arguments: &Arguments, workspace: &Workspace) -> Result<()> {
    let mut arguments = arguments.clone();
    if arguments.smoke {
        (arguments.light, arguments.seconds) = (true, 7);
        let compiler = env::var_os("CXX").unwrap_or_else(|| "c++".into());
        if Command::new(&compiler).arg("--version").output().is_err() {
            process::say(&format!(
                "no libFuzzer without a C++ compiler ({}); the tests of ddpm-fuzz ran without it",
                compiler.display()
            ));
            return Ok(());
        }
    }
    for Fuzzed { target, executions, peak_mb } in fuzz(&arguments, workspace, |_| arguments.runs)? {
        process::print(&format!("{target}: {executions} executions, at most {peak_mb} MB, no fault"))?;
    }
    Ok(())
}

impl Arguments {
    /// All targets, each until its number of executions.
    pub(crate) fn all() -> Self {
        Self { targets: Vec::new(), seconds: ALL_SECONDS, runs: None, light: false, smoke: false }
    }
}

/// Builds the targets and runs each, with the number of executions that `runs` gives for its name.
pub(crate) fn fuzz(
    arguments: &Arguments,
    workspace: &Workspace,
    runs: impl Fn(&str) -> Option<u64>,
) -> Result<Vec<Fuzzed>> {
    let program = build(arguments.light, workspace)?;
    let work = workspace.root().join("target/fuzz");
    let corpus = work.join("corpus");
    // Writes the seeds, and prints the names of the targets.
    let names = process::run_for_stdout(Command::new(&program).env("DDPM_FUZZ_SEEDS", &corpus))?;
    let names: Vec<&str> = names.lines().collect();
    for target in &arguments.targets {
        let known = names.join(", ");
        ensure!(names.contains(&target.as_str()), "there is no target {target}, expected one of {known}");
    }
    let is_selected =
        |name: &&&str| arguments.targets.is_empty() || arguments.targets.iter().any(|t| t == **name);
    let run = |name: &&str| run_target(name, (arguments.seconds, runs(name)), &program, &work);
    names.iter().filter(is_selected).map(run).collect()
}

/// Builds the program of the crate `ddpm-fuzz`.
fn build(light: bool, workspace: &Workspace) -> Result<PathBuf> {
    let version = process::run_for_stdout(Command::new("rustc").arg("-vV"))?;
    let host =
        version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
    let features: &[&str] = if light {
        &["--no-default-features", "--features", "libfuzzer"]
    } else {
        &["--features", "libfuzzer,hub"]
    };
    let mut cargo = workspace.cargo();
    cargo.args("build --release --locked -p ddpm-fuzz --target-dir target/fuzz --target".split(' '));
    cargo.arg(host).args(features).env("RUSTFLAGS", FLAGS);
    process::run(&mut cargo)
        .context("cannot build the fuzz targets; libFuzzer needs a C++ compiler (Debian: g++)")?;
    Ok(workspace.root().join("target/fuzz").join(host).join("release/ddpm-fuzz"))
}

fn run_target(
    name: &str,
    (seconds, runs): (u64, Option<u64>),
    program: &Path,
    work: &Path,
) -> Result<Fuzzed> {
    process::say(&format!("== fuzz {name}"));
    let faults = work.join("faults");
    fs::create_dir_all(&faults).with_context(|| format!("cannot create {}", faults.display()))?;
    let mut command = Command::new(program);
    command.env("DDPM_FUZZ_TARGET", name).arg(work.join("corpus").join(name));
    command.args(["-rss_limit_mb=512", "-timeout=10", "-print_final_stats=1", "-verbosity=0"]);
    command.arg(format!("-max_total_time={}", seconds));
    command.arg(format!("-artifact_prefix={}/{name}-", faults.display()));
    command.args(runs.map(|runs| format!("-runs={runs}")));
    let output = command.stdout(Stdio::inherit()).output().context("cannot start the fuzz targets")?;
    let report = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{name} has a fault; the input is in {}:\n{report}", faults.display());
    }
    let statistic = |key: &str| -> Result<u64> {
        let value = report.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().last());
        let value = value.with_context(|| format!("libFuzzer does not report {key}:\n{report}"))?;
        value.parse().with_context(|| format!("{key} is {value}, expected a number"))
    };
    Ok(Fuzzed {
        target: name.to_owned(),
        executions: statistic("stat::number_of_executed_units:")?,
        peak_mb: statistic("stat::peak_rss_mb:")?,
    })
}
