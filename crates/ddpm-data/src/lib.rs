//! Image sets in the IDX format and from the Hub: MNIST and its relatives.
//!
//! The crate knows files and grey levels, and neither tensors nor models.
//!
//! | word | meaning |
//! | --- | --- |
//! | [`Source`] | where a data set comes from: `mnist`, a folder, `hf://datasets/…` |
//! | [`Corpus`] | what a source holds: a set to train on, perhaps one to test on |
//! | [`DataSet`] | N × rows × cols grey levels, perhaps with a class each |
//! | [`Epochs`] | which images make up the batch of a training step |
//! | model scale | `f32` in \[-1, 1]: `p / 127.5 − 1` ([`to_model_scale`], [`to_pixel`]) |
//!
//! With the feature `mnist`, MNIST (Yann LeCun, Corinna Cortes, Christopher
//! J.C. Burges; CC BY-SA 3.0) is compiled in, and verified against its SHA-256
//! when it is loaded:
//!
//! ```
//! # #[cfg(feature = "mnist")] {
//! use ddpm_data::{Corpus, Epochs};
//!
//! let mnist = Corpus::mnist()?;
//! let train = mnist.train();
//! assert_eq!((train.len(), train.rows(), train.cols()), (60_000, 28, 28));
//! assert_eq!(train.classes(), Some(10));
//! assert!((train.stats().std - 0.6162).abs() < 1e-4);
//!
//! // The batch of step 1000, whether or not the steps before were taken.
//! let mut epochs = Epochs::new(train.len(), 128, 42)?;
//! let indices = epochs.batch(1000);
//! let (mut images, mut labels) = (Vec::new(), Vec::new());
//! train.gather_images(indices, &mut images)?;
//! train.gather_labels(indices, &mut labels)?;
//! assert_eq!((images.len(), labels.len()), (128 * 28 * 28, 128));
//! assert!(images.iter().all(|x| (-1.0..=1.0).contains(x)));
//! # }
//! # Ok::<(), ddpm_data::Error>(())
//! ```
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | adds | without it |
//! | --- | --- | --- |
//! | `mnist` | [`Source::Mnist`] and the 11 MB of MNIST | loading it is [`Error::MnistFeature`] |
//! | `hub` | data sets and model files from the Hugging Face Hub, and an HTTP client among the dependencies | `hf://` sources are [`Error::HubFeature`] |

mod batches;
mod corpus;
mod dataset;
mod error;
pub mod idx;
#[cfg(any(feature = "mnist", feature = "hub"))]
mod known_digests;
mod pixels;
mod source;

pub use batches::Epochs;
pub use corpus::Corpus;
pub use dataset::{DataSet, PixelStats};
pub use error::{Cause, Error, Result};
pub use idx::{Images, Labels};
pub use pixels::{to_model_scale, to_pixel};
#[cfg(feature = "hub")]
pub use source::{Hub, HubFile};
pub use source::{HubAddress, HubConfig, Source, fetch_model};
