//! Starting other programs, and what is said on the terminal around them.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Write};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result};

/// A program that was started and did not succeed.
#[derive(Debug)]
pub(crate) struct Failed {
    command: String,
    code: Option<i32>,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "`{}` exited with code {code}", self.command),
            None => write!(f, "`{}` was ended by a signal", self.command),
        }
    }
}

impl std::error::Error for Failed {}

/// Runs a program whose output goes straight to the terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", show(command)))?;
    check(command, status)
}

/// Runs a program and returns what it writes to stdout; its stderr goes to the terminal.
pub(crate) fn run_for_stdout(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{}`", show(command)))?;
    check(command, output.status)?;
    String::from_utf8(output.stdout).with_context(|| format!("`{}` printed no text", show(command)))
}

/// The exit code for an error: that of the program that failed, if one did.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(failed_code(error).unwrap_or(1))
}

fn failed_code(error: &anyhow::Error) -> Option<u8> {
    let failed = error.chain().find_map(|cause| cause.downcast_ref::<Failed>())?;
    u8::try_from(failed.code?).ok()
}

/// A command line as one would type it, with the program's name instead of its path.
pub(crate) fn show(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_stem().unwrap_or(program.as_os_str());
    std::iter::once(name).chain(command.get_args()).map(quote).collect::<Vec<_>>().join(" ")
}

/// A word of a command line, in quotes if a shell would otherwise take it apart.
pub(crate) fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Tells the user something on stderr.
#[allow(clippy::print_stderr, reason = "the one place that does; tests capture what it prints")]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}

/// Writes the result of a job to stdout.
pub(crate) fn print(text: &str) -> Result<()> {
    writeln!(io::stdout(), "{text}").context("cannot write to stdout")
}

fn check(command: &Command, status: ExitStatus) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    Err(Failed { command: show(command), code: status.code() }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_shown_as_typed() {
        let mut command = Command::new("/somewhere/target/release/ddpm-cli");
        command.args(["train", "--data", "my digits", "--out", "runs/quick", "it's", ""]);
        assert_eq!(show(&command), r"ddpm-cli train --data 'my digits' --out runs/quick 'it'\''s' ''");
    }

    #[test]
    fn the_code_of_a_failed_program_is_found_below_contexts() {
        let failed = Failed { command: "ddpm-cli train".into(), code: Some(7) };
        let error = anyhow::Error::from(failed).context("inner").context("outer");
        assert_eq!(failed_code(&error), Some(7));
        assert_eq!(format!("{error:#}"), "outer: inner: `ddpm-cli train` exited with code 7");
        assert_eq!(failed_code(&anyhow::anyhow!("something else")), None);
    }
}
