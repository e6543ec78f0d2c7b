//! The interfaces, compared with those of the last release by cargo-semver-checks.

use anyhow::{Context, Result};
use toml::Table;

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
        let Some(manifest) = workspace.git(&["show", &manifest]) else {
            process::say(&format!("{} is not in {tag}", published.name));
            continue;
        };
        let mut command = tools::SEMVER.command(workspace)?;
        process::run(command.args(arguments(published, &tag, &manifest)?))?;
        compared += 1;
    }
    let result = format!("{compared} crates: the versions fit the changes since {tag}");
    Ok(row("interfaces", &format!("`{name}` against the tag {tag}"), result))
}

/// The arguments for one crate, whose manifest at the tag is given. The features are listed, because the default of the
/// program is all of them, those of other hardware too.
fn arguments(published: &Published, tag: &str, manifest: &str) -> Result<Vec<String>> {
    let manifest: Table =
        manifest.parse().with_context(|| format!("{}: Cargo.toml at {tag}", published.name))?;
    let old = |feature: &String| manifest.get("features").is_some_and(|all| all.get(feature).is_some());
    let mut arguments = ["--package", &published.name, "--baseline-rev", tag, "--default-features"]
        .map(str::to_owned)
        .to_vec();
    for feature in &published.features {
        arguments.extend(["--current-features".to_owned(), feature.clone()]);
        if old(feature) {
            arguments.extend(["--baseline-features".to_owned(), feature.clone()]);
        }
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_have_the_documented_features_that_they_know() {
        let published = Published {
            name: "x".into(),
            version: "1.1.0".into(),
            license: "MIT".into(),
            folder: "x".into(),
            features: vec!["old".into(), "new".into()],
        };
        let line = arguments(&published, "v1.0.0", "[features]\nold = []\ncuda = []\n").unwrap().join(" ");
        assert_eq!(
            line,
            "--package x --baseline-rev v1.0.0 --default-features --current-features old --baseline-features old \
             --current-features new"
        );
    }
}
