//! What describes a feature net.

use std::ops::RangeInclusive;

use ddpm_data::Dataset;
use serde::{Deserialize, Serialize};

/// The architecture of a feature net: convolutions, each followed by ReLU, then Linear ∘ ReLU, whose output
/// are the features, then Linear to the logits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureConfig {
    /// Rows of an image in pixels, 1 to 64.
    pub rows: usize,
    /// Columns of an image in pixels, 1 to 64.
    pub cols: usize,
    /// What the net was trained to tell apart.
    pub task: Task,
    /// The convolutions, in their order.
    pub convolutions: Vec<Convolution>,
    /// The number of features of an image.
    pub features: usize,
}

/// What a feature net is trained to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Task {
    /// The classes of the images.
    Classes {
        /// Their number, 2 to 62.
        num_classes: usize,
    },
    /// Whether an image was flipped: not at all, from left to right, from top to bottom, or both. It needs no
    /// labels, and must look at the shape of things as well.
    Flips,
}

/// A convolution of zero-padded images: an output pixel for each `stride` input pixels, rounded up, along
/// rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Convolution {
    /// The number of outputs at a pixel.
    pub channels: usize,
    /// The side of the square that an output looks at; odd.
    pub kernel: usize,
    /// The distance of the squares of neighbouring outputs.
    pub stride: usize,
}

/// A number outside of its range.
#[derive(Debug)]
pub(super) struct OutOfRange {
    pub(super) option: &'static str,
    pub(super) found: usize,
    pub(super) expected: &'static str,
}

/// A weight of the net.
pub(super) struct Parameter {
    pub(super) name: String,
    /// [out, in] of a matrix, [out] of a bias.
    pub(super) shape: Vec<usize>,
}

impl FeatureConfig {
    /// The net for a data set: classes are told apart if there are two at least, flips otherwise.
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

    pub(super) fn validate(&self) -> Result<(), OutOfRange> {
        let check = |option, found: usize, range: RangeInclusive<usize>, expected| {
            if range.contains(&found) { Ok(()) } else { Err(OutOfRange { option, found, expected }) }
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

    /// Every weight, a matrix and a bias for each layer, in the order of the layers.
    ///
    /// The columns of a convolution's matrix go over the rows of its square, then the columns, then the input's
    /// channels; those of the first linear layer over rows, columns and channels.
    pub(super) fn parameters(&self) -> Vec<Parameter> {
        let (mut rows, mut cols, mut channels) = (self.rows, self.cols, 1);
        let mut parameters = Vec::new();
        let mut layer = |name: String, outputs: usize, inputs: usize| {
            parameters.push(Parameter { name: format!("{name}.weight"), shape: vec![outputs, inputs] });
            parameters.push(Parameter { name: format!("{name}.bias"), shape: vec![outputs] });
        };
        for (i, convolution) in self.convolutions.iter().enumerate() {
            layer(format!("conv.{i}"), convolution.channels, convolution.kernel.pow(2) * channels);
            (rows, cols) = (rows.div_ceil(convolution.stride), cols.div_ceil(convolution.stride));
            channels = convolution.channels;
        }
        layer("features".to_owned(), self.features, rows * cols * channels);
        layer("logits".to_owned(), self.task.answers(), self.features);
        parameters
    }
}

impl Task {
    /// The number of answers among which the net chooses.
    #[must_use]
    pub fn answers(self) -> usize {
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
        let shapes: Vec<_> = config().parameters().into_iter().map(|p| (p.name, p.shape)).collect();
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
    fn numbers_outside_of_their_range_are_named() {
        assert!(config().validate().is_ok());
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
            let error = wrong.validate().unwrap_err();
            assert_eq!((error.option, error.found), (option, found));
        }
    }
}
