//! Output of the program: results on standard output, everything else on standard error.

use std::io::{self, Write};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;

use crate::args::Common;

/// Prints a result: as JSON with `--json`, otherwise as text, and nothing with `--quiet` alone.
pub(crate) fn result(common: &Common, json: &impl Serialize, text: &str) -> Result<()> {
    let text = match (common.json, common.quiet) {
        (true, _) => serde_json::to_string(json)?,
        (false, true) => return Ok(()),
        (false, false) => text.trim_end().to_owned(),
    };
    writeln!(io::stdout(), "{text}").context("cannot write to standard output")
}

/// Items separated by commas, as options of the command line expect them.
pub(crate) fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

/// The name of a value, as an option of the command line expects it.
pub(crate) fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Prints a line on standard error with `--verbose`.
pub(crate) fn verbose(common: &Common, line: &str) {
    if common.verbose {
        // A closed standard error is ignored: the error could not be reported.
        drop(writeln!(io::stderr(), "{line}"));
    }
}

/// Prints a warning on standard error.
pub(crate) fn warning(line: &str) {
    drop(writeln!(io::stderr(), "warning: {line}"));
}

/// Prints the warnings of the libraries of this workspace.
struct Warnings;

impl log::Log for Warnings {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn && metadata.target().starts_with("ddpm_")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            warning(&record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// From now on, prints the warnings of the libraries of this workspace.
pub(crate) fn print_warnings() {
    if log::set_logger(&Warnings).is_ok() {
        log::set_max_level(log::LevelFilter::Warn);
    }
}

/// Prints an error with its causes on one line. If the error is that this build lacks the Hub's client, the line ends
/// with the commands that build the program with it.
pub(crate) fn error(error: &anyhow::Error) {
    drop(writeln!(io::stderr(), "error: {}", error_line(error)));
}

fn error_line(error: &anyhow::Error) -> String {
    // The error and all its sources, separated by ": ".
    let mut text = format!("{error:#}");
    if let Some(ddpm_data::Error::HubFeature { .. }) = error.downcast_ref() {
        text += ": `cargo install --path crates/ddpm-cli --features hub`, or \
                 `cargo run --release -p ddpm-cli --features hub -- …`";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_hub_the_error_names_the_commands_that_add_it() {
        let address = "hf://datasets/a/b".to_owned();
        let line = error_line(&ddpm_data::Error::HubFeature { address }.into());
        assert_eq!(
            line,
            "hf://datasets/a/b: this build cannot read from the Hub; build with the feature `hub`: \
             `cargo install --path crates/ddpm-cli --features hub`, or \
             `cargo run --release -p ddpm-cli --features hub -- …`"
        );
    }
}
