//! A data set with its splits.

use crate::dataset::DataSet;
use crate::error::{Error, Result};

/// What a source holds: a set to train on and, usually, one to test on. Both
/// have images of one size and the same number of classes.
#[derive(Debug, Clone)]
pub struct Corpus {
    name: String,
    train: DataSet,
    test: Option<DataSet>,
    commit: Option<String>,
}

impl Corpus {
    /// The number of classes of both sets becomes the larger of the two.
    ///
    /// # Errors
    /// [`Error::SplitSize`] if the images differ in size.
    pub fn new(name: impl Into<String>, train: DataSet, test: Option<DataSet>) -> Result<Self> {
        if let Some(test) = &test
            && (test.rows(), test.cols()) != (train.rows(), train.cols())
        {
            return Err(Error::SplitSize {
                file: test.images_file().to_owned(),
                rows: test.rows(),
                cols: test.cols(),
                expected_rows: train.rows(),
                expected_cols: train.cols(),
            });
        }
        let classes = train.classes().max(test.as_ref().and_then(DataSet::classes));
        let corpus = Self { name: name.into(), train, test, commit: None };
        match classes {
            Some(classes) => corpus.with_classes(classes),
            None => Ok(corpus),
        }
    }

    /// The same corpus with an explicit number of classes. A split without
    /// labels stays without classes.
    ///
    /// # Errors
    /// [`Error::LabelOutOfRange`] if a label is not below `classes`,
    /// [`Error::NoLabels`] if neither split has labels.
    pub fn with_classes(self, classes: usize) -> Result<Self> {
        let Self { name, train, test, commit } = self;
        if train.classes().is_none() && test.as_ref().is_none_or(|test| test.classes().is_none()) {
            return Err(Error::NoLabels { name });
        }
        let set = |set: DataSet| if set.classes().is_some() { set.with_classes(classes) } else { Ok(set) };
        Ok(Self { name, train: set(train)?, test: test.map(set).transpose()?, commit })
    }

    /// The name of the source: `mnist`, the name of a folder, or `OWNER/NAME`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The images to train on.
    #[must_use]
    pub fn train(&self) -> &DataSet {
        &self.train
    }

    /// The images to test on.
    #[must_use]
    pub fn test(&self) -> Option<&DataSet> {
        self.test.as_ref()
    }

    /// Both sets by value.
    #[must_use]
    pub fn into_splits(self) -> (DataSet, Option<DataSet>) {
        (self.train, self.test)
    }

    /// The commit of the Hub's repository that the corpus was read from; add it
    /// to the address as `@COMMIT` to read the same files again.
    #[must_use]
    pub fn commit(&self) -> Option<&str> {
        self.commit.as_deref()
    }

    #[cfg(feature = "hub")]
    pub(crate) fn at_commit(self, commit: String) -> Self {
        Self { commit: Some(commit), ..self }
    }
}
