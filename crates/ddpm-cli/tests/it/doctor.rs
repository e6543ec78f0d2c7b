//! `doctor`: what it finds, and its exit code.

use std::fs;

use serde_json::Value;
use tempfile::tempdir;

use crate::{ddpm, stdout};

/// The state of a check, and what it found.
fn check<'a>(checks: &'a Value, name: &str) -> (&'a str, &'a str) {
    let check = checks.as_array().unwrap().iter().find(|check| check["name"] == name).unwrap();
    (check["state"].as_str().unwrap(), check["found"].as_str().unwrap())
}

#[test]
fn every_check_has_a_line_and_the_token_is_never_printed() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    let text = stdout(&ddpm(path, &["doctor"]).assert().success());
    for name in
        ["build", "features", "instructions", "threads", "device", "model", "folder", "cache", "token", "hub"]
    {
        assert!(text.lines().any(|line| line.split_whitespace().nth(1) == Some(name)), "{name}: {text}");
    }
    assert!(text.contains("GiB free") || !cfg!(unix), "{text}");
    let json = |command: &mut assert_cmd::Command| -> Value {
        let text = stdout(&command.assert().success());
        assert!(!text.contains("hf_secret"), "{text}");
        serde_json::from_str(&text).unwrap()
    };
    let mut without = ddpm(path, &["doctor", "--json"]);
    let checks = json(without.env("HF_TOKEN_PATH", path.join("none")));
    assert_eq!(check(&checks, "token"), ("note", "none"));
    assert_eq!(check(&checks, "model").0, "good");
    assert!(check(&checks, "hub").1.ends_with(", offline"));
    let mut with = ddpm(path, &["doctor", "--json"]);
    let checks = json(with.env("HF_TOKEN", "hf_secret").env("HF_HUB_CACHE", path));
    assert_eq!(check(&checks, "token"), ("good", "from the environment"));
    assert!(check(&checks, "cache").1.contains("exists"));
    fs::write(path.join("token"), "hf_secret").unwrap();
    let mut in_file = ddpm(path, &["doctor", "--json"]);
    let checks = json(in_file.env("HF_TOKEN_PATH", path.join("token")));
    assert!(check(&checks, "token").1.ends_with("token"));
}

#[test]
fn threads_beside_the_number_of_cores_are_a_note() {
    let folder = tempdir().unwrap();
    let threads = (100 + std::thread::available_parallelism().unwrap().get()).to_string();
    let text = stdout(&ddpm(folder.path(), &["doctor", "--threads", &threads]).assert());
    assert!(text.contains(&format!("note   threads       {threads} on ")), "{text}");
    assert!(text.contains("→ more threads than cores wait for each other"), "{text}");
}

#[test]
fn a_device_that_does_not_open_is_a_fault_and_an_exit_code() {
    let folder = tempdir().unwrap();
    let output = ddpm(folder.path(), &["doctor", "--device", "cuda:77"]).output().unwrap();
    let (text, error) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("FAULT  device") && text.contains("leave --device cuda:77 out"), "{text}");
    assert!(error.contains("1 of 10 checks found a fault"), "{error}");
}
