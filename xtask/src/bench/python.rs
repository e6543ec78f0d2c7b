//! A Python with the packages of the peer.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::SCRIPTS;
use crate::process;
use crate::workspace::Workspace;

/// The Python that makes the virtual environment.
pub(crate) const SYSTEM: &str = if cfg!(windows) { "python" } else { "python3" };
const ENVIRONMENT: &str = "runs/peer-venv";

/// Prints the versions of the packages named in the arguments as JSON, null for those that are not there.
const VERSIONS: &str = "\
import json, sys
from importlib.metadata import PackageNotFoundError, version
def find(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None
print(json.dumps({name: find(name) for name in sys.argv[1:]}))";

/// The Python that is named, or one in a virtual environment that `system` makes at the first call.
///
/// # Errors
/// It cannot be started or made, or does not have the packages at the versions of `requirements.txt`.
pub(crate) fn ready(named: Option<&Path>, system: &OsStr, workspace: &Workspace) -> Result<PathBuf> {
    let file = Path::new(SCRIPTS).join("requirements.txt");
    let path = workspace.root().join(&file);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let python = match named {
        // A path is as seen from where the user is, and the scripts are run in the root; a mere name is looked up.
        Some(python) if python.components().count() > 1 => std::path::absolute(python)?,
        Some(python) => python.to_owned(),
        None => environment(system, workspace, &file, &text).context(
            "cannot make a virtual environment; --python PATH takes a Python that has the packages",
        )?,
    };
    let missing = missing(&python, workspace.root(), &requirements(&text)?)?;
    ensure!(
        missing.is_empty(),
        "{python} does not have {missing}; `{python} -m pip install -r {file}` installs them",
        python = python.display(),
        missing = missing.join(", "),
        file = file.display()
    );
    Ok(python)
}

/// Makes the virtual environment, unless it is there with the same requirements.
fn environment(system: &OsStr, workspace: &Workspace, file: &Path, requirements: &str) -> Result<PathBuf> {
    let root = workspace.root();
    let folder = root.join(ENVIRONMENT);
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let installed = folder.join("installed.txt");
    if fs::read_to_string(&installed).is_ok_and(|text| text == requirements) {
        return Ok(python);
    }
    let run = |program: &OsStr, arguments: &[&OsStr]| {
        let mut command = Command::new(program);
        command.current_dir(root).args(arguments);
        process::say(&format!("$ {}", process::show(&command)));
        process::run(&mut command)
    };
    let words = |words: [&'static str; 2]| words.map(OsStr::new);
    run(system, &[&words(["-m", "venv"])[..], &[OsStr::new(ENVIRONMENT)]].concat())?;
    let install = [words(["-m", "pip"]), words(["install", "-r"])].concat();
    run(python.as_os_str(), &[&install[..], &[file.as_os_str()]].concat())?;
    fs::write(&installed, requirements).with_context(|| format!("cannot write {}", installed.display()))?;
    Ok(python)
}

/// The packages of a `requirements.txt` and their versions.
fn requirements(text: &str) -> Result<BTreeMap<&str, &str>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once("==").with_context(|| format!("`{line}` pins no version"))).collect()
}

/// What a Python lacks, in words.
fn missing(python: &Path, root: &Path, wanted: &BTreeMap<&str, &str>) -> Result<Vec<String>> {
    let mut command = Command::new(python);
    command.current_dir(root).args(["-c", VERSIONS]).args(wanted.keys());
    let name = python.display();
    let text =
        process::run_for_stdout(&mut command).with_context(|| format!("{name} is no usable Python"))?;
    let found: BTreeMap<String, Option<String>> = serde_json::from_str(&text)
        .with_context(|| format!("{name} printed unexpected versions: {}", text.trim()))?;
    let missing =
        wanted.iter().filter_map(|(&package, &version)| match found.get(package).cloned().flatten() {
            // A local version, such as that of a build for one kind of device, is after a plus sign.
            Some(found) if found.split('+').next() == Some(version) => None,
            Some(found) => Some(format!("{package} {version} (found {found})")),
            None => Some(format!("{package} {version} (not installed)")),
        });
    Ok(missing.collect())
}
