//! Calls of `ddpm-cli`.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::printed::Printed;
use crate::process;

/// A built `ddpm-cli` and the settings that all its calls share.
#[derive(Debug)]
pub(crate) struct Ddpm<'a> {
    /// The program.
    pub(crate) binary: &'a Path,
    /// The working folder of the program.
    pub(crate) root: &'a Path,
    pub(crate) seed: u64,
    /// Number of threads; `None` is the default of `ddpm-cli`, all cores.
    pub(crate) threads: Option<usize>,
}

impl Ddpm<'_> {
    /// Runs a command with `--json`. Its arguments are `line`, split at spaces, and then `more`, which are not split.
    ///
    /// # Errors
    /// The command fails or does not print JSON.
    pub(crate) fn call(&self, line: &str, more: &[&str]) -> Result<Printed> {
        let mut command = Command::new(self.binary);
        command.current_dir(self.root).args(line.split_whitespace()).args(more);
        // These commands use no random numbers.
        if !["data", "export", "import", "info", "merge"].iter().any(|name| line.starts_with(name)) {
            command.args(["--seed", &self.seed.to_string()]);
        }
        if let Some(threads) = self.threads {
            command.args(["--threads", &threads.to_string()]);
        }
        printed(command.arg("--json"))
    }

    /// A path as an argument. A path below the root becomes relative, so that results contain no paths of the machine.
    pub(crate) fn path(&self, path: &Path) -> String {
        path.strip_prefix(self.root).unwrap_or(path).display().to_string()
    }
}

/// Runs a command that prints JSON, and shows it before.
///
/// # Errors
/// The command fails or does not print JSON.
pub(crate) fn printed(command: &mut Command) -> Result<Printed> {
    let shown = process::show(command);
    process::say(&format!("$ {shown}"));
    Printed::parse(shown, &process::run_for_stdout(command)?)
}
