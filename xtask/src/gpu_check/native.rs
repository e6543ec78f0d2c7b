//! Libraries in C that stand in for NVIDIA's, made from the names of functions in the bindings of the crate `cudarc`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process;
use crate::workspace::Workspace;

/// The folder of the bindings of each library in `cudarc`, and the prefix of its functions.
pub(super) const DRIVER: (&str, &str) = ("driver", "cu");
pub(super) const LIBRARIES: [(&str, &str); 5] =
    [DRIVER, ("cublas", "cublas"), ("cublaslt", "cublasLt"), ("curand", "curand"), ("nvrtc", "nvrtc")];

/// The names of the functions of a library in the `cudarc` of Cargo.lock, which cargo downloads.
pub(super) fn functions(workspace: &Workspace, (folder, prefix): (&str, &str)) -> Result<BTreeSet<String>> {
    let path = cudarc(workspace)?.join("src").join(folder).join("sys/mod.rs");
    let bindings = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let names = names(&bindings, prefix);
    ensure!(!names.is_empty(), "{} declares no function `{prefix}…`", path.display());
    Ok(names)
}

/// The folder of the sources of `cudarc`.
fn cudarc(workspace: &Workspace) -> Result<PathBuf> {
    let mut cargo = workspace.cargo();
    let line = "metadata --format-version 1 --locked --features ddpm-cli/cuda";
    let output = process::run_for_stdout(cargo.args(line.split(' ')))?;
    let metadata: Value =
        serde_json::from_str(&output).context("`cargo metadata` printed unexpected JSON")?;
    let packages = metadata["packages"].as_array().context("`cargo metadata` printed no packages")?;
    let manifest = packages.iter().find(|package| package["name"] == "cudarc");
    let manifest = manifest.and_then(|package| package["manifest_path"].as_str());
    let manifest = Path::new(manifest.context("the workspace has no package cudarc")?);
    Ok(manifest.parent().unwrap_or(manifest).to_owned())
}

/// The names of functions with a prefix and an upper-case letter after it, which the bindings declare.
fn names(bindings: &str, prefix: &str) -> BTreeSet<String> {
    let declared = bindings.split("fn ").filter_map(|rest| rest.split_once('(')).map(|(name, _)| name);
    let is_one = |name: &&str| {
        let rest = name.strip_prefix(prefix).unwrap_or_default();
        let is_word = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        rest.starts_with(|first: char| first.is_ascii_uppercase()) && is_word
    };
    declared.filter(is_one).map(str::to_owned).collect()
}

/// Definitions in C of the functions that `source` does not define. Each has this body, where `NAME` is its name.
pub(super) fn missing<'a>(source: &str, names: impl IntoIterator<Item = &'a String>, body: &str) -> String {
    let is_missing =
        |name: &&String| !["NAME(", "(NAME)"].iter().any(|form| source.contains(&form.replace("NAME", name)));
    let define = |name: &String| format!("int {name}(void) {{ {} }}\n", body.replace("NAME", name));
    names.into_iter().filter(is_missing).map(define).collect()
}

/// Compiles a shared library from C. `soname` is the name under which the loader looks for it.
pub(super) fn shared_library(source: &str, soname: &str, library: &Path) -> Result<()> {
    let folder = library.parent().unwrap_or(library);
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let file = library.with_extension("c");
    fs::write(&file, source).with_context(|| format!("cannot write {}", file.display()))?;
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let mut cc = Command::new(&compiler);
    cc.args(["-shared", "-fPIC", "-O1", &format!("-Wl,-soname,{soname}"), "-o"])
        .arg(library)
        .arg(&file)
        .arg("-lpthread");
    process::run(&mut cc)
        .with_context(|| format!("cannot compile C with `{compiler}`; install a C compiler or set CC"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINDINGS: &str = "pub unsafe fn cuInit(Flags: u32) -> CUresult { }\n fn culib() -> &Lib;\n\
        pub fn cuMemAlloc_v2(p: *mut u64) {}\n fn cublasLtCreate(x: u8);\n fn current(x: u8);";

    #[test]
    fn functions_of_a_library_are_found_by_their_prefix() {
        let found = |prefix| names(BINDINGS, prefix).into_iter().collect::<Vec<_>>();
        assert_eq!(found("cu"), ["cuInit", "cuMemAlloc_v2"]);
        assert_eq!(found("cublasLt"), ["cublasLtCreate"]);
        assert_eq!(found("nvrtc"), [""; 0]);
    }

    #[test]
    fn only_functions_without_a_definition_are_generated() {
        let names = ["cuInit", "cuMemAlloc", "cuMemAlloc_v2", "cublasGemmEx"].map(str::to_owned);
        let source =
            "int cuInit(unsigned flags) { return 0; }\nPRODUCT(cublasGemmEx)\nint cuMemAlloc_v2(void);\n";
        assert_eq!(
            missing(source, &names, "return pretend(\"NAME\");"),
            "int cuMemAlloc(void) { return pretend(\"cuMemAlloc\"); }\n"
        );
    }
}
