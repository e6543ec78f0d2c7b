//! A data set with its training and test split.

use crate::dataset::Dataset;
use crate::error::{Error, Result};

/// A training set and an optional test set. Both have the same image size and, if
/// labelled, the same number of classes.
#[derive(Debug, Clone)]
pub struct Splits {
    name: String,
    train: Dataset,
    test: Option<Dataset>,
    commit: Option<String>,
}

impl Splits {
    /// Combines two splits. Both get the larger of their numbers of classes.
    ///
    /// # Errors
    /// [`Error::SplitSize`] if the image sizes differ.
    pub fn new(name: impl Into<String>, train: Dataset, test: Option<Dataset>) -> Result<Self> {
        if let Some(test) = &test {
            let [found, expected] = [test, &train].map(|set| [set.rows(), set.cols()]);
            if found != expected {
                return Err(Error::SplitSize { file: test.images_file().to_owned(), found, expected });
            }
        }
        let classes = train.classes().max(test.as_ref().and_then(Dataset::classes));
        let splits = Self { name: name.into(), train, test, commit: None };
        match classes {
            Some(classes) => splits.with_classes(classes),
            None => Ok(splits),
        }
    }

    /// The same splits with the given number of classes. An unlabelled split is left
    /// as it is.
    ///
    /// # Errors
    /// [`Error::LabelOutOfRange`] if a label is `classes` or more,
    /// [`Error::NoLabels`] if neither split has labels.
    pub fn with_classes(self, classes: usize) -> Result<Self> {
        let Self { name, train, test, commit } = self;
        if train.classes().is_none() && test.as_ref().is_none_or(|test| test.classes().is_none()) {
            return Err(Error::NoLabels { name });
        }
        let set = |set: Dataset| if set.classes().is_some() { set.with_classes(classes) } else { Ok(set) };
        Ok(Self { name, train: set(train)?, test: test.map(set).transpose()?, commit })
    }

    /// The name of the data set: `MNIST`, the name of a folder, the prefix of its
    /// files, or `OWNER/NAME` on the Hub.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The training set.
    #[must_use]
    pub fn train(&self) -> &Dataset {
        &self.train
    }

    /// The test set, or `None` if the source has only a training set.
    #[must_use]
    pub fn test(&self) -> Option<&Dataset> {
        self.test.as_ref()
    }

    /// The training set and the test set, by value.
    #[must_use]
    pub fn into_splits(self) -> (Dataset, Option<Dataset>) {
        (self.train, self.test)
    }

    /// The commit of the Hub repository that the data set was read from, or `None`
    /// for other sources. Add `@COMMIT` to the address to read the same files again.
    #[must_use]
    pub fn commit(&self) -> Option<&str> {
        self.commit.as_deref()
    }

    #[cfg(feature = "hub")]
    pub(crate) fn at_commit(self, commit: String) -> Self {
        Self { commit: Some(commit), ..self }
    }
}
