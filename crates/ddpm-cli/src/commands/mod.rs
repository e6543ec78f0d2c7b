//! One file a command.

pub(crate) mod bench;
mod classifier;
pub(crate) mod data;
pub(crate) mod eval;
pub(crate) mod features;
pub(crate) mod info;
mod job;
mod likelihood;
pub(crate) mod sample;
pub(crate) mod train;
