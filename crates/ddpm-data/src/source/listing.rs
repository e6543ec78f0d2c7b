//! The files below a folder, and the data sets among them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use super::names::{self, IdxName, Split};
use super::parquet_names::{ParquetSet, choose_parquet, parquet_sets};
use crate::error::{Error, Result};
use crate::idx::IdxKind;

/// The largest depth of a file that is found: `emnist/gzip/FILE` has depth 2.
const MAX_DEPTH: usize = 4;
/// The largest number of files that are listed, from the upper folders down.
const MAX_FILES: usize = 10_000;
/// The largest number of files that an error names.
const SHOWN: usize = 8;

/// The files below a folder.
pub(super) struct Listing {
    folder: PathBuf,
    /// Paths from the folder, with `/`, sorted, so that results do not depend on the order on disk.
    files: BTreeSet<String>,
}

/// A data set of IDX files: the folder of its files, empty or ending in `/`, and their prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SetName<'a> {
    pub(super) folder: &'a str,
    pub(super) prefix: &'a str,
}

impl Listing {
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let mut files = BTreeSet::new();
        let mut folders = VecDeque::from([(String::new(), 0)]);
        while let Some((path, depth)) = folders.pop_front() {
            let directory = folder.join(&path);
            let entries = match directory.read_dir() {
                Ok(entries) => entries,
                Err(source) if depth == 0 => return Err(Error::Read { file: directory, source }),
                // A folder of others below may be unreadable.
                Err(_) => continue,
            };
            for entry in entries.filter_map(Result::ok) {
                // Skips names that are not UTF-8, and hidden ones: no file of a data set has one.
                let Ok(name) = entry.file_name().into_string() else { continue };
                // Follows links, as the cache of the Hub has them.
                let Ok(metadata) = fs::metadata(entry.path()) else { continue };
                if name.starts_with('.') || files.len() == MAX_FILES {
                    continue;
                }
                match metadata.is_dir() {
                    true if depth < MAX_DEPTH => folders.push_back((format!("{path}{name}/"), depth + 1)),
                    true => {}
                    false => drop(files.insert(format!("{path}{name}"))),
                }
            }
        }
        Ok(Self { folder: folder.to_owned(), files })
    }

    /// A listing of one file.
    pub(super) fn of_file(folder: &Path, name: &str) -> Self {
        Self { folder: folder.to_owned(), files: [name.to_owned()].into() }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The IDX files, with the data set that each belongs to.
    fn idx_files(&self) -> impl Iterator<Item = (&str, SetName<'_>, IdxName<'_>)> {
        self.files.iter().filter_map(|path| {
            let (folder, file) = split_folder(path);
            let name = names::parse(file)?;
            // Kaggle's archive of MNIST has each file also in a folder of its name.
            let own =
                folder.strip_suffix('/').map(split_folder).filter(|(_, own)| names::parse(own) == Some(name));
            let folder = own.map_or(folder, |(above, _)| above);
            Some((path.as_str(), SetName { folder, prefix: name.prefix }, name))
        })
    }

    /// The data sets: what has training images.
    pub(super) fn sets(&self) -> BTreeSet<SetName<'_>> {
        let is_train_images = |name: &IdxName<'_>| name.split == Split::Train && name.kind == IdxKind::Images;
        self.idx_files().filter(|(_, _, name)| is_train_images(name)).map(|(_, set, _)| set).collect()
    }

    /// The data set with this prefix in the folder itself. With `None`, the one without a prefix, or the only one of
    /// the folder, or the only one below.
    pub(super) fn choose<'a>(&'a self, prefix: Option<&'a str>) -> Result<SetName<'a>> {
        let mut sets: Vec<_> = self.sets().into_iter().collect();
        if sets.iter().any(|set| set.folder.is_empty()) {
            sets.retain(|set| set.folder.is_empty());
        }
        let wanted = SetName { folder: "", prefix: prefix.unwrap_or_default() };
        match sets.as_slice() {
            sets if sets.contains(&wanted) => Ok(wanted),
            &[set] if prefix.is_none() => Ok(set),
            [] | [_] => Err(self.no_data_set()),
            several => {
                let path = |set: &SetName<'_>| {
                    let path = self.folder.join(set.folder).join(set.prefix);
                    path.display().to_string().trim_end_matches('/').to_owned()
                };
                let candidates = several.iter().map(path).collect();
                Err(Error::Ambiguous { folder: self.folder.clone(), candidates })
            }
        }
    }

    /// The data sets of parquet files, by configuration.
    pub(super) fn parquet_sets(&self) -> BTreeMap<String, ParquetSet> {
        parquet_sets(self.files.iter())
    }

    /// The data set of parquet files with this configuration. With `None`, the one without a configuration, or the
    /// only one. `None` if the folder has no parquet files.
    pub(super) fn choose_parquet(&self, config: Option<&str>) -> Result<Option<(String, ParquetSet)>> {
        choose_parquet(self.parquet_sets(), config, &self.folder)
    }

    /// The path of a file of a data set, or `None` if there is no such file.
    ///
    /// # Errors
    /// [`Error::SeveralFiles`], or [`Error::Unread`] if the file may be there under another name.
    pub(super) fn find(&self, set: SetName<'_>, name: IdxName<'_>) -> Result<Option<PathBuf>> {
        let of_name = |other: IdxName<'_>| {
            let files = self.idx_files().filter(|(_, of, found)| (*of, *found) == (set, other));
            let files: Vec<&str> = files.map(|(file, _, _)| file).collect();
            // A file in a folder of its own name is a copy.
            let depth = |file: &&str| file.matches('/').count();
            let least = files.iter().map(depth).min();
            let mut files: Vec<_> = files.into_iter().filter(|file| Some(depth(file)) == least).collect();
            files.retain(|file| file.strip_suffix(".gz").is_none_or(|raw| !self.files.contains(raw)));
            files
        };
        let files = of_name(name);
        let join = |file: &str| self.folder.join(file);
        match files.as_slice() {
            [file] => return Ok(Some(join(file))),
            [] => {}
            several => {
                let files = several.iter().map(|&file| file.to_owned()).collect();
                return Err(Error::SeveralFiles { folder: self.folder.clone(), files });
            }
        }
        let sibling = IdxName {
            kind: if name.kind == IdxKind::Images { IdxKind::Labels } else { IdxKind::Images },
            ..name
        };
        let siblings = of_name(sibling);
        let unread = match (name.kind, siblings.first()) {
            // A split without images has no labels either.
            (IdxKind::Labels, None) => None,
            // Labels without images.
            (IdxKind::Images, Some(&labels)) => Some(labels),
            _ => self.resembling(name),
        };
        match unread {
            None => Ok(None),
            Some(file) => {
                let folder = self.folder.join(set.folder);
                Err(Error::Unread { file: join(file), missing: folder.join(name.usual()) })
            }
        }
    }

    /// A file of no data set whose name resembles this one.
    fn resembling(&self, name: IdxName<'_>) -> Option<&str> {
        let sets = self.sets();
        let read: BTreeSet<&str> =
            self.idx_files().filter(|(_, set, _)| sets.contains(set)).map(|(file, _, _)| file).collect();
        let mut others = self.files.iter().filter(|file| !read.contains(file.as_str()));
        others.find(|file| name.resembles(split_folder(file).1)).map(String::as_str)
    }

    pub(super) fn no_data_set(&self) -> Error {
        let mut found: Vec<&str> = self.files.iter().take(SHOWN).map(String::as_str).collect();
        match self.files.len() {
            0 => found.push("no files"),
            SHOWN.. if self.files.len() > SHOWN => found.push("…"),
            _ => {}
        }
        Error::NoDataSet { folder: self.folder.clone(), found: found.join(", ") }
    }
}

/// The folder of a path, empty or ending in `/`, and the name of the file.
fn split_folder(path: &str) -> (&str, &str) {
    path.split_at(path.rfind('/').map_or(0, |at| at + 1))
}
