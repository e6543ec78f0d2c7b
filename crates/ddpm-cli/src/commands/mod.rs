//! The commands, one file each.

pub(crate) mod average;
pub(crate) mod bench;
mod card;
pub(crate) mod classify;
mod config_file;
pub(crate) mod data;
pub(crate) mod eval;
pub(crate) mod fit_plan;
pub(crate) mod info;
mod job;
pub(crate) mod likelihood;
mod previews;
pub(crate) mod sample;
mod sampling;
#[cfg(feature = "serve")]
pub(crate) mod serve;
pub(crate) mod train;
mod train_config;
pub(crate) mod train_features;
