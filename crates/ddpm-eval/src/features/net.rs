//! The frozen net.

use std::{collections::HashMap, path::Path};

use candle_core::{D, DType, Device, Tensor};
use ddpm_data::Dataset;
use rayon::prelude::*;

use super::{
    config::{FeatureConfig, Task},
    folder,
    layers::{Layers, Weights, in_order},
    train::all_flips,
};
use crate::{ClassAccuracy, Error, Result};

/// Images of one forward pass on a CPU. The passes run in parallel, so each is too small for candle to start threads
/// within a layer.
const CPU_CHUNK: usize = 4;
/// Images of one forward pass on another device.
const DEVICE_CHUNK: usize = 1024;

/// A frozen feature net on a device.
///
/// ```
/// use candle_core::Device;
/// use ddpm_data::Dataset;
/// use ddpm_eval::FeatureNet;
///
/// let net = FeatureNet::builtin(&Device::Cpu)?;
/// let test = Dataset::mnist_test()?;
/// let ten = &test.images()[..10 * 784];
/// assert_eq!(net.features(ten)?.dims(), [10, 128]);
/// assert_eq!(net.classes(ten)?, [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct FeatureNet {
    config: FeatureConfig,
    layers: Layers,
    weights: Weights,
    device: Device,
    /// The content of the weights file.
    file: Vec<u8>,
    digest: String,
}

/// Features and logits of N images.
#[derive(Clone, Debug)]
pub struct FeatureOutput {
    /// [N, features], each at least 0.
    pub features: Tensor,
    /// [N, classes], unnormalised log-probabilities; `None` if the net was trained without labels.
    pub logits: Option<Tensor>,
}

impl FeatureNet {
    /// The built-in feature net of MNIST, compiled into the program.
    ///
    /// # Errors
    ///
    /// If the embedded files are invalid, or the tensor library fails.
    pub fn builtin(device: &Device) -> Result<Self> {
        folder::read_builtin(device)
    }

    /// Reads a net from a folder.
    ///
    /// # Errors
    ///
    /// If a file is missing or invalid. The error names the file, the value found and the value expected.
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        folder::read(folder, device)
    }

    /// Writes the net to a folder: `config.json`, `features.safetensors` (f16) and `README.md` with the text `card`. A
    /// net already in the folder is replaced.
    ///
    /// # Errors
    ///
    /// If the folder has other content, or cannot be written. Its content is then unchanged.
    pub fn save(&self, folder: &Path, card: &str) -> Result<()> {
        folder::write(folder, &self.config, (&self.file, &self.digest), card)
    }

    /// Checks that [`FeatureNet::save`] may write to a folder: it does not exist, is empty, or holds a feature net.
    ///
    /// # Errors
    ///
    /// If the folder has other content.
    pub fn check_writable(folder: &Path) -> Result<()> {
        folder::check_writable(folder)
    }

    /// A net with the given weights. `file` is the content of the weights file, `digest` its SHA-256.
    pub(super) fn new(
        config: FeatureConfig,
        weights: &HashMap<String, Tensor>,
        file: Vec<u8>,
        digest: String,
        device: &Device,
    ) -> Result<Self> {
        let (layers, weights) = (Layers::new(&config, device)?, in_order(&config, weights)?);
        Ok(Self { config, layers, weights, device: device.clone(), file, digest })
    }

    /// The architecture.
    #[must_use]
    pub fn config(&self) -> &FeatureConfig {
        &self.config
    }

    /// The SHA-256 of the weights file in hexadecimal, which identifies the net.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The number of classes; `None` if the net was trained without labels.
    #[must_use]
    pub fn num_classes(&self) -> Option<usize> {
        match self.config.task {
            Task::Classes { num_classes } => Some(num_classes),
            Task::Flips => None,
        }
    }

    /// Checks that a data set has the image size of the net and, if both have classes, the same number of classes.
    ///
    /// # Errors
    ///
    /// If they differ.
    pub fn ensure_fits(&self, data: &Dataset) -> Result<()> {
        let FeatureConfig { rows, cols, .. } = self.config;
        if (data.rows(), data.cols()) != (rows, cols) {
            let found = format!("{}×{}", data.rows(), data.cols());
            let expected = format!("{rows}×{cols} as in the feature net");
            return Err(Error::out_of_range(format!("image size of {}", data.name()), found, expected));
        }
        match (data.classes(), self.num_classes()) {
            (Some(found), Some(expected)) if found != expected => {
                let name = format!("number of classes of {}", data.name());
                Err(Error::out_of_range(name, found, format!("{expected} as in the feature net")))
            }
            _ => Ok(()),
        }
    }

    /// Features and logits of images. `pixels` holds the grey levels of consecutive images.
    ///
    /// The result for an image does not depend on the other images or on the number of threads.
    ///
    /// # Errors
    ///
    /// If `pixels` does not hold complete images of the size of the net, or the tensor library fails.
    pub fn forward(&self, pixels: &[u8]) -> Result<FeatureOutput> {
        let (features, logits) = self.run(pixels)?;
        Ok(FeatureOutput { features, logits: self.num_classes().map(|_| logits) })
    }

    /// The features of images, [N, features]. `pixels` holds the grey levels of consecutive images.
    ///
    /// # Errors
    ///
    /// As [`FeatureNet::forward`].
    pub fn features(&self, pixels: &[u8]) -> Result<Tensor> {
        Ok(self.run(pixels)?.0)
    }

    /// The most likely class of each image. `pixels` holds the grey levels of consecutive images.
    ///
    /// # Errors
    ///
    /// If the net was trained without labels, and as [`FeatureNet::forward`].
    pub fn classes(&self, pixels: &[u8]) -> Result<Vec<u8>> {
        self.forward(pixels)?.classes()?.ok_or_else(|| Error::NoClassifier { digest: self.digest.clone() })
    }

    /// The accuracy of the net on a data set: of the class, or, for a net trained without labels, of the flip of each
    /// image under each of the four flips.
    ///
    /// # Errors
    ///
    /// If the data set does not fit the net, or has no labels although the net predicts classes, or the tensor library
    /// fails.
    pub fn accuracy(&self, data: &Dataset) -> Result<ClassAccuracy> {
        self.ensure_fits(data)?;
        let (flipped, flips);
        let (pixels, labels) = match self.config.task {
            Task::Classes { .. } => {
                let unlabelled = || ddpm_data::Error::NoLabels { name: data.name().to_owned() };
                (data.images(), data.labels().ok_or_else(unlabelled)?)
            }
            Task::Flips => {
                (flipped, flips) = all_flips(data);
                (flipped.as_slice(), flips.as_slice())
            }
        };
        ClassAccuracy::new(labels, &argmax(&self.run(pixels)?.1)?, self.config.task.num_outputs())
    }

    fn run(&self, pixels: &[u8]) -> Result<(Tensor, Tensor)> {
        let size = self.config.pixels();
        if !pixels.len().is_multiple_of(size) {
            return Err(Error::pixel_count(pixels.len(), size, "the feature net"));
        }
        let images = pixels.len().checked_div(size).unwrap_or(0);
        if images == 0 {
            let empty = |width| Tensor::zeros((0, width), DType::F32, &self.device);
            return Ok((empty(self.config.features)?, empty(self.config.task.num_outputs())?));
        }
        let chunk = if self.device.is_cpu() { CPU_CHUNK } else { DEVICE_CHUNK };
        let forward = |pixels: &[u8]| {
            // Padded to a full chunk: a matrix product of another size may round differently.
            let mut padded = pixels.to_vec();
            padded.resize(chunk * size, 0);
            let images = Tensor::from_vec(padded, (chunk, size), &self.device)?.to_dtype(DType::F32)?;
            self.layers.forward(&(images / 255.0)?, &self.weights)
        };
        let parts: Vec<_> = if self.device.is_cpu() {
            pixels.par_chunks(chunk * size).map(forward).collect::<candle_core::Result<_>>()?
        } else {
            pixels.chunks(chunk * size).map(forward).collect::<candle_core::Result<_>>()?
        };
        let (features, logits): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        let concatenate = |parts: Vec<Tensor>| Tensor::cat(&parts, 0)?.narrow(0, 0, images)?.contiguous();
        Ok((concatenate(features)?, concatenate(logits)?))
    }
}

impl FeatureOutput {
    /// The most likely class of each image; `None` if the net was trained without labels.
    ///
    /// # Errors
    ///
    /// If the tensor library fails.
    pub fn classes(&self) -> Result<Option<Vec<u8>>> {
        self.logits.as_ref().map(argmax).transpose()
    }
}

/// The column of the largest value in each row.
fn argmax(logits: &Tensor) -> Result<Vec<u8>> {
    if logits.dim(0)? == 0 {
        return Ok(Vec::new());
    }
    // At most 62 classes.
    Ok(logits.argmax(D::Minus1)?.to_dtype(DType::U8)?.to_vec1()?)
}

#[cfg(test)]
pub(super) mod tests;
