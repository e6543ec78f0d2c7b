//! A folder of IDX or parquet files, or one of several data sets in a folder.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::listing::{Listing, SetName};
use super::names::{self, IdxName, Split};
use super::parquet_names::ParquetSet;
use crate::content::{START, describe};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::idx::{self, IdxKind};
use crate::splits::Splits;

impl Splits {
    /// Reads the files of a folder. The names of IDX files are
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
    /// A folder without IDX files may have parquet files (feature `hub`), in the layouts of the Hub:
    ///
    /// ```text
    /// [CONFIG/][data/]train-00000-of-00002.parquet   CONFIG/train/0000.parquet   [CONFIG_]train.parquet
    /// ```
    ///
    /// A split `validation` stands in for a missing split `test`. The images are PNG or JPEG, in the column `image`
    /// (a struct with the field `bytes`, or the bytes), or in the only column of bytes; colours are converted to
    /// grey. The labels are integers in the column `label`, or in one with another usual name. FOLDER/CONFIG is one
    /// of several data sets.
    ///
    /// # Errors
    /// [`Error::NoDataSet`] if the folder has no training images, [`Error::Ambiguous`] if it has several data sets,
    /// [`Error::SeveralFiles`] if it has several files for the same images or labels,
    /// [`Error::Unread`] if a file that is missing may be there under another name,
    /// [`Error::NoSource`] or [`Error::NotAFolder`] if there is no folder,
    /// [`Error::Read`] if its files cannot be listed, and the errors of [`idx::read_images`], of parquet files, of [`Dataset::new`] and
    /// [`Splits::new`].
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let (listing, name) = find(folder)?;
        if listing.sets().is_empty()
            && let Some((config, set)) = listing.choose_parquet(name.as_deref())?
        {
            return from_parquet(&listing, &config, set);
        }
        from_idx(&listing, listing.choose(name.as_deref())?)
    }
}

fn from_idx(listing: &Listing, set: SetName<'_>) -> Result<Splits> {
    let name = if set.prefix.is_empty() { folder_name(listing.folder()) } else { set.prefix.to_owned() };
    let file = |split, kind| IdxName { prefix: set.prefix, split, kind };
    let is_transposed = file(Split::Train, IdxKind::Images).is_transposed();
    let load = |split: Split| {
        let path = |kind| listing.find(set, file(split, kind));
        let (images, labels) = (path(IdxKind::Images)?, path(IdxKind::Labels)?);
        let Some(images) = images else { return Ok(None) };
        let images = idx::read_images(&images)?;
        let images = if is_transposed { images.transposed() } else { images };
        Dataset::with_labels_file(format!("{name}/{}", split.name()), images, labels).map(Some)
    };
    let mut train = load(Split::Train)?.ok_or_else(|| listing.no_data_set())?;
    if is_transposed {
        let note = format!("the images of {name} are transposed, because EMNIST stores columns as rows");
        train = train.with_note(note);
    }
    Splits::new(&name, train, load(Split::Test)?)
}

#[cfg(not(feature = "hub"))]
fn from_parquet(listing: &Listing, _: &str, _: ParquetSet) -> Result<Splits> {
    Err(Error::ParquetFeature { path: listing.folder().to_owned() })
}

#[cfg(feature = "hub")]
fn from_parquet(listing: &Listing, config: &str, set: ParquetSet) -> Result<Splits> {
    let folder = listing.folder();
    let name = if config.is_empty() { folder_name(folder) } else { config.to_owned() };
    let (train, test) = set.read(&name, folder, |file| Ok(folder.join(file)))?;
    Splits::new(&name, train, test)
}

fn folder_name(folder: &Path) -> String {
    folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned()
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
        let is_set = listing.sets().iter().any(|set| set.folder.is_empty() && set.prefix == name);
        if is_set || listing.parquet_sets().contains_key(name) {
            return Ok((listing, Some(name.to_owned())));
        }
        if name.ends_with(".parquet") && path.is_file() {
            return Ok((Listing::of_file(parent, name), None));
        }
    }
    let path = path.to_owned();
    let Ok(mut file) = File::open(&path) else { return Err(Error::NoSource { path }) };
    let mut start = vec![0; START];
    let len = file.read(&mut start).unwrap_or_default();
    Err(Error::NotAFolder { path, found: describe(&start[..len]) })
}
