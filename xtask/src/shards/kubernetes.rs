//! The Jobs of `deploy/kubernetes`, run as Kubernetes does: the arguments of the container for each index, in any order, and
//! again if they fail.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Job, shuffled};
use crate::process;
use crate::workspace::Workspace;

/// The variable that Kubernetes sets for each pod of an indexed Job.
const INDEX: &str = "JOB_COMPLETION_INDEX";

/// Applies `sample.yaml` and `merge.yaml`, both again if parts are missing.
pub(super) fn run(job: &Job<'_>) -> Result<()> {
    let (sample, merge) = (Manifest::read(job, "sample.yaml")?, Manifest::read(job, "merge.yaml")?);
    ensure!(sample.image == merge.image, "the images {} and {} differ", sample.image, merge.image);
    for _ in 0..2 {
        sample.run_indexed(job)?;
        if merge.start(job, &merge.arguments, None)? {
            return Ok(());
        }
    }
    bail!("merge.yaml failed twice")
}

/// Checks that the program compiles from the files that the container file copies.
pub(super) fn check_container(workspace: &Workspace, folder: &Path) -> Result<()> {
    let path = workspace.root().join("deploy/kubernetes/Containerfile");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    for line in
        text.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--"))
    {
        let (sources, to) =
            line.rsplit_once(' ').with_context(|| format!("{}: COPY {line}", path.display()))?;
        if to.ends_with('/') {
            fs::create_dir_all(folder.join(to))?;
        }
        let mut copy = Command::new("cp");
        copy.current_dir(workspace.root()).arg("--recursive").args(sources.split(' ')).arg(folder.join(to));
        process::run(&mut copy)?;
    }
    // The dependencies are those that this workspace has compiled.
    let mut cargo = workspace.cargo();
    cargo.current_dir(folder).env("CARGO_TARGET_DIR", workspace.root().join("target"));
    process::run(cargo.args(["check", "--release", "--locked", "--quiet", "-p", "ddpm-cli"]))
}

/// A Job, as far as it is run here.
struct Manifest {
    image: String,
    arguments: Vec<String>,
    /// How often an index is tried again.
    backoff_limit: u64,
    /// The folder of the volume.
    mount: String,
}

impl Manifest {
    fn read(job: &Job<'_>, name: &str) -> Result<Self> {
        let folder = job.root.join("deploy");
        let mut python = Command::new("python3");
        python.current_dir(folder).arg("test/documents.py").arg(format!("kubernetes/{name}"));
        let documents: Vec<Value> = serde_json::from_str(&process::run_for_stdout(&mut python)?)?;
        let found = documents.iter().find(|document| document["kind"] == "Job");
        let spec = &found.with_context(|| format!("{name} has no Job"))?["spec"];
        let pod = &spec["template"]["spec"];
        let container = &pod["containers"][0];
        let text = |value: &Value| value.as_str().map(str::to_owned).context("expected text");
        let arguments: Vec<String> =
            container["args"].as_array().context("no args")?.iter().map(text).collect::<Result<_>>()?;
        if spec["completionMode"] == "Indexed" {
            let shards = after(&arguments, "--shards")?;
            let completions = spec["completions"].to_string();
            ensure!(
                arguments[shards] == completions,
                "{name}: {completions} completions, and --shards {}",
                arguments[shards]
            );
            ensure!(
                container["env"][0]["name"] == INDEX,
                "{name}: {INDEX} is not named, so the arguments cannot use it"
            );
        }
        let image = text(&container["image"])?;
        ensure!(!image.contains('/'), "{name}: the image {image} is in a registry");
        let (mount, backoff_limit) =
            (text(&container["volumeMounts"][0]["mountPath"])?, &spec["backoffLimitPerIndex"]);
        Ok(Self { image, arguments, backoff_limit: backoff_limit.as_u64().unwrap_or(0), mount })
    }

    /// Runs the container for each index.
    fn run_indexed(&self, job: &Job<'_>) -> Result<()> {
        let mut arguments = self.arguments.clone();
        for (option, value) in [("--num-images", job.images), ("--shards", job.shards)] {
            let at = after(&arguments, option)?;
            arguments[at] = value.to_string();
        }
        for index in shuffled(job.shards)? {
            let mut attempts = 0;
            while !self.start(job, &arguments, Some(&index))? {
                attempts += 1;
                ensure!(attempts <= self.backoff_limit, "index {index} failed {attempts} times");
            }
        }
        Ok(())
    }

    /// Runs the container, and returns whether it succeeded. The volume is the folder of the job.
    fn start(&self, job: &Job<'_>, arguments: &[String], index: Option<&str>) -> Result<bool> {
        let mount = job.folder.to_str().context("the folder has no name in UTF-8")?;
        let mut command = job.command(job.root.join("deploy/test/ddpm-cli"))?;
        for argument in arguments {
            let argument = argument.replace(&self.mount, mount);
            command.arg(argument.replace(&format!("$({INDEX})"), index.unwrap_or_default()));
        }
        if let Some(index) = index {
            command.env(INDEX, index);
        }
        Ok(command.status().context("cannot start deploy/test/ddpm-cli")?.success())
    }
}

/// The position of the value of an option.
fn after(arguments: &[String], option: &str) -> Result<usize> {
    let at = arguments.iter().position(|argument| argument == option);
    at.map(|at| at + 1)
        .filter(|at| *at < arguments.len())
        .with_context(|| format!("no {option} in {arguments:?}"))
}
