//! The feature net: a small convolutional network, trained once and then frozen, that computes image features.
//!
//! The penultimate layer gives the features for the metrics, the last layer the class. Metrics are comparable only if
//! they were computed with the same weights. The [digest](FeatureNet::digest) of the weights identifies a net.
//!
//! | file | holds |
//! | --- | --- |
//! | `config.rs` | the architecture: image size, task and layers |
//! | `layers.rs` | the forward pass, from pixels to features and logits |
//! | `net.rs` | the frozen net |
//! | `folder.rs` | reading and writing the folder of a net |
//! | `train.rs` | training |

mod config;
mod folder;
mod layers;
mod net;
mod train;

pub use config::{Convolution, FeatureConfig, Task};
pub use net::{FeatureNet, FeatureOutput};
pub use train::{FeatureProgress, FeatureTraining, train_features};
