//! The options and the virtual environment. The programs `true` and `false` replace Python.

use std::fs;
use std::os::unix::fs::symlink;

use super::{Arguments, environment};
use crate::tests::parse;

#[test]
fn options_of_the_comparison_need_peer() {
    let parse = parse::<Arguments>;
    assert!(parse(&["--rounds", "9"]).is_err());
    assert!(parse(&["--peer", "--rounds", "4"]).is_err(), "too few for a median");
    assert!(parse(&["--peer", "--threads", "0"]).is_err());
    assert_eq!(parse(&["--peer"]).unwrap().rounds, 7);
}

#[test]
fn a_virtual_environment_is_made_once_for_the_same_requirements() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let requirements = root.join("xtask/peer/requirements.txt");
    for folder in ["xtask/peer", "runs/peer-venv/bin"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(&requirements, "torch==1.0\n").unwrap();
    let python = root.join("runs/peer-venv/bin/python");
    let becomes = |program: &str| {
        drop(fs::remove_file(&python));
        symlink(program, &python).unwrap();
    };
    let message = |system| format!("{:#}", environment(system, root).unwrap_err());

    becomes("/usr/bin/false");
    assert!(message("true").contains("-m pip install -r"), "the installation fails");
    assert!(message("true").contains("--python PATH"), "and the next call tries it again");
    becomes("/usr/bin/true");
    assert_eq!(environment("true", root).unwrap(), python);
    assert_eq!(environment("no-such-python", root).unwrap(), python, "no program is started");
    fs::write(&requirements, "torch==2.0\n").unwrap();
    assert!(message("no-such-python").contains("cannot start `no-such-python -m venv"));
}
