//! Packs the crates, checks what is in the packages, and unpacks them into a workspace of their own.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ddpm_files::write_atomic;
use flate2::read::GzDecoder;

use super::published::Published;
use super::{FOLDER, row, selection};
use crate::process;
use crate::rows::Row;
use crate::workspace::Workspace;

/// The largest package that the crate registry takes, in bytes: 10 MiB.
const LIMIT_BYTES: u64 = 10 << 20;

/// Files that every package holds, with the content that they have in the root.
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];

/// What a package may hold at the top. Everything else is a file that was packed by accident.
const TOP: [&str; 13] = [
    ".cargo_vcs_info.json",
    "Cargo.lock",
    "Cargo.toml",
    "Cargo.toml.orig",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "assets",
    "build.rs",
    "data",
    "examples",
    "src",
    "tests",
];

/// A package that was made, and what is in it.
#[derive(Debug)]
pub(super) struct Package {
    stem: String,
    license: String,
    files: usize,
    unpacked_bytes: u64,
    packed_bytes: u64,
}

/// Packs the crates, checks size and content, and unpacks them into a workspace in [`FOLDER`].
pub(super) fn pack(workspace: &Workspace, published: &[Published]) -> Result<Vec<Package>> {
    let mut cargo = workspace.cargo();
    cargo.args(["package", "--quiet", "--locked", "--allow-dirty", "--no-verify"]).args(selection(published));
    process::run(&mut cargo)?;
    let folder = workspace.root().join(FOLDER);
    let unpacked = folder.join("unpacked");
    if unpacked.exists() {
        fs::remove_dir_all(&unpacked).with_context(|| format!("cannot empty {}", unpacked.display()))?;
    }
    let packages = published.iter().map(|published| {
        let path = workspace.target().join("package").join(format!("{}.crate", published.stem()));
        unpack(&path, &unpacked, published, workspace.root())
    });
    let packages = packages.collect::<Result<Vec<_>>>()?;
    write_workspace(workspace, &unpacked, published)?;
    Ok(packages)
}

/// Compiles the packages with their tests and examples, with the other packages as dependencies.
pub(super) fn compile(workspace: &Workspace, published: &[Published]) -> Result<Row> {
    process::run(unpacked_cargo(workspace, "check", published).arg("--all-targets"))?;
    Ok(row(
        "they compile",
        "`cargo check --all-targets` of all packages in a workspace of their own",
        "no error",
    ))
}

/// Runs cargo's own verification, which builds each package alone.
pub(super) fn verify(workspace: &Workspace, published: &[Published]) -> Result<Row> {
    // With the profile of the workspace, the dependencies are those that are compiled already.
    let path = workspace.root().join(FOLDER).join("profile.toml");
    write_atomic(&path, profile(&workspace.read("Cargo.toml")?).as_bytes())?;
    let mut cargo = workspace.cargo();
    cargo
        .arg("--config")
        .arg(&path)
        .args(["package", "--locked", "--allow-dirty"])
        .args(selection(published));
    process::run(&mut cargo)?;
    Ok(row(
        "cargo verifies them",
        "`cargo package`, each package alone with its default features",
        "no error",
    ))
}

/// A command of cargo in the workspace of the packages, with the features that their documentation shows.
pub(super) fn unpacked_cargo(
    workspace: &Workspace,
    command: &str,
    published: &[Published],
) -> std::process::Command {
    let features = published.iter().flat_map(|published| {
        published.features.iter().map(move |feature| format!("{}/{feature}", published.name))
    });
    let mut cargo = workspace.cargo();
    cargo
        .current_dir(workspace.root().join(FOLDER).join("unpacked"))
        .env("CARGO_TARGET_DIR", workspace.target());
    cargo.args([command, "--workspace", "--features", &features.collect::<Vec<_>>().join(",")]);
    cargo
}

/// Unpacks a package into `to`, and checks its size and its content.
fn unpack(path: &Path, to: &Path, published: &Published, root: &Path) -> Result<Package> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (stem, packed_bytes) = (published.stem(), bytes.len() as u64);
    ensure!(
        packed_bytes <= LIMIT_BYTES,
        "{}: {packed_bytes} bytes, expected at most {LIMIT_BYTES}, the limit of the registry",
        path.display()
    );
    let mut archive = tar::Archive::new(GzDecoder::new(bytes.as_slice()));
    // All files of a package have one time, long ago. With it, cargo would not see that a file has changed.
    archive.set_preserve_mtime(false);
    archive.unpack(to).with_context(|| format!("cannot unpack {}", path.display()))?;
    let folder = to.join(&stem);
    let paths = crate::install::files(&folder)?;
    for path in &paths {
        let top = path.strip_prefix(&folder)?.iter().next().and_then(|part| part.to_str());
        ensure!(
            top.is_some_and(|top| TOP.contains(&top)),
            "{stem}.crate holds {}, expected only files in {}",
            path.strip_prefix(&folder)?.display(),
            TOP.join(", ")
        );
    }
    for licence in LICENCES {
        ensure!(
            fs::read(folder.join(licence)).ok() == fs::read(root.join(licence)).ok(),
            "{stem}.crate: {licence} is missing or differs from the one in the root"
        );
    }
    for part in ["README.md", "tests", "examples"] {
        ensure!(
            folder.join(part).exists() || !published.folder.join(part).exists(),
            "{stem}.crate lacks {part}, which the folder of the crate has"
        );
    }
    let sizes = paths.iter().map(|path| Ok(fs::metadata(path)?.len()));
    Ok(Package {
        stem,
        license: published.license.clone(),
        files: paths.len(),
        unpacked_bytes: sizes.sum::<Result<u64>>()?,
        packed_bytes,
    })
}

/// Makes the folder of the unpacked packages a workspace, where each package gets the others from there.
fn write_workspace(workspace: &Workspace, unpacked: &Path, published: &[Published]) -> Result<()> {
    let members: String = published.iter().map(|published| format!("{:?}, ", published.stem())).collect();
    let patch = |published: &Published| format!("{} = {{ path = {:?} }}\n", published.name, published.stem());
    let patches: String = published.iter().map(patch).collect();
    let manifest = format!(
        "[workspace]\nresolver = \"3\"\nmembers = [{members}]\n\n[patch.crates-io]\n{patches}\n{}",
        profile(&workspace.read("Cargo.toml")?)
    );
    write_atomic(&unpacked.join("Cargo.toml"), manifest.as_bytes())?;
    // The same versions of the dependencies as here.
    Ok(write_atomic(&unpacked.join("Cargo.lock"), workspace.read("Cargo.lock")?.as_bytes())?)
}

/// The tables `profile` of a manifest. Without them the tests of numeric code are slow.
fn profile(manifest: &str) -> String {
    let mut is_profile = false;
    let lines = manifest.lines().filter(|line| {
        if line.starts_with('[') {
            is_profile = line.starts_with("[profile.");
        }
        is_profile
    });
    lines.map(|line| format!("{line}\n")).collect()
}

/// The packages as a table.
pub(super) fn markdown(packages: &[Package]) -> String {
    if packages.is_empty() {
        return String::new();
    }
    let kib = |bytes: u64| format!("{} KiB", bytes.div_ceil(1 << 10));
    let rows = packages.iter().map(|package| {
        format!(
            "| `{}.crate` | {} | {} | {} | {:.1} % | {} |\n",
            package.stem,
            package.files,
            kib(package.unpacked_bytes),
            kib(package.packed_bytes),
            100.0 * package.packed_bytes as f64 / LIMIT_BYTES as f64,
            package.license
        )
    });
    format!(
        "| package | files | unpacked | compressed | of the limit of 10 MiB | licence |\n\
         | --- | ---: | ---: | ---: | ---: | --- |\n{}",
        rows.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, GzBuilder};

    use super::*;

    /// A package with these files beside the licences, in a folder that has the licences, too.
    fn check(files: &[&str]) -> Result<Package, String> {
        let root = tempfile::tempdir().unwrap();
        let crate_folder = root.path().join("crate");
        fs::create_dir_all(crate_folder.join("tests")).unwrap();
        let mut tar = tar::Builder::new(GzBuilder::new().write(Vec::new(), Compression::best()));
        for licence in LICENCES {
            fs::write(root.path().join(licence), licence).unwrap();
        }
        for file in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(file.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("x-1.0.0/{file}"), file.as_bytes()).unwrap();
        }
        let path = root.path().join("x-1.0.0.crate");
        fs::write(&path, tar.into_inner().unwrap().finish().unwrap()).unwrap();
        let published = Published {
            name: "x".into(),
            version: "1.0.0".into(),
            license: "MIT".into(),
            folder: crate_folder,
            features: Vec::new(),
        };
        unpack(&path, &root.path().join("to"), &published, root.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_package_holds_licences_and_tests_and_nothing_else() {
        let package = check(&["LICENSE-MIT", "LICENSE-APACHE", "tests/it.rs"]).unwrap();
        assert_eq!((package.files, package.unpacked_bytes), (3, 11 + 14 + 11));
        for (files, message) in [
            (&["LICENSE-MIT", "tests/it.rs"][..], "LICENSE-APACHE is missing or differs"),
            (&["LICENSE-MIT", "LICENSE-APACHE"], "lacks tests, which the folder"),
            (&["LICENSE-MIT", "LICENSE-APACHE", "tests/it.rs", "runs/a"], "x-1.0.0.crate holds runs/a"),
        ] {
            let error = check(files).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn the_tables_of_profiles_are_kept() {
        let manifest = "[package]\nname = \"x\"\n[profile.dev]\nopt-level = 1\n[lints]\n[profile.dev.package]\na.debug = 1\n";
        assert_eq!(profile(manifest), "[profile.dev]\nopt-level = 1\n[profile.dev.package]\na.debug = 1\n");
    }

    #[test]
    fn sizes_are_shown_beside_the_limit() {
        let package = Package {
            stem: "x-1.0.0".into(),
            license: "MIT".into(),
            files: 3,
            unpacked_bytes: 2049,
            packed_bytes: 1 << 20,
        };
        let table = markdown(&[package]);
        assert!(table.ends_with("| `x-1.0.0.crate` | 3 | 3 KiB | 1024 KiB | 10.0 % | MIT |\n"), "{table}");
    }
}
