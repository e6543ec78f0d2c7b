//! The start of jobs that use `ddpm-cli`.

use std::path::PathBuf;

use anyhow::Result;

use crate::phases::Phases;
use crate::provenance::Provenance;
use crate::workspace::Workspace;

/// The state of a job after the build: its workspace, the built program, its provenance, and its phases so far.
#[derive(Debug)]
pub(crate) struct Started<'a> {
    pub(crate) workspace: &'a Workspace,
    /// The built `ddpm-cli`.
    pub(crate) binary: PathBuf,
    pub(crate) provenance: Provenance,
    pub(crate) phases: Phases,
}

impl<'a> Started<'a> {
    /// Builds `ddpm-cli` with these features, as the first phase.
    pub(crate) fn with_build(workspace: &'a Workspace, seed: u64, features: &[&str]) -> Result<Self> {
        let provenance = Provenance::of_this_process(workspace, seed);
        let mut phases = Phases::start();
        let binary = phases.run("build", || workspace.build_cli(features))?;
        Ok(Self { workspace, binary, provenance, phases })
    }
}
