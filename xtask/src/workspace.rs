//! The paths of the workspace, calls of cargo, and the commit that is checked out.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process;

/// A checkout of this workspace.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The workspace that this program was built in.
    pub(crate) fn of_this_build() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        let root = root.context("the folder of xtask has no parent")?;
        Ok(Self { root: root.to_owned() })
    }

    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The text of a file below the root.
    pub(crate) fn read(&self, name: &str) -> Result<String> {
        let path = self.root.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// A command of the cargo that runs this program, with the root as working folder.
    pub(crate) fn cargo(&self) -> Command {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(&self.root);
        command
    }

    /// Builds `ddpm-cli` in release mode with these features and returns the path of the program.
    pub(crate) fn build_cli(&self, features: &[&str]) -> Result<PathBuf> {
        process::run(&mut self.build_command(features))?;
        let name = format!("ddpm-cli{}", env::consts::EXE_SUFFIX);
        let binary = self.target().join("release").join(name);
        ensure!(
            binary.is_file(),
            "cargo built ddpm-cli, but it is not at {}; set CARGO_TARGET_DIR to the folder cargo builds into",
            binary.display()
        );
        Ok(binary)
    }

    /// The folder that cargo builds into.
    pub(crate) fn target(&self) -> PathBuf {
        self.root.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
    }

    fn build_command(&self, features: &[&str]) -> Command {
        let mut command = self.cargo();
        command.args(["build", "--release", "--locked", "-p", "ddpm-cli"]);
        if !features.is_empty() {
            command.args(["--features", &features.join(",")]);
        }
        command
    }

    /// The commit that is checked out, with `-dirty` if files other than results and built-in models differ from it;
    /// `None` outside git.
    pub(crate) fn commit(&self) -> Option<String> {
        let head = self.git(&["rev-parse", "--short=12", "HEAD"])?;
        let outputs_excluded = [".", ":(exclude)results", ":(exclude)crates/ddpm-cli/assets/models"];
        let changes = self.git(&[&["status", "--porcelain", "--"][..], &outputs_excluded].concat())?;
        let dirty = if changes.is_empty() { "" } else { "-dirty" };
        Some(format!("{head}{dirty}"))
    }

    /// What git prints; `None` if it fails.
    pub(crate) fn git(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new("git").current_dir(&self.root).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;

    #[test]
    fn only_a_source_on_the_hub_is_built_with_its_client() {
        let workspace = Workspace::of_this_build().unwrap();
        for (source, features) in [
            ("mnist", ""),
            ("src", ""),
            ("hub", " --features hub"),
            ("hf://datasets/zalando-datasets/fashion_mnist", " --features hub"),
        ] {
            let command = workspace.build_command(Source::parse(source).unwrap().features());
            let line = process::show(&command);
            assert!(line.ends_with(&format!("build --release --locked -p ddpm-cli{features}")), "{line}");
        }
    }
}
