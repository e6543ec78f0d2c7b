//! Programs of other people that the checks run, in the pinned version, in `runs/tools`.

use std::env;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::workspace::Workspace;

/// A package with a program of the same name, a subcommand of cargo.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tool {
    name: &'static str,
    version: &'static str,
}

pub(super) const DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };
pub(super) const HACK: Tool = Tool { name: "cargo-hack", version: "0.6.46" };
pub(super) const SEMVER: Tool = Tool { name: "cargo-semver-checks", version: "0.51.0" };

/// The folder where the programs are installed, below the root.
const FOLDER: &str = "runs/tools";

impl Tool {
    /// Name and version, as `cargo install` takes them.
    pub(super) fn name(self) -> String {
        format!("{}@{}", self.name, self.version)
    }

    /// Installs the program unless this version is there, and returns a command of it, as cargo would start it.
    ///
    /// # Errors
    /// The program cannot be installed.
    pub(super) fn command(self, workspace: &Workspace) -> Result<Command> {
        let root = workspace.root().join(FOLDER);
        let mut install = workspace.cargo();
        // A build folder of its own, which cargo removes; that of the workspace would keep its dependencies.
        install.env_remove("CARGO_TARGET_DIR");
        install.args(["install", "--quiet", "--locked", "--root"]).arg(&root).arg(self.name());
        process::say(&format!("$ {}", process::show(&install)));
        process::run(&mut install).with_context(|| {
            format!(
                "{} is needed for this part of the check and cannot be installed into {FOLDER}; install it there, or leave \
                 the part out with --only",
                self.name()
            )
        })?;
        let mut command =
            Command::new(root.join("bin").join(format!("{}{}", self.name, env::consts::EXE_SUFFIX)));
        command.current_dir(workspace.root()).arg(self.name.trim_start_matches("cargo-"));
        Ok(command)
    }
}
