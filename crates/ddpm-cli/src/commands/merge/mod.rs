//! `ddpm-cli merge`: puts the parts of a job together into one file, or names the parts that are missing.

mod array;
#[cfg(feature = "hub")]
mod parquet;
mod parts;
mod write;

use std::{fs, path::Path, time::Instant};

use anyhow::{Result, bail, ensure};
use ddpm_files::AtomicFile;
use serde_json::json;

use self::{array::expression, parts::Parts};
use super::part::ArrayFiles;
use crate::{
    args::{Common, Format, Merge, MergedFormat},
    interrupt, output,
    progress::Progress,
};

pub(crate) fn run(options: &Merge, common: &Common) -> Result<()> {
    let format = MergedFormat::of(&options.out, options.format)?;
    #[cfg(not(feature = "hub"))]
    if format == Some(MergedFormat::Parquet) {
        return Err(ddpm_data::Error::ParquetFeature { path: options.out.clone() }.into());
    }
    interrupt::listen()?;
    let started = Instant::now();
    let progress = Progress::new(common, "parts verified")?;
    let parts = Parts::find(&options.parts, &progress)?;
    let missing = parts.missing();
    if !missing.is_empty() {
        return report_missing(&parts, &missing, common);
    }
    let format = format.unwrap_or(match parts.format {
        Format::Idx => MergedFormat::Idx,
        _ => MergedFormat::Safetensors,
    });
    check_is_no_part(&options.out, &parts)?;
    let progress = Progress::new(common, "images")?;
    let files = write::files(&parts, format, &options.out, &progress)?;
    drop(progress);
    let names: Vec<String> = files.iter().map(|file| file.path().display().to_string()).collect();
    AtomicFile::commit_all(files)?;
    let (images, count, seconds) = (parts.len(), parts.count, started.elapsed().as_secs_f64());
    let json = json!({ "files": names, "images": images, "parts": count, "seconds": seconds });
    let text = format!("{}: {images} images of {count} parts in {seconds:.2} s", names.join(", "));
    output::result(common, &json, &text)
}

/// Prints the indices of the missing parts as an option of a job array, and fails.
fn report_missing(parts: &Parts, missing: &[usize], common: &Common) -> Result<()> {
    let array = expression(missing);
    if common.json {
        let json = json!({ "missing": missing, "array": array, "parts": parts.count });
        output::result(common, &json, "")?;
    } else {
        // Also with --quiet: it is what a script reads.
        output::text(&format!("--array={array}\n"))?;
    }
    bail!(
        "{} of {} parts are missing or damaged, counted from 0: {array}; nothing was written",
        missing.len(),
        parts.count
    )
}

/// Checks that no file of a part would be replaced.
fn check_is_no_part(out: &Path, parts: &Parts) -> Result<()> {
    let of = |out: &Path, format| ArrayFiles { out: out.to_owned(), format, has_labels: true };
    let mut outputs = Vec::new();
    let all = |files: &ArrayFiles| {
        let arrays = files.arrays().map(|(_, path)| path);
        arrays.chain([files.recipe()]).collect::<Vec<_>>()
    };
    for files in [of(out, Format::Idx), of(out, Format::Safetensors)] {
        outputs.extend(all(&files).into_iter().filter_map(|path| fs::canonicalize(path).ok()));
    }
    for part in parts.iter().filter(|_| !outputs.is_empty()) {
        for path in all(&part) {
            let is_output = fs::canonicalize(&path).is_ok_and(|path| outputs.contains(&path));
            ensure!(!is_output, "{}: is a file of a part, expected another --out", path.display());
        }
    }
    Ok(())
}
