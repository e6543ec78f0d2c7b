//! The data sets among the parquet files below a folder, by the names of the files.
//!
//! ```text
//! [CONFIG/][data/]train-00000-of-00002[-HASH].parquet    as `push_to_hub` writes them
//! CONFIG/train/0000.parquet                              as the Hub converts other data sets
//! [CONFIG_]train.parquet
//! ```

use std::collections::BTreeMap;
use std::path::Path;
#[cfg(feature = "hub")]
use std::path::PathBuf;

use super::names::Split;
#[cfg(feature = "hub")]
use crate::dataset::Dataset;
use crate::error::{Error, Result};

/// The names of a validation set, which stands in for a missing test set.
const VALIDATION: [&str; 4] = ["validation", "valid", "val", "dev"];

/// The files of a data set, sorted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ParquetSet {
    pub(crate) train: Part,
    pub(crate) test: Part,
    pub(crate) validation: Part,
}

/// The files of a split, and their number according to their names, if the names have it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) files: Vec<String>,
    pub(crate) expected: Option<usize>,
}

/// The data sets by the name of their configuration, which is empty if there is only one. Each has training files.
pub(crate) fn parquet_sets<'a>(files: impl Iterator<Item = &'a String>) -> BTreeMap<String, ParquetSet> {
    let mut sets: BTreeMap<String, ParquetSet> = BTreeMap::new();
    let (mut names, mut others) = (0, Vec::new());
    for path in files {
        let Some(name) = path.strip_suffix(".parquet") else { continue };
        names += 1;
        let Some((config, split, expected)) = parse(name) else {
            others.push(path);
            continue;
        };
        let set = sets.entry(config).or_default();
        let part = match split {
            Some(Split::Train) => &mut set.train,
            Some(Split::Test) => &mut set.test,
            None => &mut set.validation,
        };
        part.files.push(path.clone());
        part.expected = part.expected.max(expected);
    }
    if let ([only], 1) = (others.as_slice(), names) {
        // The only file has no split in its name.
        let train = Part { files: vec![(*only).clone()], expected: None };
        sets.insert(String::new(), ParquetSet { train, ..ParquetSet::default() });
    }
    sets.retain(|_, set| !set.train.files.is_empty());
    sets
}

/// Removes a data set from `sets`: the data set of the configuration `config`, or without `config` the only data set. It
/// returns `None` if `sets` has no such data set. `place` is the folder or the address of the data sets, for the error.
///
/// # Errors
/// [`Error::Ambiguous`] if there are several to choose from.
pub(crate) fn choose_parquet(
    mut sets: BTreeMap<String, ParquetSet>,
    config: Option<&str>,
    place: &Path,
) -> Result<Option<(String, ParquetSet)>> {
    if let Some(set) = sets.remove_entry(config.unwrap_or_default()) {
        return Ok(Some(set));
    }
    match sets.len() {
        0 | 1 => Ok(sets.pop_first().filter(|_| config.is_none())),
        _ => {
            let paths = sets.keys().map(|config| place.join(config).display().to_string());
            Err(Error::Ambiguous { folder: place.to_owned(), candidates: paths.collect() })
        }
    }
}

/// The configuration, the split (`None` for a validation set) and the number of files of the split, from a path
/// without its extension. `None` if the path names no split.
fn parse(path: &str) -> Option<(String, Option<Split>, Option<usize>)> {
    let (mut folders, stem) = match path.rsplit_once('/') {
        Some((folders, stem)) => (folders.split('/').collect::<Vec<_>>(), stem),
        None => (vec![], path),
    };
    let tokens: Vec<&str> = stem.split('-').collect();
    let number = |token: Option<&&str>| token.and_then(|token| token.parse::<usize>().ok());
    let of = tokens.iter().position(|token| *token == "of").filter(|&at| at > 0);
    let of = of.filter(|&at| number(tokens.get(at - 1)).is_some());
    let expected = of.and_then(|at| number(tokens.get(at + 1)));
    // The name before the number of the file.
    let base = match of.filter(|_| expected.is_some()) {
        Some(at) => tokens[..at - 1].join("-"),
        None => stem.to_owned(),
    };
    let (prefix, last) = base.rsplit_once(['-', '_', '.']).unwrap_or(("", &base));
    let (prefix, split) = match (split_of(last), folders.last().and_then(|folder| split_of(folder))) {
        (Some(split), _) => (prefix, split),
        (None, Some(split)) => {
            folders.pop();
            ("", split)
        }
        (None, None) => return None,
    };
    folders.retain(|folder| *folder != "data");
    if !prefix.is_empty() {
        folders.push(prefix);
    }
    Some((folders.join("/"), split, expected))
}

#[cfg(feature = "hub")]
impl ParquetSet {
    /// Reads the training set, and the test set or, without one, the validation set. `name` is the name of the data set,
    /// `place` its folder or address, and `path` gives the path of a file.
    pub(crate) fn read(
        self,
        name: &str,
        place: &Path,
        mut path: impl FnMut(&str) -> Result<PathBuf>,
    ) -> Result<(Dataset, Option<Dataset>)> {
        let mut load = |part: Part, split: &'static str| {
            let (found, expected) = (part.files.len(), part.expected.unwrap_or(part.files.len()));
            if found != expected {
                return Err(Error::Parts { folder: place.to_owned(), split, found, expected });
            }
            let files = part.files.iter().map(|file| path(file)).collect::<Result<Vec<_>>>()?;
            crate::parquet::read(format!("{name}/{split}"), &files)
        };
        let train = load(self.train, "train")?;
        let (test, split) =
            if self.test.files.is_empty() { (self.validation, "validation") } else { (self.test, "test") };
        let test = (!test.files.is_empty()).then(|| load(test, split)).transpose()?;
        Ok((train, test))
    }
}

fn split_of(name: &str) -> Option<Option<Split>> {
    let name = name.to_ascii_lowercase();
    // The Hub converts only a part of a large data set.
    let name = name.strip_prefix("partial-").unwrap_or(&name);
    match Split::BOTH.into_iter().find(|split| split.names().contains(&name)) {
        Some(split) => Some(Some(split)),
        None => VALIDATION.contains(&name).then_some(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(files: &[&str]) -> Vec<(String, [Vec<String>; 3])> {
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        let sets = parquet_sets(files.iter()).into_iter();
        sets.map(|(config, set)| (config, [set.train.files, set.test.files, set.validation.files])).collect()
    }

    #[test]
    fn the_layouts_of_the_hub_are_read() {
        for [train, test, config] in [
            ["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet", ""],
            ["data/train-00000-of-00001-a09b74b3ef9c3b56.parquet", "data/test-00000-of-00001-x.parquet", ""],
            ["mnist/train-00000-of-00001.parquet", "mnist/test-00000-of-00001.parquet", "mnist"],
            ["default/train/0000.parquet", "default/test/0000.parquet", "default"],
            ["default/partial-train/0000.parquet", "default/test/0000.parquet", "default"],
            ["train.parquet", "test.parquet", ""],
            ["mnist_train.parquet", "mnist_test.parquet", "mnist"],
            ["train/part-0.parquet", "test/part-0.parquet", ""],
            ["a/data/train-00000-of-00001.parquet", "a/data/t10k-00000-of-00001.parquet", "a"],
        ] {
            let expected = (config.to_owned(), [vec![train.to_owned()], vec![test.to_owned()], vec![]]);
            assert_eq!(sets(&[train, test, "README.md"]), [expected], "{train}");
        }
    }

    #[test]
    fn the_files_of_a_split_belong_together() {
        let files = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"];
        let names: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        let found = parquet_sets(names.iter());
        assert_eq!(found[""].train, Part { files: names.clone(), expected: Some(2) });
        let files = ["d/train/0000.parquet", "d/train/0001.parquet", "d/validation/0000.parquet"];
        let [(_, [train, test, validation])] = sets(&files).try_into().unwrap();
        assert_eq!((train.len(), test.len(), validation.len()), (2, 0, 1));
    }

    #[test]
    fn configurations_are_data_sets_of_their_own() {
        let files =
            ["a/train/0000.parquet", "b/train/0000.parquet", "b/test/0000.parquet", "c/test/0000.parquet"];
        let configs: Vec<_> = sets(&files).into_iter().map(|(config, _)| config).collect();
        assert_eq!(configs, ["a", "b"]);
    }

    #[test]
    fn only_a_file_that_is_alone_needs_no_split_in_its_name() {
        assert_eq!(sets(&["digits.parquet"]).len(), 1);
        assert_eq!(sets(&["digits.parquet", "letters.parquet"]), []);
        assert_eq!(sets(&["extra-00000-of-00001.parquet", "train-00000-of-00001.parquet"])[0].1[0].len(), 1);
        assert_eq!(sets(&["train.csv"]), []);
    }
}
