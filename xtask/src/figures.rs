//! What `ddpm-cli eval` says about a model.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Fields without a meaning here; they are kept in the files of results.
pub(crate) type More = BTreeMap<String, Value>;

/// Images that are drawn to take figures of merit by; only those of the same number can be compared.
pub(crate) const MEASURED: u32 = 10_000;

/// Figures of merit of generated images; those that were not asked for are `None`, and so is what is told by
/// classes where there are none. Accuracies are between 0 and 1.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Evaluation {
    pub(crate) samples: u64,
    pub(crate) class_accuracy: Option<f64>,
    pub(crate) class_accuracy_by_class: Option<Vec<Option<f64>>>,
    /// The accuracy of the same feature net on real images that it has not seen.
    pub(crate) real_accuracy: Option<f64>,
    /// The guidance scale of sampling.
    pub(crate) guidance: f64,
    /// The name of the feature net.
    #[serde(alias = "ruler")]
    pub(crate) feature_net: String,
    pub(crate) frechet: Option<Distance>,
    pub(crate) manifold: Option<Manifold>,
    /// The mean distance to the nearest training image.
    pub(crate) memorisation: Option<Distance>,
    #[serde(flatten)]
    pub(crate) more: More,
}

/// A distance from the training images. A number that is not finite is `None`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Distance {
    pub(crate) distance: Option<f64>,
    /// How many times that of real test images it is; `None` without test images.
    pub(crate) ratio: Option<f64>,
    #[serde(flatten)]
    pub(crate) more: More,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Manifold {
    pub(crate) precision: Estimate,
    pub(crate) recall: Estimate,
    #[serde(flatten)]
    pub(crate) more: More,
}

/// A mean and its error. A number that is not finite is `None`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Estimate {
    pub(crate) mean: Option<f64>,
    pub(crate) standard_error: Option<f64>,
}

/// The variational bound on test images, as far as it is kept: without its terms.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Likelihood {
    pub(crate) images: u64,
    pub(crate) bound: Bounds,
    /// One for each timestep, as `--variances` takes them.
    pub(crate) optimal_variances: Vec<f64>,
}

/// By the distribution of a reverse step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bounds {
    pub(crate) posterior: Bound,
    pub(crate) beta: Bound,
    pub(crate) optimal: Bound,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub(crate) total_bits_per_dim: Estimate,
}

/// A model as a classifier of test images.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Classifier {
    pub(crate) images: u64,
    /// One for each number of draws.
    pub(crate) results: Vec<Classified>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Classified {
    pub(crate) draws: u64,
    pub(crate) accuracy: Option<f64>,
    #[serde(flatten)]
    pub(crate) more: More,
}

/// A number in a table or a sentence, with a dash for one that is not known.
pub(crate) fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.digits$}"))
}

/// A share in per cent, with a dash for one that is not known.
pub(crate) fn percent(share: Option<f64>) -> String {
    share.map_or("–".to_owned(), |share| format!("{:.1} %", share * 100.0))
}
