//! Sampling in parts on one machine.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ddpm_files::sha256_of_file;

use super::FOLDER;
use crate::process;

/// Samples with one process and in parts, merges the parts, and compares the files. Returns a table.
pub(super) fn table(count: usize, root: &Path, binary: &Path) -> Result<String> {
    let mut text = format!(
        "## Sampling in parts\n\n{count} images with the built-in model; the parts are sampled at the same time, and `merge` \
         puts them together. The time has the start of each process and the reading of the model in it.\n\n| parts | threads \
         of each | images/s | file (SHA-256) |\n| ---: | ---: | ---: | --- |\n"
    );
    let mut digests = Vec::new();
    for (parts, threads) in [(1, 1), (1, 2), (2, 1), (4, 1)] {
        let folder = format!("{FOLDER}/sample-{parts}-{threads}");
        fs::create_dir_all(root.join(&folder))?;
        let options = format!("--format safetensors --quiet --threads {threads}");
        let start = |index: usize| -> Result<Child> {
            let shard = if parts == 1 { String::new() } else { format!("--shard {}/{parts}", index + 1) };
            let line = format!("sample -n {count} {options} {shard} -o {folder}/{index}.safetensors");
            let mut command = Command::new(binary);
            command.current_dir(root).args(line.split_whitespace());
            process::say(&format!("$ {}", process::show(&command)));
            command.spawn().context("cannot start ddpm-cli")
        };
        let started = Instant::now();
        let children = (0..parts).map(start).collect::<Result<Vec<_>>>()?;
        for mut child in children {
            ensure!(child.wait()?.success(), "`ddpm-cli sample` failed");
        }
        let seconds = started.elapsed().as_secs_f64();
        let mut file = format!("{folder}/0.safetensors");
        if parts > 1 {
            let files = (0..parts).map(|index| format!("{folder}/{index}.safetensors"));
            file = format!("{folder}/merged.safetensors");
            let line = format!("merge {} -o {file} --quiet", files.collect::<Vec<_>>().join(" "));
            process::run(Command::new(binary).current_dir(root).args(line.split_whitespace()))?;
        }
        let digest = sha256_of_file(&root.join(file))?;
        text += &format!("| {parts} | {threads} | {:.0} | {} |\n", count as f64 / seconds, &digest[..12]);
        digests.push(digest);
    }
    ensure!(digests.iter().all(|digest| *digest == digests[0]), "the merged files differ:\n{text}");
    Ok(text)
}
