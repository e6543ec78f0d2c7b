//! `ddpm-cli export`: writes a data set, or images of files, in formats of other programs.

use std::path::Path;

use anyhow::{Context, Result, bail};
use ddpm_data::Dataset;
use ddpm_files::AtomicFile;
use serde_json::json;

use super::arrays::{idx, new_folder, npz, pngs, safetensors, with_suffix};
use crate::{
    args::{Common, Export, ImageFormat, SplitName},
    data, interrupt, output,
    progress::Progress,
};

pub(crate) fn run(options: &Export, common: &Common) -> Result<()> {
    check_extension(options)?;
    let (out, is_whole) = (&options.out, options.split.is_none() && options.images.is_none());
    let has_folder = is_whole || options.to == ImageFormat::PngFolder;
    // Fails before the data is read.
    let folder = has_folder.then(|| new_folder(out)).transpose()?;
    let sets = sets(options)?;
    // Until here, while data may be downloaded, a signal ends the program at once.
    interrupt::listen()?;
    let images: usize = sets.iter().map(|(_, set)| set.len()).sum();
    let progress = Progress::new(common, "images")?;
    progress.start(0, images as u64);
    let mut files = Vec::new();
    for &(name, ref set) in &sets {
        let open = |end: &str| match (&folder, options.to) {
            (Some(folder), ImageFormat::Idx) if name == "test" => folder.file(format!("t10k{end}")),
            (Some(folder), _) => folder.file(format!("{name}{end}")),
            (None, ImageFormat::Idx) => AtomicFile::create(with_suffix(out, end)),
            (None, _) => AtomicFile::create(out),
        };
        match (options.to, &folder) {
            (ImageFormat::Npz, _) => files.push(npz(set, open(".npz")?)?),
            (ImageFormat::Safetensors, _) => files.push(safetensors(set, open(".safetensors")?)?),
            (ImageFormat::PngFolder, Some(folder)) => {
                pngs(set, folder, Path::new(if is_whole { name } else { "" }), &progress)?;
            }
            (ImageFormat::Idx | ImageFormat::PngFolder, _) => files.extend(idx(set, open)?),
        }
    }
    interrupt::check()?;
    AtomicFile::commit_all(files)?;
    if let Some(folder) = folder {
        folder.commit()?;
    }
    drop(progress);
    let count = |name| sets.iter().find(|(found, _)| *found == name).map(|(_, set)| set.len());
    let json = json!({
        "out": out.display().to_string(), "format": output::name(&options.to), "images": images,
        "train": count("train"), "test": count("test"),
    });
    output::result(common, &json, &format!("{}: {images} images", out.display()))
}

/// Checks that a file has no extension of another format.
fn check_extension(options: &Export) -> Result<()> {
    let extension = options.out.extension().map(|text| text.to_string_lossy().to_ascii_lowercase());
    let others = ["npz", "npy", "safetensors", "png", "gif", "idx", "zip", "gz", "parquet"];
    let format = output::name(&options.to);
    match extension {
        Some(found) if found != format && others.contains(&&*found) => {
            bail!("{}: the extension .{found} does not fit --to {format}", options.out.display())
        }
        _ => Ok(()),
    }
}

/// The sets of images, each with its name in a folder.
fn sets(options: &Export) -> Result<Vec<(&'static str, Dataset)>> {
    if let Some(path) = &options.images {
        let set = Dataset::from_path(path, None)?;
        set.notes().iter().for_each(|note| output::warning(note));
        return Ok(vec![("images", set)]);
    }
    let splits = data::load_with_labels_of_files(&options.data)?;
    let without_test = format!("{} has no test images", splits.name());
    let (train, test) = splits.into_splits();
    Ok(match options.split {
        None => [("train", train)].into_iter().chain(test.map(|test| ("test", test))).collect(),
        Some(SplitName::Train) => vec![("train", train)],
        Some(SplitName::Test) => vec![("test", test.context(without_test)?)],
    })
}
