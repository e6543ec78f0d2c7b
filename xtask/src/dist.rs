//! `cargo xtask dist`: an archive of the program with its manual pages and completions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use ddpm_files::{AtomicFile, sha256_of_file, write_atomic};
use flate2::{Compression, GzBuilder};

use crate::install::files;
use crate::process;
use crate::workspace::Workspace;

/// Build the program and write an archive with its manual pages and completions, and the SHA-256 of the archive.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// A feature of ddpm-cli to build with, such as hub; may be repeated.
    #[arg(long, value_name = "FEATURE")]
    features: Vec<String>,
    /// The folder of the archive.
    #[arg(short, long, value_name = "DIR", default_value = "target/dist")]
    out_dir: PathBuf,
}

/// The shells, and the names under which they look for completions.
const SHELLS: [(&str, &str); 4] = [
    ("bash", "ddpm-cli.bash"),
    ("zsh", "_ddpm-cli"),
    ("fish", "ddpm-cli.fish"),
    ("powershell", "_ddpm-cli.ps1"),
];

/// Files of the workspace that belong to the program.
const DOCUMENTS: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"];

pub(crate) fn run(arguments: &Arguments, workspace: &Workspace) -> Result<()> {
    let features: Vec<&str> = arguments.features.iter().map(String::as_str).collect();
    let binary = workspace.build_cli(&features)?;
    let archive =
        archive(&binary, workspace.root(), &workspace.root().join(&arguments.out_dir), Compression::best())?;
    process::print(&archive.display().to_string())
}

/// Writes the archive and its digest. Returns the path of the archive.
fn archive(binary: &Path, root: &Path, out_dir: &Path, compression: Compression) -> Result<PathBuf> {
    let name =
        format!("ddpm-cli-{}-{}-{}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, std::env::consts::OS);
    let folder = out_dir.join(&name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    let copy = |from: &Path, to: &str| -> Result<()> {
        let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        Ok(write_atomic(&folder.join(to), &bytes)?)
    };
    let program = format!("ddpm-cli{}", std::env::consts::EXE_SUFFIX);
    copy(binary, &program)?;
    for document in DOCUMENTS {
        copy(&root.join(document), document)?;
    }
    for (shell, file) in SHELLS {
        let text = process::run_for_stdout(Command::new(binary).args(["completions", shell]))?;
        write_atomic(&folder.join("completions").join(file), text.as_bytes())?;
    }
    process::run(Command::new(binary).args(["man", "-q"]).arg(folder.join("man/man1")))?;

    let path = out_dir.join(format!("{name}.tar.gz"));
    let mut tar = tar::Builder::new(GzBuilder::new().write(Vec::new(), compression));
    let mut paths = files(&folder)?;
    paths.sort();
    for path in paths {
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        // Without the time and the owner, so that the same files give the same archive.
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(if path.ends_with(&program) { 0o755 } else { 0o644 });
        tar.append_data(&mut header, path.strip_prefix(out_dir)?, bytes.as_slice())?;
    }
    let mut file = AtomicFile::create(&path)?;
    file.append(&tar.into_inner()?.finish()?)?;
    file.commit()?;
    let digest = format!("{}  {name}.tar.gz\n", sha256_of_file(&path)?);
    write_atomic(&out_dir.join(format!("{name}.tar.gz.sha256")), digest.as_bytes())?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{names, root, started};

    #[test]
    fn the_archive_has_the_program_with_a_page_for_each_command_and_always_the_same_bytes() {
        let folder = root(false);
        for document in DOCUMENTS {
            fs::write(folder.path().join(document), document).unwrap();
        }
        let workspace = Workspace::at(folder.path());
        let binary = started(&workspace).binary;
        let out = folder.path().join("dist");
        let path = archive(&binary, folder.path(), &out, Compression::fast()).unwrap();
        let first = fs::read(&path).unwrap();
        archive(&binary, folder.path(), &out, Compression::fast()).unwrap();
        assert!(fs::read(&path).unwrap() == first);

        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(first.as_slice()));
        let mut found: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        found.sort();
        let has = |end: &str| found.iter().any(|name| name.ends_with(end));
        for end in
            ["/man/man1/ddpm-cli.1", "/man/man1/ddpm-cli-sample.1", "/completions/_ddpm-cli", "/LICENSE-MIT"]
        {
            assert!(has(end), "{end}: {found:?}");
        }
        assert_eq!(names(&out).len(), 3, "{:?}", names(&out));
        let digest = fs::read_to_string(path.with_extension("gz.sha256")).unwrap();
        assert!(
            digest.starts_with(&ddpm_files::sha256_hex(&first)) && digest.ends_with(".tar.gz\n"),
            "{digest}"
        );
    }
}
