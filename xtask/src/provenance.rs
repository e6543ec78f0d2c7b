//! The provenance of a result: the command, the version of the code and the machine.

use std::env;

use serde::Serialize;

use crate::machine::Machine;
use crate::phases::in_words;
use crate::process;
use crate::workspace::Workspace;

/// The provenance, which every result file begins with.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Provenance {
    /// The command line that reproduces the results.
    pub(crate) command: String,
    pub(crate) version: String,
    /// `None` outside git; see [`Workspace::commit`].
    pub(crate) commit: Option<String>,
    pub(crate) machine: Machine,
    pub(crate) seed: u64,
}

impl Provenance {
    /// The provenance of this process. Call it before any file is written: it includes the state of the checkout.
    pub(crate) fn of_this_process(workspace: &Workspace, seed: u64) -> Self {
        let words: Vec<_> = env::args_os().skip(1).map(|word| process::quote(&word)).collect();
        Self {
            command: format!("cargo xtask {}", words.join(" ")),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: workspace.commit(),
            machine: Machine::this(),
            seed,
        }
    }

    /// The provenance as a Markdown list; `total_seconds` is the wall time of the whole job.
    pub(crate) fn markdown(&self, total_seconds: f64) -> String {
        format!(
            "- Command: `{}` ({} in all)\n- Version: {}, commit {}\n- Machine: {}\n- Seed: {}",
            self.command,
            in_words(total_seconds),
            self.version,
            self.commit.as_deref().unwrap_or("unknown"),
            self.machine,
            self.seed
        )
    }
}
