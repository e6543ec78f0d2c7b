//! Averages of the weights whose length is chosen after training: post-hoc EMA (Karras et al. 2023, arXiv 2312.02696,
//! section 3 and appendix C).
//!
//! An average of relative length σ_rel weights the parameters of step τ by a power function τ^γ, so it remembers a fixed
//! share of the training so far. Two such averages are updated during training, and snapshots of both are stored. Their
//! power functions add up to that of almost any other length.

mod average;
mod profile;
pub(crate) mod snapshots;

pub use average::{SnapshotAverage, average_snapshots};
pub(crate) use snapshots::FOLDER;

/// The relative lengths of the averages that are updated during training.
pub(crate) const SIGMA_RELS: [f64; 2] = [0.05, 0.10];

/// The largest number of snapshots of a run.
pub(crate) const MAX_SNAPSHOTS: usize = 256;

/// The number of steps between two updates of the averages.
const UPDATE_STEPS: u64 = 8;

/// The steps of a run at which the averages are updated and snapshots are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timetable {
    /// The number of snapshots of the run, at most [`MAX_SNAPSHOTS`]; 0 if there are no averages.
    pub(crate) snapshots: u64,
    /// The number of steps of the run, at least 1.
    pub(crate) total: u64,
}

impl Timetable {
    /// The number of snapshots up to a step. Snapshot i of n is that of step ⌈i · total / n⌉.
    pub(crate) fn snapshots_until(self, step: u64) -> u64 {
        step.saturating_mul(self.snapshots).checked_div(self.total).unwrap_or(0)
    }

    /// Whether there is a snapshot of a step, which is at least 1. If the run has fewer steps than snapshots, there is one
    /// of each step.
    pub(crate) fn has_snapshot(self, step: u64) -> bool {
        self.snapshots_until(step) > self.snapshots_until(step - 1)
    }

    /// The rate with which each average moves towards the weights after a step; `None` if it is not updated then. It is
    /// updated at every eighth step and at the steps of the snapshots. If the update before that of step t was at step s,
    ///
    /// ```text
    /// rate = 1 − (s/t)^(γ+1)      average ← average + rate · (weights − average)
    /// ```
    ///
    /// With an update at each step, these are the averages of Karras et al. 2023 (section 3.1). In general the average is
    /// the integral of the power function times weights that are held between the updates: the weights of step t count for
    /// the steps from s to t.
    pub(crate) fn rates(self, step: u64) -> Option<[f64; SIGMA_RELS.len()]> {
        if self.snapshots == 0 || !(step.is_multiple_of(UPDATE_STEPS) || self.has_snapshot(step)) {
            return None;
        }
        let before = step - 1;
        let snapshot = self.snapshots_until(before).saturating_mul(self.total).div_ceil(self.snapshots);
        let previous = snapshot.max(before - before % UPDATE_STEPS);
        let ratio = previous as f64 / step as f64;
        Some(SIGMA_RELS.map(|sigma_rel| 1.0 - ratio.powf(profile::gamma(sigma_rel) + 1.0)))
    }
}

#[cfg(test)]
mod tests;
