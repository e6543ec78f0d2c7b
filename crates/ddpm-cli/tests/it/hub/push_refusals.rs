//! Pushes that are refused, fail or are killed.

use std::{fs, process::Stdio, thread::sleep, time::Duration};

use super::{
    online,
    push::files,
    run_online,
    server::{FORBIDDEN, MockHub, PushFault, TOKEN},
    with_run,
};
use crate::{WEIGHTS, fail};

/// Runs a push that must fail, and returns its standard error.
fn refused(server: &MockHub, folder: &std::path::Path, args: &[&str]) -> String {
    let assert = online(server, folder, &[&["push", "-v"], args].concat()).assert().code(1);
    let (output, error) = (assert.get_output().stdout.clone(), assert.get_output().stderr.clone());
    let error = String::from_utf8(error).unwrap();
    assert!(output.is_empty() && !error.contains(TOKEN), "{error}");
    error
}

#[test]
fn what_is_no_model_is_refused_before_a_request() {
    let (server, folder) = (MockHub::start(), with_run());
    let model = folder.path().join("run/model");
    let weights = fs::read(model.join(WEIGHTS)).unwrap();
    for (run, expected) in
        [("none", "none: expected a model folder"), ("data", "data: expected a model folder")]
    {
        let error = refused(&server, folder.path(), &[run, "hf://me/digits"]);
        assert!(error.contains(expected), "{error}");
    }
    fs::write(model.join(WEIGHTS), &weights[..weights.len() - 4]).unwrap();
    let error = refused(&server, folder.path(), &["run", "hf://me/digits"]);
    assert!(error.contains(WEIGHTS), "{error}");
    fs::write(model.join(WEIGHTS), "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n")
        .unwrap();
    let error = refused(&server, folder.path(), &["run", "hf://me/digits"]);
    assert!(error.contains(WEIGHTS) && error.contains("LFS"), "{error}");
    fs::write(model.join(WEIGHTS), weights).unwrap();
    fs::write(model.join("README.md"), [0xff, 0xfe]).unwrap();
    let error = refused(&server, folder.path(), &["run", "hf://me/digits"]);
    assert!(error.contains("README.md"), "{error}");
    assert!(server.take_requests().is_empty());
}

#[test]
fn without_a_token_or_offline_the_error_says_what_to_do() {
    let (server, folder) = (MockHub::start(), with_run());
    let mut command = online(&server, folder.path(), &["push", "run", "hf://me/digits"]);
    let assert = command.env_remove("HF_TOKEN").assert().code(1);
    let error = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    let file = folder.path().join("no-hub/token");
    assert!(error.contains("set HF_TOKEN") && error.contains(file.to_str().unwrap()), "{error}");
    let error = fail(folder.path(), 1, &["push", "run", "hf://me/digits"]);
    assert!(error.contains("cannot push to me/digits: offline mode is on; unset HF_HUB_OFFLINE"), "{error}");
    // The file is where the error says.
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, format!("{TOKEN}\n")).unwrap();
    command.assert().success();
}

#[test]
fn the_error_names_the_file_and_the_message_of_the_server() {
    let (server, folder) = (MockHub::start(), with_run());
    let args = ["run", "hf://me/digits"];
    server.fail_push(
        "PUT",
        &[PushFault::Status(413, "<Error><Message>too large, \u{1b}[31m hf_secret</Message></Error>")],
    );
    let error = refused(&server, folder.path(), &args);
    let expected = format!("sending {WEIGHTS} to the storage of me/digits failed: the server answered 413");
    assert!(error.contains(&expected) && error.contains("too large, \\u001b[31m …"), "{error}");
    let error = refused(&server, folder.path(), &["run", &format!("hf://{FORBIDDEN}/digits")]);
    assert!(error.contains("no permission") && error.contains("under the namespace"), "{error}");
    server.create("me/public", false);
    let error = refused(&server, folder.path(), &["run", "hf://me/public", "--private"]);
    assert!(error.contains("me/public is not private"), "{error}");
    assert_eq!([server.counts("me/digits"), server.counts("me/public")], [Some((1, 0, false)); 2]);
}

/// Killed while a large file is being sent: the branch is as before, and the next push completes it.
#[test]
fn a_killed_push_leaves_the_repository_as_it_was() {
    let (server, folder) = (MockHub::start(), with_run());
    server.fail_push("PUT", &[PushFault::Silent]);
    let prepared = online(&server, folder.path(), &[]);
    let mut command = std::process::Command::new(prepared.get_program());
    command.current_dir(folder.path()).args(["push", "run", "hf://me/digits"]).stderr(Stdio::null());
    for (name, value) in prepared.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut child = command.spawn().unwrap();
    let mut seen = Vec::new();
    while !seen.iter().any(|method| method == "PUT") {
        seen.extend(server.take_requests().into_iter().map(|request| request.method));
        assert!(child.try_wait().unwrap().is_none(), "{seen:?}");
        sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(server.counts("me/digits"), Some((1, 0, false)));
    assert_eq!(files(&server, "main").len(), 1);
    run_online(&server, folder.path(), &["push", "run", "hf://me/digits"]);
    assert_eq!(files(&server, "main").len(), 7);
}
