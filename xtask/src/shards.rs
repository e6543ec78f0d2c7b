//! `cargo xtask shards`: runs the job files in `deploy/` without a cluster.
//!
//! Stand-ins in `deploy/test` take the place of the cluster: `sbatch` runs tasks in random order, and `ddpm-cli` starts the
//! program, kills it, or damages what it wrote. Everything else is done by the files themselves.

mod kubernetes;
mod log;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::builder::RangedU64ValueParser;
use ddpm_files::write_atomic;

use crate::phases::{Phases, in_words};
use crate::process;
use crate::provenance::Provenance;
use crate::workspace::Workspace;
use log::Log;

/// Run the job files of deploy/ for Slurm, Kubernetes and GNU parallel on this machine, kill some of their processes, and
/// compare what they merge with one run. Writes results/shards.md.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// The number of images of each job.
    #[arg(short, long, value_name = "N", default_value_t = 1000,
        value_parser = RangedU64ValueParser::<usize>::new().range(7..))]
    num_images: usize,
    /// The number of parts, 7 or more: three are killed and one is damaged.
    #[arg(long, value_name = "K", default_value_t = 7, value_parser = RangedU64ValueParser::<usize>::new().range(7..=1000))]
    shards: usize,
    /// Install nothing: shellcheck, yamllint, PyYAML and GNU parallel are already there.
    #[arg(long)]
    installed: bool,
}

/// The folder of the jobs, below the root.
const FOLDER: &str = "runs/shards";
/// The seed in the job files.
const SEED: u64 = 1;
/// What each job merges into, below its folder.
const OUT: &str = "synthetic/train";
/// The ends of the names of its files.
const ENDS: [&str; 3] = ["-images-idx3-ubyte", "-labels-idx1-ubyte", "-recipe.json"];

/// The size of a job, and the faults in it.
#[derive(Debug, Clone)]
struct Job<'a> {
    /// The root of the workspace.
    root: &'a Path,
    /// The built `ddpm-cli`.
    binary: &'a Path,
    /// The folder in which the job runs.
    folder: PathBuf,
    images: usize,
    shards: usize,
}

/// Runs all jobs, and writes the table if each of them gives the files of one run.
pub(crate) fn run(arguments: &Arguments, workspace: &Workspace) -> Result<()> {
    let provenance = Provenance::of_this_process(workspace, SEED);
    let mut phases = Phases::start();
    let root = workspace.root();
    if !arguments.installed {
        process::run(&mut Command::new(root.join("deploy/test/install.sh")))?;
    }
    phases.run("syntax", || check_syntax(root))?;
    let binary = phases.run("build", || workspace.build_cli(&[]))?;
    phases.run("container file", || {
        kubernetes::check_container(workspace, &root.join(FOLDER).join("container"))
    })?;
    let job = |name: &str| Job {
        root,
        binary: &binary,
        folder: root.join(FOLDER).join(name),
        images: arguments.num_images,
        shards: arguments.shards,
    };
    phases.run("one run", || job("whole").one_run())?;
    let mut rows = String::new();
    for (name, title, start) in [
        ("slurm", "Slurm: `deploy/slurm/submit.sh`", slurm as fn(&Job<'_>) -> Result<()>),
        ("kubernetes", "Kubernetes: `deploy/kubernetes/sample.yaml`, `merge.yaml`", kubernetes::run),
        ("parallel", "GNU parallel: `deploy/parallel/run.sh`", parallel),
    ] {
        let log = phases.run(title, || job(name).with_faults(start))?;
        rows += &log.row(title);
    }
    let text = format!(
        "# Job files\n\n{}\n- Each job: {} images in {} parts; three of them killed (SIGKILL) in their first run, and the \
         images of one cut after it\n\nThe files in `deploy/` are run as they are, with the number of images and of parts \
         above. `deploy/test/sbatch` stands for Slurm, and `cargo xtask shards` for Kubernetes; both start the parts in random \
         order. GNU parallel is itself, with two parts at a time. Parts are counted from 0. Each merged data set is, byte for \
         byte, that of `ddpm-cli sample` without parts, recipe included; otherwise there is no table.\n\n{}{rows}",
        provenance.markdown(phases.total_seconds()),
        arguments.num_images,
        arguments.shards,
        Log::HEADER
    );
    write_atomic(&root.join("results/shards.md"), text.as_bytes())?;
    process::print(&format!("{text}\nDone in {}: results/shards.md", in_words(phases.total_seconds())))
}

/// Checks the shell scripts and the YAML files with their own tools.
fn check_syntax(root: &Path) -> Result<()> {
    let deploy = root.join("deploy");
    for script in [
        "slurm/submit.sh",
        "slurm/sample.sbatch",
        "slurm/merge.sbatch",
        "parallel/run.sh",
        "test/ddpm-cli",
        "test/sbatch",
        "test/install.sh",
    ] {
        process::run(Command::new("bash").current_dir(&deploy).args(["-n", script]))?;
        process::run(Command::new("shellcheck").current_dir(&deploy).arg(script))?;
    }
    process::run(Command::new("yamllint").current_dir(&deploy).args([
        "--strict",
        "-c",
        "test/yamllint.yaml",
        ".",
    ]))
}

impl Job<'_> {
    /// Samples all images in one run.
    fn one_run(&self) -> Result<()> {
        self.empty_folder()?;
        let mut command = Command::new(self.binary);
        let (images, seed) = (self.images.to_string(), SEED.to_string());
        command.args([
            "sample",
            "--num-images",
            &images,
            "--seed",
            &seed,
            "--format",
            "idx",
            "--out",
            OUT,
            "--quiet",
        ]);
        process::run(command.current_dir(&self.folder))
    }

    /// Runs a job of which some parts are killed and one is damaged, and compares what it merges with [`Job::one_run`] in the
    /// folder `whole` beside its own.
    fn with_faults(&self, start: fn(&Job<'_>) -> Result<()>) -> Result<Log> {
        self.empty_folder()?;
        let chosen = shuffled(self.shards)?;
        let (kill, damage) = (chosen[..3].join(" "), chosen[3].clone());
        fs::write(self.folder.join("faults"), format!("{kill}\n{damage}\n"))?;
        start(self)?;
        for end in ENDS {
            let read = |folder: &Path| {
                let path = folder.join(format!("{OUT}{end}"));
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
            };
            let whole = self.folder.with_file_name("whole");
            ensure!(read(&self.folder)? == read(&whole)?, "{OUT}{end} differs from the file of one run");
        }
        let log = Log::read(&self.folder.join("log"))?;
        log.check(&chosen[..3], &damage, self.shards)?;
        Ok(log)
    }

    fn empty_folder(&self) -> Result<()> {
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder)
                .with_context(|| format!("cannot empty {}", self.folder.display()))?;
        }
        Ok(fs::create_dir_all(&self.folder)?)
    }

    /// A program in the folder of the job, for which the stand-ins of `deploy/test` are in the place of a cluster.
    fn command(&self, program: impl Into<OsString>) -> Result<Command> {
        let faults = fs::read_to_string(self.folder.join("faults"))?;
        let (kill, damage) = faults.split_once('\n').context("no faults")?;
        let path = env::var_os("PATH").unwrap_or_default();
        let stand_ins = [self.root.join("deploy/test")].into_iter();
        let path = env::join_paths(stand_ins.chain(env::split_paths(&path)))?;
        let mut command = Command::new(program.into());
        command.current_dir(&self.folder).env("PATH", path).env("DDPM_REAL", self.binary);
        command.env("DDPM_LOG", self.folder.join("log"));
        command.env("DDPM_KILL", kill).env("DDPM_DAMAGE", damage.trim());
        Ok(command)
    }

    /// The variables that the scripts read, beside their own values of the rest.
    fn script(&self, path: &str) -> Result<Command> {
        let mut command = self.command(self.root.join("deploy").join(path))?;
        for (name, value) in [("IMAGES", self.images), ("SHARDS", self.shards), ("JOBS", 2)] {
            command.env(name, value.to_string());
        }
        for name in ["SEED", "PARTS", "OUT", "ROUNDS"] {
            command.env_remove(name);
        }
        Ok(command)
    }
}

fn slurm(job: &Job<'_>) -> Result<()> {
    process::run(&mut job.script("slurm/submit.sh")?)
}

/// A part that was damaged after it was made is found by `merge`, so the script is run again, as its page says.
fn parallel(job: &Job<'_>) -> Result<()> {
    let first = job.script("parallel/run.sh")?.status().context("cannot start parallel/run.sh")?;
    ensure!(!first.success(), "a part is damaged, and parallel/run.sh did not fail");
    process::run(&mut job.script("parallel/run.sh")?)
}

/// The indices 0 to `count` − 1 in random order.
fn shuffled(count: usize) -> Result<Vec<String>> {
    let range = format!("0-{}", count - 1);
    let text = process::run_for_stdout(Command::new("shuf").args(["--input-range", &range]))?;
    Ok(text.lines().map(str::to_owned).collect())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::tests::{CLI, parse};

    #[test]
    fn small_jobs_are_refused() {
        assert_eq!(parse::<Arguments>(&[]).unwrap().shards, 7);
        assert!(parse::<Arguments>(&["--shards", "6"]).is_err());
    }

    /// The other job files need programs that not every machine has.
    #[test]
    fn the_files_for_slurm_survive_kills_and_damage() {
        let (workspace, folder) = (Workspace::of_this_build().unwrap(), tempfile::tempdir().unwrap());
        let job = |name: &str| Job {
            root: workspace.root(),
            binary: &CLI,
            folder: folder.path().join(name),
            images: 420,
            shards: 7,
        };
        job("whole").one_run().unwrap();
        let log = job("slurm").with_faults(slurm).unwrap();
        assert!(log.row("Slurm").ends_with("| equal to one run |\n"));
    }
}
