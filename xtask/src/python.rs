//! Virtual environments of Python.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;

/// A virtual environment of this workspace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Environment<'a> {
    /// The root of the workspace.
    pub(crate) root: &'a Path,
    /// The file with its packages and their versions, below the root.
    pub(crate) requirements: &'a str,
    /// Its folder, below the root.
    pub(crate) folder: &'a str,
}

impl Environment<'_> {
    /// The interpreter that the user has chosen, or the one of the environment.
    pub(crate) fn interpreter(&self, chosen: Option<&Path>) -> Result<PathBuf> {
        match chosen {
            Some(python) => Ok(python.to_owned()),
            None => self.created_by("python3"),
        }
    }

    /// The interpreter of the environment. The interpreter `system` creates it, unless it exists with the same requirements.
    /// pip downloads the packages from the index in its own configuration.
    fn created_by(&self, system: &str) -> Result<PathBuf> {
        let (wanted, folder) = (self.root.join(self.requirements), self.root.join(self.folder));
        let (python, installed) = (folder.join("bin/python"), folder.join("requirements.txt"));
        let requirements = fs::read(&wanted).with_context(|| format!("cannot read {}", wanted.display()))?;
        if fs::read(&installed).is_ok_and(|found| found == requirements) {
            return Ok(python);
        }
        process::run(Command::new(system).args(["-m", "venv"]).arg(&folder))
            .and_then(|()| {
                process::run(Command::new(&python).args(["-m", "pip", "install", "-r"]).arg(&wanted))
            })
            .context(
                "cannot create a virtual environment; pass --python PATH for an interpreter that has the packages",
            )?;
        fs::write(&installed, requirements)
            .with_context(|| format!("cannot write {}", installed.display()))?;
        Ok(python)
    }
}

/// The programs `true` and `false` replace Python.
#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_virtual_environment_is_made_once_for_the_same_requirements() {
        let root = tempfile::tempdir().unwrap();
        let environment =
            Environment { root: root.path(), requirements: "wanted/requirements.txt", folder: "runs/venv" };
        let requirements = root.path().join("wanted/requirements.txt");
        for folder in ["wanted", "runs/venv/bin"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(&requirements, "torch==1.0\n").unwrap();
        let python = root.path().join("runs/venv/bin/python");
        let becomes = |program: &str| {
            drop(fs::remove_file(&python));
            symlink(program, &python).unwrap();
        };
        let message = |system| format!("{:#}", environment.created_by(system).unwrap_err());

        becomes("/usr/bin/false");
        assert!(message("true").contains("-m pip install -r"), "the installation fails");
        assert!(message("true").contains("--python PATH"), "and the next call tries it again");
        becomes("/usr/bin/true");
        assert_eq!(environment.created_by("true").unwrap(), python);
        assert_eq!(environment.created_by("no-such-python").unwrap(), python, "no program is started");
        assert_eq!(environment.interpreter(Some(Path::new("mine"))).unwrap(), Path::new("mine"));
        fs::write(&requirements, "torch==2.0\n").unwrap();
        assert!(message("no-such-python").contains("cannot start `no-such-python -m venv"));
    }
}
