//! Integration tests of `ddpm-eval`: everything here goes through the public API.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod metrics;
mod statistics;
