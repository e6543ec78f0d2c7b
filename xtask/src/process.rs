//! Starts other programs and prints messages on the terminal.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result};

/// The error of a program that was started and failed.
#[derive(Debug, thiserror::Error)]
#[error("`{command}` {}", code.map_or("was ended by a signal".to_owned(), |code| format!("exited with code {code}")))]
pub(crate) struct Failed {
    command: String,
    code: Option<i32>,
}

/// The error of a job that needs something which this machine lacks. Its exit code is 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Lacking(pub(crate) String);

/// Runs a program whose output goes to the terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", show(command)))?;
    check(command, status)
}

/// Runs a program and returns its standard output; its standard error goes to the terminal.
pub(crate) fn run_for_stdout(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{}`", show(command)))?;
    check(command, output.status)?;
    String::from_utf8(output.stdout)
        .with_context(|| format!("the output of `{}` is not UTF-8 text", show(command)))
}

/// The exit code for an error: the code of the program that failed, 2 for [`Lacking`], or 1 if the error has another cause.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(failed_code(error).unwrap_or(1))
}

fn failed_code(error: &anyhow::Error) -> Option<u8> {
    if error.downcast_ref::<Lacking>().is_some() {
        return Some(2);
    }
    let failed = error.chain().find_map(|cause| cause.downcast_ref::<Failed>())?;
    u8::try_from(failed.code?).ok()
}

/// A command line as a user would type it, with the name of the program instead of its path.
pub(crate) fn show(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_stem().unwrap_or(program.as_os_str());
    std::iter::once(name).chain(command.get_args()).map(quote).collect::<Vec<_>>().join(" ")
}

/// A word of a command line, in quotes if it has characters that are special in a shell.
pub(crate) fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Prints a message on standard error.
#[allow(clippy::print_stderr, reason = "the only use; the test harness captures this output")]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}

/// Prints the result of a job on standard output.
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
        assert_eq!(failed_code(&anyhow::Error::from(Lacking("no GPU".into())).context("outer")), Some(2));
    }
}
