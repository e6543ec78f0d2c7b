//! Reads data sets of grey-level images, such as MNIST and Fashion-MNIST, from IDX
//! files and the Hugging Face Hub.
//!
//! The crate depends on no tensor library and on no model.
//!
//! | term | meaning |
//! | --- | --- |
//! | [`Source`] | the location of a data set: `mnist`, a folder, `hf://datasets/…` |
//! | [`Splits`] | the splits of a data set: a training set and an optional test set |
//! | [`Dataset`] | one split: N × rows × cols grey levels and optional class labels |
//! | model scale | a pixel as `f32` in \[-1, 1]: `p / 127.5 − 1` ([`to_model_scale`], [`to_pixel`]) |
//!
//! With the feature `mnist`, MNIST (Yann LeCun, Corinna Cortes, Christopher
//! J.C. Burges; CC BY-SA 3.0) is part of the compiled crate. Loading it verifies
//! its SHA-256:
//!
//! ```
//! # #[cfg(feature = "mnist")] {
//! use ddpm_data::Splits;
//!
//! let mnist = Splits::mnist()?;
//! let train = mnist.train();
//! assert_eq!((train.len(), train.rows(), train.cols()), (60_000, 28, 28));
//! assert_eq!(train.classes(), Some(10));
//! assert!((train.stats().std - 0.6162).abs() < 1e-4);
//!
//! let indices = [0, 5, 59_999];
//! let (mut images, mut labels) = (Vec::new(), Vec::new());
//! train.gather_images(&indices, &mut images)?;
//! train.gather_labels(&indices, &mut labels)?;
//! assert_eq!((images.len(), labels.len()), (3 * 28 * 28, 3));
//! assert!(images.iter().all(|x| (-1.0..=1.0).contains(x)));
//! # }
//! # Ok::<(), ddpm_data::Error>(())
//! ```
//!
//! # Features
//!
//! No feature is on by default.
//!
//! | feature | adds | without it |
//! | --- | --- | --- |
//! | `mnist` | [`Source::Mnist`], 11 MB of data | loading MNIST fails with [`Error::MnistFeature`] |
//! | `formats` | `Dataset::from_path`: images in PNG, NumPy and safetensors files | there is no such function |
//! | `hub` | data sets and model files from the Hub, pushing models to it, parquet files; a dependency on an HTTP client | loading an `hf://` source fails with [`Error::HubFeature`], parquet files with [`Error::ParquetFeature`] |

mod content;
mod dataset;
mod error;
#[cfg(feature = "formats")]
pub mod formats;
pub mod idx;
#[cfg(any(feature = "mnist", feature = "hub"))]
mod known_digests;
#[cfg(feature = "hub")]
pub mod parquet;
mod pixels;
mod source;
mod splits;

pub use content::kind_of;
pub use dataset::{Dataset, PixelStats};
pub use error::{Cause, Error, Result};
pub use idx::{Images, Labels};
pub use pixels::{to_model_scale, to_pixel};
pub use source::{
    FetchedModel, HubAddress, HubConfig, PushFile, PushOptions, Pushed, Source, check_push, fetch_model,
    push_model,
};
#[cfg(feature = "hub")]
pub use source::{Hub, HubFile};
pub use splits::Splits;
