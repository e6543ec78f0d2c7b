//! `cargo xtask ci`: runs every check, cheapest first.

use std::process::Command;

use anyhow::{Context, Result};
use clap::builder::PossibleValuesParser;

use crate::process;
use crate::workspace::Workspace;

/// Run all checks, cheapest first, and stop at the first one that fails.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Run only this check.
    #[arg(long, value_name = "CHECK", value_parser = PossibleValuesParser::new(STEPS.map(|step| step.name)))]
    only: Option<String>,
}

/// One check: a call of cargo.
#[derive(Debug, Clone, Copy)]
struct Step {
    name: &'static str,
    headline: &'static str,
    /// Arguments of cargo, separated by spaces. `{mpi}` stands for the feature `mpi`, on a machine that has MPI.
    arguments: &'static str,
    environment: Option<(&'static str, &'static str)>,
}

impl Step {
    const fn new(name: &'static str, headline: &'static str, arguments: &'static str) -> Self {
        Self { name, headline, arguments, environment: None }
    }

    const fn with_environment(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment = Some((name, value));
        self
    }

    /// The check as a shell command line.
    fn command_line(&self, has_mpi: bool) -> String {
        let variable = self.environment.map(|(name, value)| format!("{name}='{value}' "));
        format!("{}cargo {}", variable.unwrap_or_default(), self.arguments(has_mpi))
    }

    fn arguments(&self, has_mpi: bool) -> String {
        self.arguments.replace("{mpi}", if has_mpi { ",ddpm-cli/mpi" } else { "" })
    }
}

/// Installs MPI, or says whether it is installed.
const INSTALL_MPI: &str = ".ci/install-mpi";

/// The checks, in order. The tests of the workspace use one set of features, because another set would compile shared
/// dependencies again.
const STEPS: [Step; 12] = [
    Step::new("fmt", "formatting", "fmt --all --check"),
    Step::new(
        "clippy-data",
        "lints of ddpm-data without its features",
        "clippy -p ddpm-data --all-targets --locked -- -D warnings",
    ),
    Step::new(
        "clippy",
        "benches and examples compile, and lints",
        "clippy --workspace --all-targets --locked -- -D warnings",
    ),
    Step::new(
        "clippy-cli",
        "lints of ddpm-cli without the page of serve",
        "clippy -p ddpm-cli --no-default-features --all-targets --locked -- -D warnings",
    ),
    Step::new(
        "clippy-hub",
        "the same with the Hub and, where it is installed, MPI",
        "clippy --workspace --features ddpm-cli/hub,ddpm-fuzz/hub{mpi} --all-targets --locked -- -D warnings",
    ),
    // With a stand-in for NVIDIA's compiler.
    Step::new("clippy-cuda", "lints of the code for CUDA", "xtask gpu-check --lint"),
    Step::new(
        "test-core",
        "tests of ddpm-core without candle",
        "test -p ddpm-core --no-default-features --lib --test without_candle --locked",
    ),
    Step::new("test-data", "tests of ddpm-data without its features", "test -p ddpm-data --locked"),
    // The tests of the Hub's client use a server on this machine, which a proxy cannot reach.
    Step::new(
        "test",
        "tests and the examples in the documentation",
        "test --workspace --features ddpm-cli/hub,ddpm-fuzz/hub{mpi} --locked",
    )
    .with_environment("NO_PROXY", "127.0.0.1"),
    Step::new("package", "the crates compile from their packages", "xtask release-check --only packages"),
    Step::new("fuzz", "a minute of libFuzzer", "xtask fuzz --smoke"),
    Step::new("doc", "documentation", "doc --workspace --features ddpm-cli/hub --no-deps --locked")
        .with_environment("RUSTDOCFLAGS", "-D warnings"),
];

/// Runs all checks, or the check of `--only`.
pub(crate) fn run(arguments: &Arguments, workspace: &Workspace) -> Result<()> {
    let is_selected = |step: &&Step| arguments.only.as_deref().is_none_or(|only| only == step.name);
    let steps: Vec<_> = STEPS.iter().filter(is_selected).collect();
    let has_mpi = has_mpi(workspace);
    run_steps(&steps, has_mpi, |step| {
        let mut cargo = workspace.cargo();
        process::run(cargo.args(step.arguments(has_mpi).split(' ')).envs(step.environment))
    })?;
    process::say(if steps.len() == STEPS.len() { "All checks passed." } else { "The check passed." });
    if !has_mpi {
        process::say(&format!("Training with MPI was left out: `{INSTALL_MPI}` installs what it needs."));
    }
    Ok(())
}

/// Whether a build with the feature `mpi` is possible.
fn has_mpi(workspace: &Workspace) -> bool {
    let check = Command::new(workspace.root().join(INSTALL_MPI)).arg("--check").status();
    check.is_ok_and(|status| status.success())
}

fn run_steps(steps: &[&Step], has_mpi: bool, mut run: impl FnMut(&Step) -> Result<()>) -> Result<()> {
    for (index, step) in steps.iter().enumerate() {
        process::say(&format!("== {}/{} {}: {}", index + 1, steps.len(), step.name, step.headline));
        run(step).with_context(|| {
            format!(
                "the check \"{name}\" failed; run it alone with `cargo xtask ci --only {name}`, or with `{line}`",
                name = step.name,
                line = step.command_line(has_mpi)
            )
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_ends_the_run_and_the_message_names_the_command() {
        let mut seen = Vec::new();
        let steps: Vec<_> = STEPS.iter().collect();
        let error = run_steps(&steps, true, |step| {
            seen.push(step.name);
            anyhow::ensure!(step.name != "doc", "no");
            Ok(())
        })
        .unwrap_err();
        assert_eq!(
            seen,
            [
                "fmt",
                "clippy-data",
                "clippy",
                "clippy-cli",
                "clippy-hub",
                "clippy-cuda",
                "test-core",
                "test-data",
                "test",
                "package",
                "fuzz",
                "doc"
            ]
        );
        let message = format!("{error:#}");
        assert!(message.contains("`cargo xtask ci --only doc`"), "{message}");
        assert!(message.contains("`RUSTDOCFLAGS='-D warnings' cargo doc --workspace"), "{message}");
        let with_mpi = |has_mpi| STEPS.map(|step| step.command_line(has_mpi)).concat();
        assert!(
            with_mpi(true)
                .contains("test --workspace --features ddpm-cli/hub,ddpm-fuzz/hub,ddpm-cli/mpi --locked")
        );
        assert!(!with_mpi(false).contains("mpi"));
    }

    /// Whether a crate, with these options of cargo, depends on the Hub's client or on another client of HTTP, or on a TLS
    /// library. `hyper` has a client only with its feature `client`, which stands in the tree with the name of the crate.
    fn has_http_client(options: &str) -> bool {
        let mut cargo = Workspace::of_this_build().unwrap().cargo();
        let tree = "tree --locked --edges normal,build --prefix none --format {p}|{f}";
        let packages = process::run_for_stdout(cargo.args(tree.split(' ')).args(options.split(' '))).unwrap();
        assert!(packages.lines().count() > 10, "{packages}");
        let names = ["hf-hub", "reqwest", "ureq", "curl", "rustls", "openssl", "native-tls"];
        packages.lines().any(|line| {
            let (package, features) = line.split_once('|').unwrap();
            let name = package.split(' ').next().unwrap();
            let is_client = features.split(',').any(|feature| feature.starts_with("client"));
            names.contains(&name) || name.starts_with("hyper") && is_client
        })
    }

    #[test]
    fn only_the_feature_hub_adds_an_http_client() {
        for crate_name in ["ddpm-data", "ddpm-cli"] {
            assert!(!has_http_client(&format!("--package {crate_name}")), "{crate_name}");
            assert!(has_http_client(&format!("--package {crate_name} --features hub")), "{crate_name}");
        }
    }

    #[test]
    fn names_of_checks_are_distinct() {
        let names: std::collections::BTreeSet<_> = STEPS.iter().map(|step| step.name).collect();
        assert_eq!(names.len(), STEPS.len());
    }
}
