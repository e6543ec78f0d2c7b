//! Dependencies by cargo-deny, and features by cargo-hack.

use std::env;
use std::path::PathBuf;

use anyhow::Result;

use super::published::Published;
use super::{HARDWARE, row, selection, tools};
use crate::process;
use crate::rows::Row;
use crate::workspace::Workspace;

/// Checks licences, sources and duplicates against `deny.toml`, and advisories if there is a copy of their database.
pub(super) fn deny(workspace: &Workspace) -> Result<Vec<Row>> {
    process::run(tools::DENY.command(workspace)?.args(["check", "licenses", "bans", "sources"]))?;
    let name = tools::DENY.name();
    let mut rows = vec![row("dependencies", &format!("`{name}`: licences, bans, sources"), "no error")];
    let database = advisory_database();
    let result = if database.as_ref().is_some_and(|folder| folder.is_dir()) {
        process::run(tools::DENY.command(workspace)?.args(["check", "advisories", "--disable-fetch"]))?;
        "no known vulnerability".to_owned()
    } else {
        "not checked: there is no copy of the RustSec database in `advisory-dbs` of cargo's folder".to_owned()
    };
    process::say(&format!("advisories: {result}"));
    rows.push(row("advisories", &format!("`{name}`, without a network"), result));
    Ok(rows)
}

/// Where cargo-deny keeps the database of advisories.
fn advisory_database() -> Option<PathBuf> {
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    Some(cargo_home.or_else(|| Some(env::home_dir()?.join(".cargo")))?.join("advisory-dbs"))
}

/// Compiles each crate with each of its features alone, and with all, except for those of other hardware.
pub(super) fn each_feature(workspace: &Workspace, published: &[Published]) -> Result<Row> {
    let mut command = tools::HACK.command(workspace)?;
    command.args(["check", "--each-feature", "--locked", "--exclude-features", &HARDWARE.join(",")]);
    process::run(command.args(selection(published)).args(["-p", "ddpm-cli"]))?;
    let measure = format!(
        "`{}`: `cargo check` with each feature alone, without {}",
        tools::HACK.name(),
        HARDWARE.join(", ")
    );
    Ok(row("features", &measure, "no error"))
}
