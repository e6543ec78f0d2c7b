//! Finds the files of a data set in a repository.

use std::path::Path;

use super::fetch::Repository;
use super::{HubAddress, Split};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::idx::{self, IdxKind, Images};
use crate::parquet;
use crate::source::names::candidates;
use crate::source::parquet_names::{choose_parquet, parquet_sets};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// One file per split, with images and labels.
    Parquet,
    /// Two files per split, one with images and one with labels.
    Idx,
}

impl Layout {
    /// The possible names of the file with the images of a split, the most common one
    /// first.
    fn images(self, name: &str, split: Split) -> Vec<String> {
        match self {
            Self::Parquet => {
                let file = format!("{}-00000-of-00001.parquet", split.name());
                [name, "data"].map(|folder| format!("{folder}/{file}")).into()
            }
            Self::Idx => candidates(split, IdxKind::Images),
        }
    }
}

/// Reads the training set and, if the repository has one, the test set.
pub(super) fn read(
    repository: &mut Repository<'_>,
    address: &HubAddress,
) -> Result<(Dataset, Option<Dataset>)> {
    let layouts = [Layout::Parquet, Layout::Idx];
    // The usual names first: they need no list of files.
    let usual = match address.config() {
        None => read_split(repository, address, &layouts, Split::Train)?,
        Some(_) => None,
    };
    let Some((layout, train)) = usual else {
        if let Some(read) = read_listed(repository, address)? {
            return Ok(read);
        }
        let expected = layouts.iter().flat_map(|layout| layout.images(address.name(), Split::Train));
        return Err(Error::NoHubDataSet {
            repo: repository.id(),
            revision: repository.revision().to_owned(),
            expected: expected.collect(),
        });
    };
    let test = read_split(repository, address, &[layout], Split::Test)?;
    Ok((train, test.map(|(_, test)| test)))
}

/// Reads the parquet files of a repository by its list of files; `None` if they are no data set, or there is no list.
fn read_listed(
    repository: &mut Repository<'_>,
    address: &HubAddress,
) -> Result<Option<(Dataset, Option<Dataset>)>> {
    let Some(files) = repository.files()? else { return Ok(None) };
    let without_config = format!("hf://datasets/{}/{}", address.owner(), address.name());
    let place = Path::new(&without_config);
    let Some((_, set)) = choose_parquet(parquet_sets(files.iter()), address.config(), place)? else {
        return Ok(None);
    };
    let name = format!("{}/{}", address.owner(), address.name());
    set.read(&name, place, |file| repository.get(file, |path| Ok(path.to_owned()))).map(Some)
}

fn read_split(
    repository: &mut Repository<'_>,
    address: &HubAddress,
    layouts: &[Layout],
    split: Split,
) -> Result<Option<(Layout, Dataset)>> {
    let files: Vec<_> = layouts.iter().flat_map(|layout| layout.images(address.name(), split)).collect();
    let name = format!("{}/{}/{}", address.owner(), address.name(), split.name());
    let Some(content) = repository.first(&files, |file| Content::read(&name, file))? else {
        return Ok(None);
    };
    match content {
        Content::Rows(set) => Ok(Some((Layout::Parquet, set))),
        Content::Images(images) => {
            let labels = repository.first(&candidates(split, IdxKind::Labels), idx::read_labels)?;
            Ok(Some((Layout::Idx, Dataset::new(name, images, labels)?)))
        }
    }
}

/// The content of a file with images.
enum Content {
    /// Images and labels of a parquet file.
    Rows(Dataset),
    Images(Images),
}

impl Content {
    fn read(name: &str, file: &Path) -> Result<Self> {
        if file.extension().is_some_and(|extension| extension == "parquet") {
            parquet::read(name.to_owned(), &[file.to_owned()]).map(Self::Rows)
        } else {
            idx::read_images(file).map(Self::Images)
        }
    }
}
