//! File names of IDX files.
//!
//! ```text
//! [PREFIX-](train|t10k|test)(-|.)(images|labels)… → train-images-idx3-ubyte.gz
//! ```

use crate::idx::IdxKind;

/// The training or the test set of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Split {
    Train,
    Test,
}

impl Split {
    /// The name of the split in the names of data sets, and in parquet files on the Hub.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }

    /// The names of the split in file names. MNIST calls its test set `t10k`.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Train => &["train"],
            Self::Test => &["t10k", "test"],
        }
    }
}

/// The part of a file name after the name of the split, the most common one first.
fn suffixes(kind: IdxKind) -> [&'static str; 2] {
    match kind {
        IdxKind::Images => ["-images-idx3-ubyte", "-images.idx3-ubyte"],
        IdxKind::Labels => ["-labels-idx1-ubyte", "-labels.idx1-ubyte"],
    }
}

/// The parsed name of an IDX file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IdxName<'a> {
    /// `emnist-balanced` in `emnist-balanced-train-images-idx3-ubyte`, or empty.
    pub(crate) prefix: &'a str,
    pub(crate) split: Split,
    pub(crate) kind: IdxKind,
}

/// Parses a file name, or returns `None` if it is not a name of an IDX file.
pub(crate) fn parse(name: &str) -> Option<IdxName<'_>> {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    let (stem, kind) = [IdxKind::Images, IdxKind::Labels].into_iter().find_map(|kind| {
        suffixes(kind).into_iter().find_map(|suffix| Some((name.strip_suffix(suffix)?, kind)))
    })?;
    let (prefix, split_name) = stem.rsplit_once('-').unwrap_or(("", stem));
    let split = [Split::Train, Split::Test].into_iter().find(|split| split.names().contains(&split_name))?;
    Some(IdxName { prefix, split, kind })
}

/// All file names without a prefix, the most common one first.
#[cfg(feature = "hub")]
pub(crate) fn candidates(split: Split, kind: IdxKind) -> Vec<String> {
    let mut names = Vec::new();
    for split_name in split.names() {
        for suffix in suffixes(kind) {
            names.extend(["", ".gz"].map(|end| format!("{split_name}{suffix}{end}")));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_names_are_parsed() {
        let name = |prefix, split, kind| Some(IdxName { prefix, split, kind });
        assert_eq!(parse("train-images-idx3-ubyte"), name("", Split::Train, IdxKind::Images));
        assert_eq!(parse("t10k-labels.idx1-ubyte.gz"), name("", Split::Test, IdxKind::Labels));
        assert_eq!(parse("test-images-idx3-ubyte.gz"), name("", Split::Test, IdxKind::Images));
        assert_eq!(
            parse("emnist-balanced-train-labels-idx1-ubyte.gz"),
            name("emnist-balanced", Split::Train, IdxKind::Labels)
        );
    }

    #[test]
    fn other_names_are_rejected() {
        for other in ["", "README.md", "train-images-idx1-ubyte", "train-images", "strain-images-idx3-ubyte"]
        {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[cfg(feature = "hub")]
    #[test]
    fn candidates_are_parsed() {
        for split in [Split::Train, Split::Test] {
            for kind in [IdxKind::Images, IdxKind::Labels] {
                let names = candidates(split, kind);
                assert_eq!(names.len(), 4 * split.names().len());
                for name in names {
                    assert_eq!(parse(&name), Some(IdxName { prefix: "", split, kind }), "{name}");
                }
            }
        }
    }
}
