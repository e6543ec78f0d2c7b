//! Why a metric has no value.

use std::fmt;

use serde::{Serialize, Serializer};

/// A set of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageSet {
    /// The generated images.
    Generated,
    /// The real test images of the floor.
    Test,
    /// The training images, the reference.
    Train,
}

/// Why a requested metric has no value, or not the usual one. Its text, which is also its form in JSON, is a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missing {
    /// A set has fewer images than the metric needs.
    TooFewImages {
        /// The name of the metric.
        metric: &'static str,
        /// The set.
        set: ImageSet,
        /// The number of images of the set.
        found: usize,
        /// The smallest number with which the metric has a value.
        least: usize,
        /// What this number is.
        reason: &'static str,
    },
    /// A set has fewer images than the extrapolation of its Fréchet distance needs.
    NotExtrapolated {
        /// The set.
        set: ImageSet,
        /// The number of images of the set.
        found: usize,
        /// The smallest number of images from which the distance is extrapolated.
        least: usize,
    },
    /// Class accuracy needs labels, and the set has none.
    NoLabels {
        /// The set.
        set: ImageSet,
    },
    /// Class accuracy needs a feature net that predicts classes.
    NoClassifier,
    /// The training images have classes, and the generated images no labels, so the diversity is over all images.
    NotByClass,
    /// The diversity within classes needs labels, and the test images have none.
    NoTestDiversity,
    /// No class has a diversity in both sets: two images or more, and training images that differ.
    NoDiversity {
        /// The set.
        set: ImageSet,
    },
}

impl ImageSet {
    fn name(self) -> &'static str {
        match self {
            Self::Generated => "generated images",
            Self::Test => "test images",
            Self::Train => "training images",
        }
    }

    /// What follows the name of a metric of this set. Metrics are those of generated images, if nothing follows.
    fn of(self) -> &'static str {
        if self == Self::Test { " of test images" } else { "" }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFewImages { metric, set, found, least, reason } => write!(
                f,
                "There is no {metric}{}, because at least {least} {} are needed, {reason}; found {found}.",
                set.of(),
                set.name()
            ),
            Self::NotExtrapolated { set, found, least } => write!(
                f,
                "The Fréchet distance{} is not extrapolated, because that needs at least {least} {}, four for each \
                 feature; found {found}.",
                set.of(),
                set.name()
            ),
            Self::NoLabels { set } => {
                write!(f, "There is no class accuracy{}, because the {} have no labels.", set.of(), set.name())
            }
            Self::NoClassifier => {
                f.write_str("There is no class accuracy, because the feature net has no classes.")
            }
            Self::NotByClass => f.write_str(
                "The diversity is over all images instead of within classes, because the generated images have no \
                 labels.",
            ),
            Self::NoTestDiversity => f.write_str(
                "There is no diversity of test images, because the test images have no labels.",
            ),
            Self::NoDiversity { set } => write!(
                f,
                "The diversity{} has no value, because no class has two {} and training images that differ.",
                set.of(),
                set.name()
            ),
        }
    }
}

impl Serialize for Missing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
