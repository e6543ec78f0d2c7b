//! Integration tests of `ddpm-data`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod alloc;
mod damage;
mod dataset;
mod folder;
#[cfg(feature = "hub")]
mod hub;
mod idx;
#[cfg(feature = "mnist")]
mod mnist;
