//! A folder of IDX files, or one of several data sets in a folder.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::listing::Listing;
use super::names::{self, IdxName, Split};
use crate::content::{START, describe};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::idx::{self, IdxKind};
use crate::splits::Splits;

impl Splits {
    /// Reads the IDX files of a folder. Their names are
    ///
    /// ```text
    /// train-images-idx3-ubyte   train-labels-idx1-ubyte
    /// t10k-images-idx3-ubyte    t10k-labels-idx1-ubyte     (or test-…)
    /// ```
    ///
    /// each with or without `.gz`. The spelling `train-images.idx3-ubyte` and the labels of QMNIST,
    /// `…-train-labels-idx2-int`, are also accepted. If a file exists with and without `.gz`, the file
    /// without `.gz` is read. Only the training images are required. The files may lie in a folder
    /// below, as those of Kaggle and torchvision do, if there is no data set in the folder itself.
    ///
    /// All names may begin with one common prefix, as in `emnist-balanced-train-images-idx3-ubyte`. The prefix is
    /// then the name of the data set. Files without a prefix take precedence over files with one. A folder may hold
    /// several data sets: `folder` is then FOLDER/PREFIX, or one of the files.
    ///
    /// EMNIST stores transposed images. The images of a data set whose prefix begins with `emnist` are transposed
    /// back, and [`notes`](Self::notes) says so.
    ///
    /// # Errors
    /// [`Error::NoDataSet`] if the folder has no training images, [`Error::Ambiguous`] if it has several data sets,
    /// [`Error::SeveralFiles`] if it has several files for the same images or labels,
    /// [`Error::Unread`] if a file that is missing may be there under another name,
    /// [`Error::NoSource`] or [`Error::NotAFolder`] if there is no folder,
    /// [`Error::Read`] if its files cannot be listed, and the errors of [`idx::read_images`], [`Dataset::new`] and
    /// [`Splits::new`].
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let (listing, prefix) = find(folder)?;
        let set = listing.choose(prefix.as_deref())?;
        let name = match set.prefix {
            "" => listing
                .folder()
                .file_name()
                .unwrap_or(listing.folder().as_os_str())
                .to_string_lossy()
                .into_owned(),
            prefix => prefix.to_owned(),
        };
        // The prefixes are emnist-balanced, emnist-byclass, emnist-letters, …
        let is_transposed = set.prefix.to_ascii_lowercase().starts_with("emnist");
        let mut notes = Vec::new();
        let mut load = |split: Split| {
            let path = |kind| listing.find(set, IdxName { prefix: set.prefix, split, kind });
            let (images, labels) = (path(IdxKind::Images)?, path(IdxKind::Labels)?);
            let Some(images) = images else { return Ok(None) };
            let name = format!("{name}/{}", split.name());
            let images = idx::read_images(&images)?;
            let images = if is_transposed { images.transposed() } else { images };
            let Some(labels) = labels else { return Dataset::new(name, images, None).map(Some) };
            let numbers = idx::read_numbers(&labels)?.into_iter().map(Some).collect();
            Dataset::of_numbers(name, images, (labels, numbers), &mut notes).map(Some)
        };
        let train = load(Split::Train)?.ok_or_else(|| listing.no_data_set())?;
        let test = load(Split::Test)?;
        if is_transposed {
            notes.push(format!("the images of {name} are transposed, because EMNIST stores columns as rows"));
        }
        Ok(Self::new(&name, train, test)?.with_notes(notes))
    }
}

/// The folder of the data set, and the prefix of its files if the path names one: PATH is a folder, FOLDER/PREFIX, or
/// one of the files of the data set.
fn find(path: &Path) -> Result<(Listing, Option<String>)> {
    if path.is_dir() {
        return Ok((Listing::read(path)?, None));
    }
    let parent =
        path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
    let name = path.file_name().and_then(|name| name.to_str());
    if let (Some(parent), Some(name)) = (parent.filter(|parent| parent.is_dir()), name) {
        let listing = Listing::read(parent)?;
        if let Some(IdxName { prefix, .. }) = names::parse(name).filter(|_| path.exists()) {
            return Ok((listing, Some(prefix.to_owned())));
        }
        if listing.sets().iter().any(|set| set.folder.is_empty() && set.prefix == name) {
            return Ok((listing, Some(name.to_owned())));
        }
    }
    let path = path.to_owned();
    let Ok(mut file) = File::open(&path) else { return Err(Error::NoSource { path }) };
    let mut start = vec![0; START];
    let len = file.read(&mut start).unwrap_or_default();
    Err(Error::NotAFolder { path, found: describe(&start[..len]) })
}
