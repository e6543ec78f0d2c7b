//! The commands, one file each.

pub(crate) mod average;
pub(crate) mod bench;
mod card;
pub(crate) mod classify;
mod config_file;
pub(crate) mod data;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod fit_plan;
mod given;
pub(crate) mod info;
mod job;
pub(crate) mod likelihood;
mod previews;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod report;
pub(crate) mod sample;
mod sampling;
mod sheet;
pub(crate) mod shell;
pub(crate) mod train;
mod train_config;
pub(crate) mod train_features;
