//! A folder of IDX files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::names::{self, IdxName, Split};
use crate::corpus::Corpus;
use crate::dataset::DataSet;
use crate::error::{Error, Result};
use crate::idx::{self, IdxKind};

impl Corpus {
    /// Reads the IDX files of a folder:
    ///
    /// ```text
    /// train-images-idx3-ubyte   train-labels-idx1-ubyte
    /// t10k-images-idx3-ubyte    t10k-labels-idx1-ubyte     (or test-…)
    /// ```
    ///
    /// each with or without `.gz`, and also in the spelling
    /// `train-images.idx3-ubyte`. If a file is there in both forms, the one
    /// without `.gz` is read. Only the training images are required. All names
    /// may begin with one common prefix, as in
    /// `emnist-balanced-train-images-idx3-ubyte`, which then names the corpus;
    /// files without a prefix win over files with one.
    ///
    /// EMNIST stores its images transposed. They are read as they are: a model
    /// trained on them draws transposed characters.
    ///
    /// # Errors
    /// [`Error::NoDataSet`] and [`Error::Ambiguous`] for the folder,
    /// [`Error::Read`] if it cannot be listed, and the errors of
    /// [`idx::read_images`], [`DataSet::new`] and [`Corpus::new`].
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let folder_files = Listing::of(folder)?;
        let prefix = folder_files.prefix()?;
        let name = match prefix {
            "" => folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned(),
            prefix => prefix.to_owned(),
        };
        let load = |split, split_name| {
            let Some(images) = folder_files.find(IdxName { prefix, split, kind: IdxKind::Images })? else {
                return Ok(None);
            };
            let labels = folder_files.find(IdxName { prefix, split, kind: IdxKind::Labels })?;
            let labels = labels.map(|file| idx::read_labels(&file)).transpose()?;
            DataSet::new(format!("{name}/{split_name}"), idx::read_images(&images)?, labels).map(Some)
        };
        let train = load(Split::Train, "train")?.ok_or_else(|| folder_files.nothing())?;
        Self::new(&name, train, load(Split::Test, "test")?)
    }
}

struct Listing<'a> {
    folder: &'a Path,
    /// File names, sorted, so that nothing depends on the order on disk.
    files: BTreeSet<String>,
}

impl<'a> Listing<'a> {
    fn of(folder: &'a Path) -> Result<Self> {
        let error = |source| Error::Read { file: folder.to_owned(), source };
        let mut files = BTreeSet::new();
        for entry in folder.read_dir().map_err(error)? {
            // A name that is not UTF-8 is not one of ours.
            files.extend(entry.map_err(error)?.file_name().into_string());
        }
        Ok(Self { folder, files })
    }

    /// The prefix of the one set in the folder.
    fn prefix(&self) -> Result<&str> {
        let train_images = |name: &&IdxName<'_>| name.split == Split::Train && name.kind == IdxKind::Images;
        let names: Vec<_> = self.files.iter().filter_map(|file| names::parse(file)).collect();
        let prefixes: BTreeSet<_> = names.iter().filter(train_images).map(|name| name.prefix).collect();
        match prefixes.first() {
            None => Err(self.nothing()),
            // The empty prefix sorts first.
            Some(&prefix) if prefix.is_empty() || prefixes.len() == 1 => Ok(prefix),
            Some(_) => Err(self.ambiguous(prefixes.into_iter().map(ToOwned::to_owned).collect())),
        }
    }

    /// The one file of that meaning, if there is one.
    fn find(&self, meaning: IdxName<'_>) -> Result<Option<PathBuf>> {
        let mut files: Vec<_> =
            self.files.iter().filter(|file| names::parse(file) == Some(meaning)).collect();
        files.retain(|file| file.strip_suffix(".gz").is_none_or(|raw| !self.files.contains(raw)));
        match files.as_slice() {
            [] => Ok(None),
            [file] => Ok(Some(self.folder.join(file))),
            several => Err(self.ambiguous(several.iter().map(|&file| file.clone()).collect())),
        }
    }

    fn nothing(&self) -> Error {
        let expected = "train-images-idx3-ubyte and, if there are any, train-labels-idx1-ubyte, \
                        t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte";
        Error::NoDataSet { folder: self.folder.to_owned(), expected: expected.to_owned() }
    }

    fn ambiguous(&self, candidates: Vec<String>) -> Error {
        Error::Ambiguous { folder: self.folder.to_owned(), candidates }
    }
}
