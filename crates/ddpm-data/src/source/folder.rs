//! A folder of IDX files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::names::{self, IdxName, Split};
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
    /// each with or without `.gz`. The spelling `train-images.idx3-ubyte` is also
    /// accepted. If a file exists with and without `.gz`, the file without `.gz` is
    /// read. Only the training images are required.
    ///
    /// All names may begin with one common prefix, as in
    /// `emnist-balanced-train-images-idx3-ubyte`. The prefix is then the name of the
    /// data set. Files without a prefix take precedence over files with one.
    ///
    /// EMNIST stores transposed images. They are not transposed back, so a model
    /// trained on them generates transposed characters.
    ///
    /// # Errors
    /// [`Error::NoDataSet`] if the folder has no training images,
    /// [`Error::Ambiguous`] if it has several data sets, [`Error::Read`] if its
    /// files cannot be listed, and the errors of [`idx::read_images`],
    /// [`Dataset::new`] and [`Splits::new`].
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let folder_files = Listing::read(folder)?;
        let prefix = folder_files.prefix()?;
        let name = match prefix {
            "" => folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned(),
            prefix => prefix.to_owned(),
        };
        let load = |split: Split| {
            let Some(images) = folder_files.find(IdxName { prefix, split, kind: IdxKind::Images })? else {
                return Ok(None);
            };
            let labels = folder_files.find(IdxName { prefix, split, kind: IdxKind::Labels })?;
            let labels = labels.map(|file| idx::read_labels(&file)).transpose()?;
            Dataset::new(format!("{name}/{}", split.name()), idx::read_images(&images)?, labels).map(Some)
        };
        let train = load(Split::Train)?.ok_or_else(|| folder_files.no_data_set())?;
        Self::new(&name, train, load(Split::Test)?)
    }
}

/// The files of a folder.
struct Listing<'a> {
    folder: &'a Path,
    /// File names, sorted, so that results do not depend on the order on disk.
    files: BTreeSet<String>,
}

impl<'a> Listing<'a> {
    fn read(folder: &'a Path) -> Result<Self> {
        let error = |source| Error::Read { file: folder.to_owned(), source };
        let mut files = BTreeSet::new();
        for entry in folder.read_dir().map_err(error)? {
            // Skips names that are not UTF-8: no IDX file has one.
            files.extend(entry.map_err(error)?.file_name().into_string());
        }
        Ok(Self { folder, files })
    }

    /// The common prefix of the file names of the data set.
    fn prefix(&self) -> Result<&str> {
        let train_images = |name: &&IdxName<'_>| name.split == Split::Train && name.kind == IdxKind::Images;
        let names: Vec<_> = self.files.iter().filter_map(|file| names::parse(file)).collect();
        let prefixes: BTreeSet<_> = names.iter().filter(train_images).map(|name| name.prefix).collect();
        match prefixes.first() {
            None => Err(self.no_data_set()),
            // The empty prefix sorts first.
            Some(&prefix) if prefix.is_empty() || prefixes.len() == 1 => Ok(prefix),
            Some(_) => Err(self.ambiguous(prefixes.into_iter().map(ToOwned::to_owned).collect())),
        }
    }

    /// The path of the file with this parsed name, or `None` if there is no such file.
    fn find(&self, name: IdxName<'_>) -> Result<Option<PathBuf>> {
        let mut files: Vec<_> = self.files.iter().filter(|file| names::parse(file) == Some(name)).collect();
        files.retain(|file| {
            file.strip_suffix(".gz").is_none_or(|uncompressed| !self.files.contains(uncompressed))
        });
        match files.as_slice() {
            [] => Ok(None),
            [file] => Ok(Some(self.folder.join(file))),
            several => Err(self.ambiguous(several.iter().map(|&file| file.clone()).collect())),
        }
    }

    fn no_data_set(&self) -> Error {
        let expected = "train-images-idx3-ubyte, and optionally train-labels-idx1-ubyte, \
                        t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte";
        Error::NoDataSet { folder: self.folder.to_owned(), expected: expected.to_owned() }
    }

    fn ambiguous(&self, candidates: Vec<String>) -> Error {
        Error::Ambiguous { folder: self.folder.to_owned(), candidates }
    }
}
