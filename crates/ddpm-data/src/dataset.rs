//! One set of images, with or without labels.

use std::path::Path;
use std::sync::OnceLock;

use ddpm_files::Sha256;

use crate::error::{Error, Result};
use crate::idx::{Images, Labels, header_of_images, header_of_labels};
use crate::pixels::to_model_scale;

/// Grey-level images of one size and, unless the set is unlabelled, their
/// classes. There is at least one image.
#[derive(Debug, Clone)]
pub struct DataSet {
    name: String,
    images: Images,
    labels: Option<Labels>,
    classes: Option<usize>,
    stats: OnceLock<PixelStats>,
    images_sha256: OnceLock<String>,
    labels_sha256: OnceLock<String>,
}

/// First two moments of all pixels of a set, on the scale of the model,
/// \[-1, 1].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PixelStats {
    /// Mean, in \[-1, 1].
    pub mean: f64,
    /// Standard deviation over all pixels, in \[0, 1]; σ_data in the notation of
    /// Karras et al. 2022.
    pub std: f64,
}

impl DataSet {
    /// A set of at least one image. The number of classes is the largest label
    /// plus one; see [`with_classes`](Self::with_classes). Without `labels` the
    /// set is for unconditional models.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::CountMismatch`], and [`Error::TooMany`] if an
    /// index does not fit in 32 bits.
    pub fn new(name: impl Into<String>, images: Images, labels: Option<Labels>) -> Result<Self> {
        let count = images.count();
        if count == 0 {
            return Err(Error::Empty { file: images.file().to_owned() });
        }
        // So that an IDX header and a `u32` index can express the set.
        for count in [count, images.rows(), images.cols()] {
            u32::try_from(count).map_err(|_| Error::TooMany { count, limit: u32::MAX })?;
        }
        if let Some(labels) = labels.as_ref().filter(|labels| labels.values.len() != count) {
            return Err(Error::CountMismatch {
                images_file: images.file().to_owned(),
                images: count,
                labels_file: labels.file.clone(),
                labels: labels.values.len(),
            });
        }
        let largest = labels.as_ref().and_then(|labels| labels.values.iter().max());
        Ok(Self {
            name: name.into(),
            classes: largest.map(|&label| usize::from(label) + 1),
            images,
            labels,
            stats: OnceLock::new(),
            images_sha256: OnceLock::new(),
            labels_sha256: OnceLock::new(),
        })
    }

    /// The same set with an explicit number of classes, for a set that does not
    /// have an image of the last class.
    ///
    /// # Errors
    /// [`Error::LabelOutOfRange`] if a label is not below `classes`,
    /// [`Error::NoLabels`] if the set is unlabelled.
    pub fn with_classes(mut self, classes: usize) -> Result<Self> {
        let Some(labels) = &self.labels else {
            return Err(Error::NoLabels { name: self.name });
        };
        if let Some(index) = labels.values.iter().position(|&label| usize::from(label) >= classes) {
            let label = i64::from(labels.values[index]);
            let max = classes.saturating_sub(1);
            return Err(Error::LabelOutOfRange { file: labels.file.clone(), index, label, max });
        }
        self.classes = Some(classes);
        Ok(self)
    }

    /// The name of the set, such as `mnist/train`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of images, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a set is never empty")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.images.count()
    }

    /// Height of an image in pixels.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.images.rows()
    }

    /// Width of an image in pixels.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.images.cols()
    }

    /// Pixels of an image, rows × cols.
    #[must_use]
    pub fn image_size(&self) -> usize {
        self.rows() * self.cols()
    }

    /// All grey levels, N × rows × cols.
    #[must_use]
    pub fn images(&self) -> &[u8] {
        self.images.pixels()
    }

    /// The grey levels of one image, rows × cols.
    #[must_use]
    pub fn image(&self, index: usize) -> Option<&[u8]> {
        self.images().chunks_exact(self.image_size()).nth(index)
    }

    /// One class per image, each below [`classes`](Self::classes).
    #[must_use]
    pub fn labels(&self) -> Option<&[u8]> {
        self.labels.as_ref().map(|labels| labels.values.as_slice())
    }

    /// Number of classes, or `None` for an unlabelled set.
    #[must_use]
    pub fn classes(&self) -> Option<usize> {
        self.classes
    }

    /// Where the images came from.
    #[must_use]
    pub fn images_file(&self) -> &Path {
        self.images.file()
    }

    /// Where the labels came from.
    #[must_use]
    pub fn labels_file(&self) -> Option<&Path> {
        self.labels.as_ref().map(|labels| labels.file.as_path())
    }

    /// Mean and standard deviation of all pixels; computed once.
    #[must_use]
    pub fn stats(&self) -> PixelStats {
        *self.stats.get_or_init(|| PixelStats::of(self.images()))
    }

    /// SHA-256 of the images as an uncompressed IDX file, in hexadecimal;
    /// computed once, at the latest on the first call. It names the content of
    /// the set whatever container it came in.
    #[must_use]
    pub fn images_sha256(&self) -> &str {
        self.images_sha256.get_or_init(|| {
            let header = header_of_images(self.len(), self.rows(), self.cols());
            let header = header.unwrap_or_else(|_| unreachable!("`new` checked the size"));
            sha256_of_idx(&header, self.images())
        })
    }

    /// SHA-256 of the labels as an uncompressed IDX file, in hexadecimal.
    #[must_use]
    pub fn labels_sha256(&self) -> Option<&str> {
        let labels = self.labels()?;
        Some(self.labels_sha256.get_or_init(|| {
            let header =
                header_of_labels(labels.len()).unwrap_or_else(|_| unreachable!("`new` checked the size"));
            sha256_of_idx(&header, labels)
        }))
    }

    /// Replaces `out` by the images at `indices` on the scale of the model,
    /// \[-1, 1]: indices.len() × rows × cols. Reusing `out` saves allocations.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`].
    pub fn gather_images(&self, indices: &[u32], out: &mut Vec<f32>) -> Result<()> {
        let size = self.image_size();
        out.clear();
        out.reserve(indices.len() * size);
        for &index in indices {
            let start = self.checked(index)? * size;
            out.extend(self.images()[start..start + size].iter().map(|&pixel| to_model_scale(pixel)));
        }
        Ok(())
    }

    /// Replaces `out` by the labels at `indices`.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`], and [`Error::NoLabels`] if the set is
    /// unlabelled.
    pub fn gather_labels(&self, indices: &[u32], out: &mut Vec<u8>) -> Result<()> {
        let labels = self.labels().ok_or_else(|| Error::NoLabels { name: self.name.clone() })?;
        out.clear();
        for &index in indices {
            out.push(labels[self.checked(index)?]);
        }
        Ok(())
    }

    /// The indices of `count` images, or of all if there are fewer, spaced evenly over the set: its parts may differ.
    #[must_use]
    pub fn evenly_spaced(&self, count: usize) -> Vec<u32> {
        let (total, count) = (self.len() as u64, count.min(self.len()) as u64);
        // The number of images fits in u32, as every index does.
        (0..count).filter_map(|i| u32::try_from((i * total).div_euclid(count)).ok()).collect()
    }

    fn checked(&self, index: u32) -> Result<usize> {
        let len = self.len();
        let inside = usize::try_from(index).ok().filter(|&index| index < len);
        inside.ok_or_else(|| Error::IndexOutOfRange { name: self.name.clone(), index, len })
    }
}

fn sha256_of_idx(header: &[u8], content: &[u8]) -> String {
    let mut digest = Sha256::default();
    digest.update(header);
    digest.update(content);
    digest.into_hex()
}

impl PixelStats {
    /// The sums are integers, hence exact; only the last divisions round.
    #[expect(clippy::cast_precision_loss, reason = "the sums are below 2^53 for all but absurd sets")]
    fn of(pixels: &[u8]) -> Self {
        // Four histograms, because most pixels are 0 and a single counter
        // would make each increment wait for the last.
        let mut histograms = [[0_u64; 256]; 4];
        for four in pixels.chunks(4) {
            for (histogram, &pixel) in histograms.iter_mut().zip(four) {
                histogram[usize::from(pixel)] += 1;
            }
        }
        let mut sum = 0_u64;
        let mut sum_of_squares = 0_u64;
        for (histogram_index, level) in (0..256).zip(0_u64..) {
            let count: u64 = histograms.iter().map(|histogram| histogram[histogram_index]).sum();
            sum += count * level;
            sum_of_squares += count * level * level;
        }
        let n = pixels.len() as f64;
        let mean = sum as f64 / n;
        // n·Σp² − (Σp)² in integers: no cancellation.
        let scatter = u128::from(sum_of_squares) * pixels.len() as u128 - u128::from(sum).pow(2);
        let std = (scatter as f64).sqrt() / n;
        Self { mean: mean / 127.5 - 1.0, std: std / 127.5 }
    }
}
