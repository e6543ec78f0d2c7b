//! The processes of `train --mpi`.

use anyhow::Result;
use ddpm_train::ProcessGroup;

/// The processes that train together; one without --mpi.
#[derive(Debug)]
pub(super) struct Processes {
    #[cfg(feature = "mpi")]
    mpi: Option<ddpm_train::Mpi>,
}

#[cfg(feature = "mpi")]
impl Processes {
    /// Joins the processes of the job if `mpi` is true.
    pub(super) fn start(mpi: bool) -> Result<Self> {
        Ok(Self { mpi: mpi.then(ddpm_train::Mpi::start).transpose()? })
    }

    pub(super) fn group(&self) -> Option<&dyn ProcessGroup> {
        self.mpi.as_ref().map(|mpi| mpi as &dyn ProcessGroup)
    }

    /// Ends this process with the result of its run. If it alone failed, it ends the others too, which would wait for it. A run
    /// that was stopped has ended in all processes, and one message is enough.
    pub(super) fn end(self, result: Result<()>) -> Result<()> {
        use crate::{interrupt::Interrupted, output};

        let (Some(mpi), Err(error)) = (&self.mpi, &result) else { return result };
        let interrupted = error.chain().find_map(|cause| cause.downcast_ref::<Interrupted>());
        let is_stopped = error
            .chain()
            .any(|cause| matches!(cause.downcast_ref(), Some(ddpm_train::Error::Stopped { .. })));
        let is_failure = interrupted.is_none() && !is_stopped;
        // Before the end of MPI: once a process has ended with an error, the launcher kills those that have not ended.
        if is_failure || mpi.rank() == 0 {
            output::error(error);
        }
        if is_failure {
            mpi.abort(1);
        }
        let code = interrupted.map_or(1, |interrupted| interrupted.exit_code().into());
        drop(self);
        std::process::exit(code)
    }
}

#[cfg(not(feature = "mpi"))]
impl Processes {
    /// Fails if `mpi` is true.
    pub(super) fn start(mpi: bool) -> Result<Self> {
        anyhow::ensure!(
            !mpi,
            "this build cannot use MPI; build with the feature `mpi`: `cargo install --path crates/ddpm-cli --features \
             mpi`, or `cargo run --release -p ddpm-cli --features mpi -- …`, which needs Open MPI and libclang (on Debian \
             libopenmpi-dev, openmpi-bin and libclang-dev)"
        );
        Ok(Self {})
    }

    #[allow(clippy::unused_self, reason = "as with the feature")]
    pub(super) fn group(&self) -> Option<&dyn ProcessGroup> {
        None
    }

    #[allow(clippy::unused_self, reason = "as with the feature")]
    pub(super) fn end(self, result: Result<()>) -> Result<()> {
        result
    }
}
