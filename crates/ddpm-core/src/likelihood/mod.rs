//! The variational bound on the likelihood (stub that the likelihood author replaces).

/// Stub.
pub fn optimal_variances() {}
