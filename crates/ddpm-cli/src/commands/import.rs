//! `ddpm-cli import`: makes a data set of images that other programs wrote.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use ddpm_data::{Dataset, Error, Splits};
use ddpm_files::AtomicFile;
use serde_json::json;

use super::arrays::{idx, new_folder};
use crate::{
    args::{Common, Import},
    interrupt, output,
};

pub(crate) fn run(options: &Import, common: &Common) -> Result<()> {
    let folder = new_folder(&options.out_dir)?;
    let (train, test) = read(options)?;
    let name = options.out_dir.display().to_string();
    if let Some(test) = &test {
        check_labels(&train, test)?;
    }
    let splits = Splits::new(&name, train, test)?;
    splits.notes().iter().for_each(|note| output::warning(note));
    interrupt::listen()?;
    let mut files = idx(splits.train(), |end| folder.file(format!("train{end}")))?;
    if let Some(test) = splits.test() {
        files.extend(idx(test, |end| folder.file(format!("t10k{end}")))?);
    }
    interrupt::check()?;
    AtomicFile::commit_all(files)?;
    folder.commit()?;
    let (train, test) = (splits.train(), splits.test().map(Dataset::len));
    let json = json!({
        "out": name, "train": train.len(), "test": test, "rows": train.rows(), "cols": train.cols(),
        "has_labels": train.labels().is_some(),
    });
    let text = format!(
        "{name}: {} training images and {} test images of {}×{} pixels, {} labels",
        train.len(),
        test.unwrap_or(0),
        train.rows(),
        train.cols(),
        if train.labels().is_some() { "with" } else { "without" },
    );
    output::result(common, &json, &text)
}

/// The training images, and the test images if there are any.
fn read(options: &Import) -> Result<(Dataset, Option<Dataset>)> {
    let path = &options.images;
    let read = |path: &Path| Dataset::from_path(path, options.size.map(|size| size.0));
    let (train, test) = match parts(path)? {
        Some((train, test)) => (read(&train)?, test.as_deref().map(read).transpose()?),
        None if path.is_dir() => match Splits::from_folder(path) {
            Err(Error::NoDataSet { .. }) => (read(path)?, None),
            splits => splits?.into_splits(),
        },
        None => (read(path)?, None),
    };
    match (test, &options.test) {
        (Some(_), Some(other)) => {
            bail!("{} has test images of its own, expected no --test {}", path.display(), other.display())
        }
        (None, Some(path)) => Ok((train, Some(read(path)?))),
        (test, None) => Ok((train, test)),
    }
}

/// The parts of a folder that `export` wrote: `train` and, if there is one, `test`, as a folder or with the extension of a
/// file. `None` if the folder has no such part.
fn parts(folder: &Path) -> Result<Option<(PathBuf, Option<PathBuf>)>> {
    let part = |name: &str| -> Result<Option<PathBuf>> {
        let names = ["", ".npz", ".npy", ".safetensors"].map(|end| format!("{name}{end}"));
        let found: Vec<String> = names.into_iter().filter(|name| folder.join(name).exists()).collect();
        ensure!(
            found.len() <= 1,
            "{}: {} are for the same part of the data set, expected one of them",
            folder.display(),
            found.join(", ")
        );
        Ok(found.first().map(|name| folder.join(name)))
    };
    Ok(match part("train")? {
        Some(train) => Some((train, part("test")?)),
        None => None,
    })
}

/// A model with classes needs labels of both sets.
fn check_labels(train: &Dataset, test: &Dataset) -> Result<()> {
    let [with, without] = match [train, test].map(|set| set.labels().is_some()) {
        [true, false] => [train, test],
        [false, true] => [test, train],
        _ => return Ok(()),
    };
    bail!(
        "{} has labels and {} has none, expected labels of both or of neither",
        with.images_file().display(),
        without.images_file().display()
    )
}
