//! The crates that are published, as cargo describes them.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::HARDWARE;
use crate::process;
use crate::workspace::Workspace;

/// A crate of the workspace that a registry may hold.
#[derive(Debug, Clone)]
pub(super) struct Published {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) license: String,
    pub(super) folder: PathBuf,
    /// The features that its documentation shows, which are those that the checks enable.
    pub(super) features: Vec<String>,
}

impl Published {
    /// The name of its folder in a package, and of the package without `.crate`.
    pub(super) fn stem(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }
}

/// The crates without `publish = false`, in the order of their names.
///
/// # Errors
/// The manifest of one lacks what a registry wants, or its documentation would enable other features than those it lists.
pub(super) fn published(workspace: &Workspace) -> Result<Vec<Published>> {
    let mut cargo = workspace.cargo();
    let text = process::run_for_stdout(cargo.args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&text).context("`cargo metadata` printed no JSON")?;
    let packages = metadata["packages"].as_array().context("`cargo metadata` printed no packages")?;
    let mut found = packages
        .iter()
        .filter(|package| package["publish"].is_null())
        .map(read)
        .collect::<Result<Vec<_>>>()?;
    ensure!(!found.is_empty(), "no crate of the workspace may be published");
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn read(package: &Value) -> Result<Published> {
    let name = package["name"].as_str().context("`cargo metadata` printed a package without a name")?;
    let text = |key: &str| {
        let value = package[key].as_str().filter(|text| !text.is_empty());
        value.map(str::to_owned).with_context(|| format!("{name}: no `{key}` in Cargo.toml"))
    };
    for key in ["description", "readme", "rust_version"] {
        text(key)?;
    }
    let manifest = PathBuf::from(text("manifest_path")?);
    Ok(Published {
        name: name.to_owned(),
        version: text("version")?,
        license: text("license")?,
        folder: manifest.parent().context("a manifest without a folder")?.to_owned(),
        features: documented(name, package)?,
    })
}

/// The list `features` of `package.metadata.docs.rs`.
fn documented(name: &str, package: &Value) -> Result<Vec<String>> {
    let docs = &package["metadata"]["docs"]["rs"];
    let place = format!("{name}: package.metadata.docs.rs in Cargo.toml");
    ensure!(docs["all-features"].is_null(), "{place} has `all-features`, expected a list `features`");
    let has_features =
        package["features"].as_object().is_some_and(|all| all.keys().any(|key| key != "default"));
    ensure!(!has_features || docs["features"].is_array(), "{place} has no list `features`");
    let list = docs["features"].as_array().map_or(&[][..], Vec::as_slice);
    let list: Vec<_> = list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    for feature in &list {
        ensure!(
            !HARDWARE.contains(&&**feature),
            "{place} enables {feature}, which not every machine can build"
        );
        ensure!(
            !package["features"][feature].is_null(),
            "{place} enables {feature}, which is no feature of the crate"
        );
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_crate_has_what_a_registry_wants_and_no_job_is_published() {
        let found = published(&Workspace::of_this_build().unwrap()).unwrap();
        let names: Vec<_> = found.iter().map(|published| &*published.name).collect();
        assert!(names.contains(&"ddpm-core") && names.contains(&"ddpm-mnist"), "{names:?}");
        assert!(!names.contains(&"xtask") && !names.contains(&"ddpm-fuzz"), "{names:?}");
        let mnist = found.iter().find(|published| published.name == "ddpm-mnist").unwrap();
        assert!(mnist.license.contains("CC-BY-SA-3.0"), "{}", mnist.license);
    }

    #[test]
    fn documentation_that_enables_hardware_or_everything_is_refused() {
        let package = |docs: Value| json!({ "features": { "default": [], "clap": [], "cuda": [] }, "metadata": { "docs": { "rs": docs } } });
        let list = |docs| documented("x", &package(docs)).map_err(|error| error.to_string());
        assert_eq!(list(json!({ "features": ["clap"] })).unwrap(), ["clap"]);
        for (docs, message) in [
            (json!({ "all-features": true }), "x: package.metadata.docs.rs in Cargo.toml has `all-features`"),
            (json!({}), "has no list `features`"),
            (json!({ "features": ["cuda"] }), "enables cuda"),
            (json!({ "features": ["clip"] }), "enables clip, which is no feature"),
        ] {
            let error = list(docs).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
}
