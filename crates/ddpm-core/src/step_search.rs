//! Step search (stub that the likelihood author replaces).

/// Stub.
#[derive(Debug)]
pub struct StepCosts;
