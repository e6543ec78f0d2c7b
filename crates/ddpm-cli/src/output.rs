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
    let lines: Vec<_> = text.split('\n').map(escape).collect();
    writeln!(io::stdout(), "{}", lines.join("\n")).context("cannot write to standard output")
}

/// Prints text that is the result itself, such as a file.
pub(crate) fn text(text: &str) -> Result<()> {
    io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")
}

/// A line with its control characters, and characters that change the direction of the text, as `\uXXXX`, which is also
/// their form in JSON. Text from a file or a server could otherwise control the terminal.
fn escape(line: &str) -> String {
    let mut escaped = String::with_capacity(line.len());
    for character in line.chars() {
        let direction = matches!(character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || direction {
            escaped += &format!("\\u{:04x}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    escaped
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
        lines(line);
    }
}

/// Prints lines on standard error.
pub(crate) fn lines(text: &str) {
    // A closed standard error is ignored: the error could not be reported.
    for line in text.split('\n') {
        drop(writeln!(io::stderr(), "{}", escape(line)));
    }
}

/// Prints a warning on standard error.
pub(crate) fn warning(line: &str) {
    drop(writeln!(io::stderr(), "warning: {}", escape(line)));
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

/// Prints an error with its causes on one line. If the error is that this build lacks the feature `hub`, the line ends
/// with the commands that build the program with it.
pub(crate) fn error(error: &anyhow::Error) {
    drop(writeln!(io::stderr(), "error: {}", escape(&error_line(error))));
}

fn error_line(error: &anyhow::Error) -> String {
    // The error and all its sources, separated by ": ".
    let mut text = format!("{error:#}");
    if let Some(ddpm_data::Error::HubFeature { .. } | ddpm_data::Error::ParquetFeature { .. }) =
        error.downcast_ref()
    {
        text += ": `cargo install --path crates/ddpm-cli --features hub`, or \
                 `cargo run --release -p ddpm-cli --features hub -- …`";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        for (text, expected) in [
            ("plain – ε ÷ 日本", "plain – ε ÷ 日本"),
            ("\x1b[2J\x07", "\\u001b[2J\\u0007"),
            ("a\r\nerror: b\tc\x7f", "a\\u000d\\u000aerror: b\\u0009c\\u007f"),
            ("\u{9b}31m", "\\u009b31m"),
            ("\u{202e}gnp.exe", "\\u202egnp.exe"),
        ] {
            assert_eq!(escape(text), expected);
        }
    }

    #[test]
    fn without_the_hub_the_error_names_the_commands_that_add_it() {
        let address = "hf://datasets/a/b".to_owned();
        let line = error_line(&ddpm_data::Error::HubFeature { address }.into());
        assert_eq!(
            line,
            "hf://datasets/a/b: this build cannot use the Hub; build with the feature `hub`: \
             `cargo install --path crates/ddpm-cli --features hub`, or \
             `cargo run --release -p ddpm-cli --features hub -- …`"
        );
    }
}
