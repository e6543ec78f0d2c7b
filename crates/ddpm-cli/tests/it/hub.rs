//! `push` and `pull`, with a mock of the Hub on the loopback interface.

#[cfg(feature = "hub")]
#[path = "../../../ddpm-data/tests/it/hub/server/mod.rs"]
#[allow(dead_code, reason = "the tests of ddpm-data use the rest of it")]
mod server;

#[cfg(feature = "hub")]
mod pull;
#[cfg(feature = "hub")]
mod push;
#[cfg(feature = "hub")]
mod push_refusals;

use tempfile::tempdir;

use crate::{ddpm, fail};

#[cfg(feature = "hub")]
use {
    crate::LABELLED,
    assert_cmd::{Command, assert::Assert},
    server::{MockHub, TOKEN},
    std::{fs, path::Path},
};

#[cfg(not(feature = "hub"))]
#[test]
fn without_the_feature_hub_the_error_names_the_command_that_adds_it() {
    let folder = tempdir().unwrap();
    for args in [
        &["push", "run", "hf://me/digits"][..],
        &["push", "run", "hf://me/digits", "--dry-run"],
        &["pull", "hf://me/digits"],
    ] {
        let error = fail(folder.path(), 1, args);
        assert!(error.starts_with("error: hf://me/digits"), "{error}");
        assert!(error.contains("cargo install --path crates/ddpm-cli --features hub"), "{error}");
        assert_eq!(crate::names(folder.path()), [""; 0]);
    }
}

#[test]
fn a_wrong_address_licence_or_message_is_a_wrong_command_line() {
    let folder = tempdir().unwrap();
    for (args, expected) in [
        (&["push", "run", "me/digits"][..], "expected hf://OWNER/NAME"),
        (&["push", "run", "hf://digits"], "expected hf://OWNER/NAME"),
        (&["push", "run", "hf://datasets/me/digits"], "expected hf://OWNER/NAME"),
        (&["pull", "hf://me/../digits"], "expected hf://OWNER/NAME"),
        (&["push", "run", "hf://me/a", "--license", "my own: licence"], "such as mit or apache-2.0"),
        (&["push", "run", "hf://me/a", "--license", "4"], "such as mit or apache-2.0"),
        (&["push", "run", "hf://me/a", "--message", "a\nb"], "one line of text"),
        (&["push", "run"], "hf://OWNER/NAME"),
        (&["pull", "hf://me/a", "-o", "-"], "standard output"),
    ] {
        let error = fail(folder.path(), 2, args);
        assert!(error.contains(expected), "{args:?}: {error}");
    }
    let error = fail(folder.path(), 1, &["pull", "hf://me/a@v1", "--revision", "v2"]);
    assert!(error.contains("--revision v2") && error.contains("hf://me/a@v1"), "{error}");
    ddpm(folder.path(), &["push", "run", "hf://me/a@v1", "--revision", "../x"]).assert().code(1);
}

/// The program in a folder, with a server as the Hub and the token of its user.
#[cfg(feature = "hub")]
fn online(server: &MockHub, folder: &Path, args: &[&str]) -> Command {
    let mut command = ddpm(folder, args);
    command.env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", server.config().endpoint).env("HF_TOKEN", TOKEN);
    command.env("NO_PROXY", "127.0.0.1");
    command
}

/// Runs the program, which must succeed and not show the token.
#[cfg(feature = "hub")]
fn run_online(server: &MockHub, folder: &Path, args: &[&str]) -> Assert {
    let assert = online(server, folder, args).assert().success();
    let output = assert.get_output();
    assert!(!format!("{:?}{:?}", output.stdout, output.stderr).contains(TOKEN));
    assert
}

/// A folder with the data set as `data` and a finished run as `run`.
#[cfg(feature = "hub")]
fn with_run() -> tempfile::TempDir {
    let folder = LABELLED.folder(true);
    for (path, bytes) in &LABELLED.files {
        let path = folder.path().join("run").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}
