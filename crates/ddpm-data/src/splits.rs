//! A data set with its training and test split.

use std::collections::BTreeSet;

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
    class_labels: Option<Vec<u8>>,
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
        let splits = Self { name: name.into(), train, test, commit: None, class_labels: None };
        match classes {
            Some(classes) => splits.with_classes(classes),
            None => Ok(splits),
        }
    }

    /// The same splits with the given number of classes. A class is a label of the
    /// files, also after [`without_unused_classes`](Self::without_unused_classes).
    /// An unlabelled split is left as it is.
    ///
    /// # Errors
    /// [`Error::LabelOutOfRange`] if a label is `classes` or more,
    /// [`Error::NoLabels`] if neither split has labels.
    pub fn with_classes(self, classes: usize) -> Result<Self> {
        let Self { name, train, test, commit, class_labels } = self;
        if train.classes().is_none() && test.as_ref().is_none_or(|test| test.classes().is_none()) {
            return Err(Error::NoLabels { name });
        }
        let set = |set: Dataset| {
            let set = match &class_labels {
                Some(labels) => set.relabelled(1 + usize::from(u8::MAX), |class| labels[usize::from(class)]),
                None => set,
            };
            if set.classes().is_some() { set.with_classes(classes) } else { Ok(set) }
        };
        let (train, test) = (set(train)?, test.map(set).transpose()?);
        Ok(Self { name, train, test, commit, class_labels: None })
    }

    /// The same splits without classes that no image has: class k is the k-th smallest
    /// label that occurs in a split. Labels 1 to 26, as in EMNIST Letters, become classes
    /// 0 to 25. [`class_labels`](Self::class_labels) and [`notes`](Self::notes) say so.
    #[must_use]
    pub fn without_unused_classes(self) -> Self {
        let sets = || [&self.train].into_iter().chain(&self.test);
        let labels: BTreeSet<u8> = sets().filter_map(Dataset::labels).flatten().copied().collect();
        let labels: Vec<u8> = labels.into_iter().collect();
        if sets().filter_map(Dataset::classes).all(|classes| classes == labels.len()) {
            return self;
        }
        let mut class_of = [0; 256];
        for (class, &label) in (0_u8..).zip(&labels) {
            class_of[usize::from(label)] = class;
        }
        let set = |set: Dataset| set.relabelled(labels.len(), |label| class_of[usize::from(label)]);
        let (train, test) = (set(self.train), self.test.map(set));
        Self { train, test, class_labels: Some(labels), ..self }
    }

    /// The label in the files of each class, or `None` if it is the number of the class.
    #[must_use]
    pub fn class_labels(&self) -> Option<&[u8]> {
        self.class_labels.as_deref()
    }

    /// Sentences on how the data was read where that is not obvious: images that were
    /// left out or transposed, classes that are not the labels.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let sets = [&self.train].into_iter().chain(&self.test);
        let mut notes: Vec<String> = sets.flat_map(Dataset::notes).cloned().collect();
        if let Some(labels) = &self.class_labels {
            let list: Vec<_> = labels.iter().map(u8::to_string).collect();
            notes.push(format!(
                "the labels of the classes of {}, from class 0 on, are {}; no image has another label",
                self.name,
                list.join(", ")
            ));
        }
        notes
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
