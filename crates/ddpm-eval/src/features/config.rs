//! The architecture of a feature net.

use std::{ops::RangeInclusive, path::Path};

use ddpm_data::Dataset;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The architecture of a feature net: convolutions, each followed by ReLU; a linear layer and ReLU, whose output are
/// the features; a linear layer to the logits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureConfig {
    /// Rows of an image in pixels, 1 to 64.
    pub rows: usize,
    /// Columns of an image in pixels, 1 to 64.
    pub cols: usize,
    /// The classification task that the net is trained on.
    pub task: Task,
    /// The convolutions from input to output, 1 to 8.
    pub convolutions: Vec<Convolution>,
    /// The number of features of an image, 1 to 4096.
    pub features: usize,
}

/// The classification task that a feature net is trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Task {
    /// Predict the class of an image.
    Classes {
        /// The number of classes, 2 to 62.
        num_classes: usize,
    },
    /// Predict how an image was flipped: not at all, left to right, top to bottom, or both. This needs no labels, and
    /// features that depend on shape.
    Flips,
}

/// A convolution with zero padding. The output has ⌈rows/stride⌉ × ⌈cols/stride⌉ pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Convolution {
    /// The number of output channels, 1 to 1024.
    pub channels: usize,
    /// The side of the square kernel in pixels, an odd number from 1 to 15.
    pub kernel: usize,
    /// The stride in pixels, 1 to 8.
    pub stride: usize,
}

impl FeatureConfig {
    /// The architecture for a data set. The task is classes if the data set has at least two, flips otherwise.
    #[must_use]
    pub fn for_data(data: &Dataset) -> Self {
        let task = match data.classes() {
            Some(num_classes) if num_classes > 1 => Task::Classes { num_classes },
            _ => Task::Flips,
        };
        let convolution = |channels, stride| Convolution { channels, kernel: 3, stride };
        Self {
            rows: data.rows(),
            cols: data.cols(),
            task,
            convolutions: vec![
                convolution(16, 1),
                convolution(32, 2),
                convolution(64, 2),
                convolution(96, 2),
            ],
            features: 128,
        }
    }

    /// The number of pixels of an image.
    #[must_use]
    pub fn pixels(&self) -> usize {
        self.rows * self.cols
    }

    /// Checks all ranges. `path` is the file that an error names.
    pub(super) fn validate(&self, path: &Path) -> Result<()> {
        let check = |option, found: usize, range: RangeInclusive<usize>, expected: &'static str| {
            if range.contains(&found) {
                return Ok(());
            }
            Err(Error::out_of_range(format!("{}: {option}", path.display()), found, expected))
        };
        check("rows", self.rows, 1..=64, "1 to 64")?;
        check("cols", self.cols, 1..=64, "1 to 64")?;
        if let Task::Classes { num_classes } = self.task {
            check("num_classes", num_classes, 2..=62, "2 to 62")?;
        }
        check("convolutions", self.convolutions.len(), 1..=8, "1 to 8")?;
        for &Convolution { channels, kernel, stride } in &self.convolutions {
            check("channels", channels, 1..=1024, "1 to 1024")?;
            check("kernel", kernel, 1..=15, "an odd number from 1 to 15")?;
            check("kernel", kernel, kernel | 1..=kernel, "an odd number from 1 to 15")?;
            check("stride", stride, 1..=8, "1 to 8")?;
        }
        check("features", self.features, 1..=4096, "1 to 4096")
    }

    /// The name and shape of the weight tensors of all layers from input to output: a matrix [out, in] and a bias [out]
    /// for each.
    ///
    /// The matrix of a convolution is [output channels, kernel rows · kernel columns · input channels]. The first
    /// linear layer has inputs in the order [rows, columns, channels].
    pub(super) fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let (mut rows, mut cols, mut channels) = (self.rows, self.cols, 1);
        let mut parameters = Vec::new();
        let mut layer = |name: String, outputs: usize, inputs: usize| {
            parameters.push((format!("{name}.weight"), vec![outputs, inputs]));
            parameters.push((format!("{name}.bias"), vec![outputs]));
        };
        for (i, convolution) in self.convolutions.iter().enumerate() {
            layer(format!("conv.{i}"), convolution.channels, convolution.kernel.pow(2) * channels);
            (rows, cols) = (rows.div_ceil(convolution.stride), cols.div_ceil(convolution.stride));
            channels = convolution.channels;
        }
        layer("features".to_owned(), self.features, rows * cols * channels);
        layer("logits".to_owned(), self.task.num_outputs(), self.features);
        parameters
    }
}

impl Task {
    /// The number of logits: the number of classes, or 4 for flips.
    #[must_use]
    pub fn num_outputs(self) -> usize {
        match self {
            Self::Classes { num_classes } => num_classes,
            Self::Flips => 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> FeatureConfig {
        let convolutions = vec![Convolution { channels: 8, kernel: 3, stride: 2 }];
        FeatureConfig { rows: 5, cols: 8, task: Task::Flips, convolutions, features: 6 }
    }

    #[test]
    fn weights_have_the_shapes_of_the_layers() {
        let shapes = config().parameters();
        let expected = [
            ("conv.0.weight", vec![8, 9]),
            ("conv.0.bias", vec![8]),
            ("features.weight", vec![6, 3 * 4 * 8]),
            ("features.bias", vec![6]),
            ("logits.weight", vec![4, 6]),
            ("logits.bias", vec![4]),
        ];
        assert!(shapes.iter().map(|(name, shape)| (name.as_str(), shape.clone())).eq(expected));
    }

    #[test]
    fn errors_name_the_value_out_of_range() {
        assert!(config().validate(Path::new("f")).is_ok());
        let convolution = |channels, kernel, stride| vec![Convolution { channels, kernel, stride }];
        for (option, found, wrong) in [
            ("rows", 0, FeatureConfig { rows: 0, ..config() }),
            ("cols", 65, FeatureConfig { cols: 65, ..config() }),
            ("num_classes", 63, FeatureConfig { task: Task::Classes { num_classes: 63 }, ..config() }),
            ("num_classes", 1, FeatureConfig { task: Task::Classes { num_classes: 1 }, ..config() }),
            ("convolutions", 0, FeatureConfig { convolutions: Vec::new(), ..config() }),
            ("channels", 0, FeatureConfig { convolutions: convolution(0, 3, 1), ..config() }),
            ("kernel", 4, FeatureConfig { convolutions: convolution(1, 4, 1), ..config() }),
            ("stride", 0, FeatureConfig { convolutions: convolution(1, 3, 0), ..config() }),
            ("features", 0, FeatureConfig { features: 0, ..config() }),
        ] {
            let error = wrong.validate(Path::new("f")).unwrap_err().to_string();
            assert!(error.starts_with(&format!("f: {option} is {found}, expected ")), "{error}");
        }
    }
}
