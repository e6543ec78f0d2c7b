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

/// Images of one pass on a CPU, where passes go to the threads. So few that the tensor library does not give
/// their layers to threads of its own, for which the passes would have to wait.
const CPU_CHUNK: usize = 4;
/// Images of one pass on another device.
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
    /// The file of weights.
    file: Vec<u8>,
    digest: String,
}

/// What the net says of N images, in one pass.
#[derive(Clone, Debug)]
pub struct Description {
    /// [N, features], not negative.
    pub features: Tensor,
    /// [N, classes], unnormalised logarithms of probabilities; none if the net does not know classes.
    pub logits: Option<Tensor>,
}

impl FeatureNet {
    /// The net of MNIST that is part of the program.
    ///
    /// # Errors
    ///
    /// If the files that were compiled in are not what they should be, or the tensor library fails.
    pub fn builtin(device: &Device) -> Result<Self> {
        folder::read_builtin(device)
    }

    /// Reads the folder of a net.
    ///
    /// # Errors
    ///
    /// If a file is missing or not what it should be; the error names the file, what was found and what was
    /// expected.
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        folder::read(folder, device)
    }

    /// Writes the folder of a net: `config.json`, `features.safetensors` (f16) and `README.md` with the text
    /// `card`. A net that stands there is replaced; a folder that holds something else is refused.
    ///
    /// # Errors
    ///
    /// If the folder exists and holds no net, or cannot be written; what stood there is then as it was.
    pub fn save(&self, folder: &Path, card: &str) -> Result<()> {
        folder::write(folder, &self.config, (&self.file, &self.digest), card)
    }

    /// Checks that [`FeatureNet::save`] would not refuse a folder for what it holds.
    ///
    /// # Errors
    ///
    /// If the folder exists, is not empty, and holds no net.
    pub fn check_writable(folder: &Path) -> Result<()> {
        folder::check_writable(folder)
    }

    /// A net with these weights, which are those of `file`, whose digest is `digest`.
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

    /// SHA-256 of the file of weights, in hexadecimal: the name of this ruler.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The number of classes that the net tells apart; none if it was trained without labels.
    #[must_use]
    pub fn num_classes(&self) -> Option<usize> {
        match self.config.task {
            Task::Classes { num_classes } => Some(num_classes),
            Task::Flips => None,
        }
    }

    /// Checks that a data set has images of the net's size and, if both have classes, as many of them.
    ///
    /// # Errors
    ///
    /// If it has not; the error names both.
    pub fn ensure_fits(&self, data: &Dataset) -> Result<()> {
        let FeatureConfig { rows, cols, .. } = self.config;
        if (data.rows(), data.cols()) != (rows, cols) {
            return Err(Error::FeatureSize {
                data: data.name().to_owned(),
                found: [data.rows(), data.cols()],
                expected: [rows, cols],
            });
        }
        match (data.classes(), self.num_classes()) {
            (Some(found), Some(expected)) if found != expected => {
                Err(Error::FeatureClasses { data: data.name().to_owned(), found, expected })
            }
            _ => Ok(()),
        }
    }

    /// Features and logits of the images in `pixels`, grey levels that lie one image after another.
    ///
    /// An image's figures do not depend on those beside it, nor on the number of threads.
    ///
    /// # Errors
    ///
    /// If the pixels are not whole images of the net's size, or the tensor library fails.
    pub fn describe(&self, pixels: &[u8]) -> Result<Description> {
        let (features, logits) = self.run(pixels)?;
        Ok(Description { features, logits: self.num_classes().map(|_| logits) })
    }

    /// The features of the images in `pixels`, [N, features].
    ///
    /// # Errors
    ///
    /// As [`FeatureNet::describe`].
    pub fn features(&self, pixels: &[u8]) -> Result<Tensor> {
        Ok(self.run(pixels)?.0)
    }

    /// The most likely class of each of the images in `pixels`.
    ///
    /// # Errors
    ///
    /// If the net was trained without labels, and as [`FeatureNet::describe`].
    pub fn classes(&self, pixels: &[u8]) -> Result<Vec<u8>> {
        let description = self.describe(pixels)?;
        description.classes()?.ok_or_else(|| Error::NoClassifier { digest: self.digest.clone() })
    }

    /// How often the net gives the right answer for a data set: the class, or, without labels, the flip of
    /// each image under each of the four flips.
    ///
    /// # Errors
    ///
    /// If the data set does not fit the net, or has no labels and the net knows classes, or the tensor library
    /// fails.
    pub fn accuracy(&self, data: &Dataset) -> Result<ClassAccuracy> {
        self.ensure_fits(data)?;
        let (flipped, flips);
        let (pixels, answers) = match self.config.task {
            Task::Classes { .. } => {
                let unlabelled = || Error::Unlabelled { data: data.name().to_owned() };
                (data.images(), data.labels().ok_or_else(unlabelled)?)
            }
            Task::Flips => {
                (flipped, flips) = all_flips(data);
                (flipped.as_slice(), flips.as_slice())
            }
        };
        ClassAccuracy::new(answers, &argmax(&self.run(pixels)?.1)?, self.config.task.answers())
    }

    fn run(&self, pixels: &[u8]) -> Result<(Tensor, Tensor)> {
        let size = self.config.pixels();
        if !pixels.len().is_multiple_of(size) {
            let data = "the feature net".to_owned();
            return Err(Error::ImageSize { found: pixels.len(), pixels: size, data });
        }
        let images = pixels.len().checked_div(size).unwrap_or(0);
        if images == 0 {
            let empty = |width| Tensor::zeros((0, width), DType::F32, &self.device);
            return Ok((empty(self.config.features)?, empty(self.config.task.answers())?));
        }
        let chunk = if self.device.is_cpu() { CPU_CHUNK } else { DEVICE_CHUNK };
        let forward = |pixels: &[u8]| {
            // Always as many, for a product of another size may round otherwise.
            let mut full = pixels.to_vec();
            full.resize(chunk * size, 0);
            let images = Tensor::from_vec(full, (chunk, size), &self.device)?.to_dtype(DType::F32)?;
            self.layers.forward(&(images / 255.0)?, &self.weights)
        };
        let parts: Vec<_> = if self.device.is_cpu() {
            pixels.par_chunks(chunk * size).map(forward).collect::<candle_core::Result<_>>()?
        } else {
            pixels.chunks(chunk * size).map(forward).collect::<candle_core::Result<_>>()?
        };
        let (features, logits): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        let whole = |parts: Vec<Tensor>| Tensor::cat(&parts, 0)?.narrow(0, 0, images)?.contiguous();
        Ok((whole(features)?, whole(logits)?))
    }
}

impl Description {
    /// The most likely class of each image; none if the net does not know classes.
    ///
    /// # Errors
    ///
    /// If the tensor library fails.
    pub fn classes(&self) -> Result<Option<Vec<u8>>> {
        self.logits.as_ref().map(argmax).transpose()
    }
}

/// The place of the largest number of each row.
fn argmax(logits: &Tensor) -> Result<Vec<u8>> {
    if logits.dim(0)? == 0 {
        return Ok(Vec::new());
    }
    // There are 62 classes at most.
    Ok(logits.argmax(D::Minus1)?.to_dtype(DType::U8)?.to_vec1()?)
}

#[cfg(test)]
pub(super) mod tests;
