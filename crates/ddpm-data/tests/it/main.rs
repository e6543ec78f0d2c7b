//! Integration tests of `ddpm-data`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod alloc;
mod damage;
mod dataset;
mod folder;
#[cfg(feature = "formats")]
mod formats;
#[cfg(feature = "hub")]
mod hub;
mod idx;
#[cfg(feature = "mnist")]
mod mnist;
#[cfg(feature = "hub")]
mod parquet;

/// Checks that no error in a chain of causes repeats the text of its source, so that
/// a program can print the chain on one line.
fn check_causes(error: &ddpm_data::Error) {
    let first: &dyn std::error::Error = error;
    let texts: Vec<_> =
        std::iter::successors(Some(first), |error| error.source()).map(ToString::to_string).collect();
    assert!(texts.windows(2).all(|pair| !pair[0].contains(&pair[1])), "{texts:?}");
}
