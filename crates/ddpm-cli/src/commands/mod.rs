//! The commands, one file each.

mod arrays;
pub(crate) mod average;
pub(crate) mod bench;
mod card;
pub(crate) mod classify;
mod config_file;
pub(crate) mod data;
pub(crate) mod doctor;
pub(crate) mod eval;
mod events;
pub(crate) mod export;
pub(crate) mod fit_plan;
mod given;
pub(crate) mod import;
pub(crate) mod info;
mod job;
pub(crate) mod likelihood;
pub(crate) mod merge;
mod part;
mod previews;
mod processes;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod report;
pub(crate) mod sample;
mod sampling;
#[cfg(feature = "serve")]
pub(crate) mod serve;
mod sheet;
pub(crate) mod shell;
pub(crate) mod train;
mod train_config;
pub(crate) mod train_features;
