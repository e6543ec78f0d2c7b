//! Integration tests of `ddpm-eval`: they use the public API only.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod metrics;
mod statistics;
