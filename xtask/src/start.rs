//! How the jobs begin that work with `ddpm-cli`.

use std::path::PathBuf;

use anyhow::Result;

use crate::phases::Phases;
use crate::provenance::Provenance;
use crate::workspace::Workspace;

/// A job under way: where it works, with which program, what it writes down of itself, and its phases so far.
#[derive(Debug)]
pub(crate) struct Started<'a> {
    pub(crate) workspace: &'a Workspace,
    /// The built `ddpm-cli`.
    pub(crate) binary: PathBuf,
    pub(crate) provenance: Provenance,
    pub(crate) phases: Phases,
}

impl<'a> Started<'a> {
    /// Builds `ddpm-cli` with these features, which is the first phase.
    pub(crate) fn with_build(workspace: &'a Workspace, seed: u64, features: &[&str]) -> Result<Self> {
        let provenance = Provenance::of_this_process(workspace, seed);
        let mut phases = Phases::start();
        let binary = phases.run("build", || workspace.build_cli(features))?;
        Ok(Self { workspace, binary, provenance, phases })
    }
}
