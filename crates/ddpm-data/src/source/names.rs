//! File names of IDX files.
//!
//! ```text
//! [PREFIX-](train|t10k|test)-(images|labels)(-|.)idx…-TYPE[.gz]    train-images-idx3-ubyte.gz
//! ```

use crate::idx::IdxKind;

/// The training or the test set of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Split {
    Train,
    Test,
}

impl Split {
    pub(crate) const BOTH: [Self; 2] = [Self::Train, Self::Test];

    /// The name of the split in the names of data sets, and in parquet files on the Hub.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }

    /// The names of the split in file names. MNIST calls its test set `t10k`.
    pub(super) fn names(self) -> &'static [&'static str] {
        match self {
            Self::Train => &["train"],
            Self::Test => &["t10k", "test"],
        }
    }
}

/// The usual parts of a file name after the name of the split, the most common one first.
#[cfg(feature = "hub")]
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

impl IdxName<'_> {
    /// The usual name of the file.
    pub(crate) fn usual(self) -> String {
        let prefix = if self.prefix.is_empty() { String::new() } else { format!("{}-", self.prefix) };
        let split = self.split.names()[0];
        let kind = match self.kind {
            IdxKind::Images => "images-idx3",
            IdxKind::Labels => "labels-idx1",
        };
        format!("{prefix}{split}-{kind}-ubyte")
    }

    /// Whether the images are stored with rows and columns exchanged, as those of EMNIST are. The prefixes are
    /// emnist-balanced, emnist-byclass, emnist-letters, …
    pub(crate) fn is_transposed(self) -> bool {
        self.prefix.to_ascii_lowercase().starts_with("emnist")
    }

    /// Whether a name that is not parsed may be meant as this one: it has the word for its content, and the name of
    /// its split or of none.
    pub(crate) fn resembles(self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let has = |split: Split| split.names().iter().any(|split| name.contains(split));
        match self.kind {
            IdxKind::Images => name.contains("image") && has(self.split),
            IdxKind::Labels => {
                name.contains("label") && (has(self.split) || !Split::BOTH.into_iter().any(has))
            }
        }
    }
}

/// Parses a file name, or returns `None` if it is not a name of an IDX file of a split.
pub(crate) fn parse(name: &str) -> Option<IdxName<'_>> {
    let (stem, kind) = parse_kind(name)?;
    let (prefix, split_name) = stem.rsplit_once('-').unwrap_or(("", stem));
    let split = Split::BOTH.into_iter().find(|split| split.names().contains(&split_name))?;
    Some(IdxName { prefix, split, kind })
}

/// The part of a file name before `-images` or `-labels`, and what the name says that the file holds. `None` if it is
/// not a name of an IDX file.
pub(crate) fn parse_kind(name: &str) -> Option<(&str, IdxKind)> {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    let words = [("-images", IdxKind::Images), ("-labels", IdxKind::Labels)];
    let (stem, format, kind) = words.into_iter().find_map(|(word, kind)| {
        let (stem, format) = name.rsplit_once(word)?;
        Some((stem, format, kind))
    })?;
    // The content of the file, not its name, decides on the type and the number of dimensions.
    let (dimensions, element) = format.strip_prefix(['-', '.'])?.strip_prefix("idx")?.split_once('-')?;
    let is_format = dimensions.parse::<u8>().is_ok() && ELEMENTS.contains(&element);
    is_format.then_some((stem, kind))
}

/// The names of the types of numbers in the names of IDX files.
const ELEMENTS: [&str; 6] = ["ubyte", "byte", "short", "int", "float", "double"];

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
        assert_eq!(parse("qmnist-train-labels-idx2-int.gz"), name("qmnist", Split::Train, IdxKind::Labels));
        assert_eq!(
            parse("emnist-balanced-train-labels-idx1-ubyte.gz"),
            name("emnist-balanced", Split::Train, IdxKind::Labels)
        );
    }

    #[test]
    fn other_names_are_rejected() {
        for other in ["", "README.md", "train-images-idx3", "train-images", "strain-images-idx3-ubyte"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn slightly_wrong_names_resemble_the_usual_one() {
        let name = |split, kind| IdxName { prefix: "a", split, kind };
        let train_labels = name(Split::Train, IdxKind::Labels);
        assert_eq!(train_labels.usual(), "a-train-labels-idx1-ubyte");
        for resembling in ["train-label-idx1-ubyte", "labels.csv", "Train_Labels.idx1-ubyte"] {
            assert!(train_labels.resembles(resembling), "{resembling}");
        }
        for other in ["t10k-labels.txt", "test-label-idx1-ubyte", "README.md", "train-images"] {
            assert!(!train_labels.resembles(other), "{other}");
        }
        assert!(name(Split::Test, IdxKind::Images).resembles("t10k_images.idx3-ubyte"));
        assert!(!name(Split::Test, IdxKind::Images).resembles("train_images.idx3-ubyte"));
    }

    #[test]
    fn the_kind_is_parsed_without_a_split() {
        assert_eq!(parse_kind("drawn-images-idx3-ubyte.gz"), Some(("drawn", IdxKind::Images)));
        assert_eq!(parse_kind("a-b-labels.idx1-ubyte"), Some(("a-b", IdxKind::Labels)));
        for other in ["drawn-images", "drawn-images-idx3-half", "images-idx3-ubyte", "drawn.png"] {
            assert_eq!(parse_kind(other), None, "{other}");
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
