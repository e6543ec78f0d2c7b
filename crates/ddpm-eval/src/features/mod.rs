//! The feature net: a small convolutional network, trained once and then frozen, by which images are measured.
//!
//! Its penultimate layer gives the features of which a Fréchet distance is taken, and its last layer the
//! class. Figures can be compared only if they were taken with the same weights, so a net is known by the
//! [digest](FeatureNet::digest) of its weights.
//!
//! | file | holds |
//! | --- | --- |
//! | `config.rs` | what describes a net: the size of its images, its task and its layers |
//! | `layers.rs` | convolution, and the pass from pixels to features and logits |
//! | `net.rs` | the frozen net |
//! | `folder.rs` | its files |
//! | `train.rs` | how it came about |

mod config;
mod folder;
mod layers;
mod net;
mod train;

pub use config::{Convolution, FeatureConfig, Task};
pub use net::{Description, FeatureNet};
pub use train::{FeatureProgress, FeatureTraining, train_features};
