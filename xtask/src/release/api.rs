//! The interfaces, compared with those of the last release by cargo-semver-checks.

use std::process::Command;

use anyhow::Result;

use super::published::Published;
use super::{row, tools};
use crate::process;
use crate::rows::Row;
use crate::workspace::Workspace;

/// Compares each crate with the last tag `v…`, if there is one and it has the crate.
pub(super) fn compare(workspace: &Workspace, published: &[Published]) -> Result<Row> {
    let name = tools::SEMVER.name();
    let Some(tag) = workspace.git(&["describe", "--tags", "--abbrev=0", "--match", "v[0-9]*"]) else {
        let result = "skipped: no tag `v…` to compare with, since there has been no release";
        process::say(&format!("{name}: {result}"));
        return Ok(row("interfaces", &format!("`{name}`"), result));
    };
    let mut compared = 0;
    for published in published {
        let manifest = format!("{tag}:crates/{}/Cargo.toml", published.name);
        if workspace.git(&["cat-file", "-e", &manifest]).is_none() {
            process::say(&format!("{} is not in {tag}", published.name));
            continue;
        }
        let mut command = tools::SEMVER.command(workspace)?;
        process::run(arguments(&mut command, published, &tag))?;
        compared += 1;
    }
    let result = format!("{compared} crates: the versions fit the changes since {tag}");
    Ok(row("interfaces", &format!("`{name}` against the tag {tag}"), result))
}

/// The features are listed, because the default of the program is all of them, those of other hardware too.
fn arguments<'a>(command: &'a mut Command, published: &Published, tag: &str) -> &'a mut Command {
    command.args(["--package", &published.name, "--baseline-rev", tag, "--default-features"]);
    for feature in &published.features {
        command.args(["--current-features", feature]);
    }
    command
}
