//! A set of images, with or without labels.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ddpm_files::Sha256;

use crate::error::{Error, Result};
use crate::idx::{self, Images, Labels, header_of_images, header_of_labels};
use crate::pixels::to_model_scale;

/// At least one grey-level image, all of one size. A labelled data set also has
/// the class of each image.
#[derive(Debug, Clone)]
pub struct Dataset {
    name: String,
    images: Images,
    labels: Option<Labels>,
    classes: Option<usize>,
    /// See [`Splits::notes`](crate::Splits::notes).
    notes: Vec<String>,
    stats: OnceLock<PixelStats>,
    images_sha256: OnceLock<String>,
    labels_sha256: OnceLock<String>,
}

/// Mean and standard deviation of all pixels of a data set, scaled to \[-1, 1].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PixelStats {
    /// Mean, in \[-1, 1].
    pub mean: f64,
    /// Standard deviation, in \[0, 1]. Karras et al. 2022 call it σ_data.
    pub std: f64,
}

impl Dataset {
    /// A data set of at least one image. The number of classes is the largest
    /// label plus one; [`with_classes`](Self::with_classes) changes it. Without
    /// `labels` only unconditional models can be trained on the data set.
    ///
    /// # Errors
    /// [`Error::Empty`] if there is no image, [`Error::CountMismatch`] if there is
    /// not one label for each image, and [`Error::OutOfRange`] if a dimension does
    /// not fit in 32 bits.
    pub fn new(name: impl Into<String>, images: Images, labels: Option<Labels>) -> Result<Self> {
        let count = images.count();
        if count == 0 {
            return Err(Error::Empty { file: images.file().to_owned() });
        }
        // Checks that the dimensions fit in an IDX header, and each index in a `u32`.
        header_of_images(count, images.rows(), images.cols())?;
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
            notes: Vec::new(),
            stats: OnceLock::new(),
            images_sha256: OnceLock::new(),
            labels_sha256: OnceLock::new(),
        })
    }

    /// A data set with the labels of an IDX file, if there is one.
    pub(crate) fn with_labels_file(name: String, images: Images, labels: Option<PathBuf>) -> Result<Self> {
        let Some(labels) = labels else { return Self::new(name, images, None) };
        let numbers = idx::read_numbers(&labels)?.into_iter().map(Some).collect();
        Self::of_numbers(name, images, (labels, numbers))
    }

    /// A data set with the labels of a file, where −1 and `None` stand for an image
    /// without a label. If some images have a label, the others are left out. If none
    /// has, the data set is unlabelled. A note says so.
    pub(crate) fn of_numbers(
        name: String,
        images: Images,
        (file, numbers): (PathBuf, Vec<Option<i64>>),
    ) -> Result<Self> {
        let (count, labels) = (images.count(), numbers.len());
        if count != labels {
            let images_file = images.file().to_owned();
            return Err(Error::CountMismatch { images_file, images: count, labels_file: file, labels });
        }
        let keep: Vec<bool> =
            numbers.iter().map(|number| number.is_some_and(|number| number != -1)).collect();
        let missing = keep.iter().filter(|keep| !**keep).count();
        if missing == count {
            let note = format!("{name}: each label is -1 or null, so the images count as unlabelled");
            return Ok(Self::new(name, images, None)?.with_note(note));
        }
        let labelled = numbers.into_iter().enumerate().zip(&keep).filter(|(_, keep)| **keep);
        let labels = Labels::new(&file, labelled.filter_map(|((index, number), _)| Some((index, number?))))?;
        if missing == 0 {
            return Self::new(name, images, Some(labels));
        }
        let note =
            format!("{name}: {missing} of {count} images are left out, because their label is -1 or null");
        Ok(Self::new(name, images.filtered(&keep), Some(labels))?.with_note(note))
    }

    pub(crate) fn with_note(mut self, note: String) -> Self {
        self.notes.push(note);
        self
    }

    /// Sentences on how the images were read where that is not obvious.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The same data set with each label replaced by one below `classes`.
    pub(crate) fn relabelled(mut self, classes: usize, replace: impl Fn(u8) -> u8) -> Self {
        if let Some(labels) = &mut self.labels {
            labels.values.iter_mut().for_each(|label| *label = replace(*label));
            self.classes = Some(classes);
            self.labels_sha256 = OnceLock::new();
        }
        self
    }

    /// The same data set with the given number of classes. Use it if the data set
    /// has no image of the last class.
    ///
    /// # Errors
    /// [`Error::LabelOutOfRange`] if a label is `classes` or more,
    /// [`Error::NoLabels`] if the data set is unlabelled.
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

    /// The name of the data set, such as `MNIST/train`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of images, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a data set is never empty")]
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

    /// Number of pixels of an image, rows × cols.
    #[must_use]
    pub fn image_size(&self) -> usize {
        self.rows() * self.cols()
    }

    /// The grey levels of all images, N × rows × cols.
    #[must_use]
    pub fn images(&self) -> &[u8] {
        self.images.pixels()
    }

    /// The grey levels of one image, rows × cols, or `None` if `index` is not
    /// below [`len`](Self::len).
    #[must_use]
    pub fn image(&self, index: usize) -> Option<&[u8]> {
        self.images().chunks_exact(self.image_size()).nth(index)
    }

    /// The class of each image, below [`classes`](Self::classes), or `None` if the
    /// data set is unlabelled.
    #[must_use]
    pub fn labels(&self) -> Option<&[u8]> {
        self.labels.as_ref().map(|labels| labels.values.as_slice())
    }

    /// Number of classes, or `None` if the data set is unlabelled.
    #[must_use]
    pub fn classes(&self) -> Option<usize> {
        self.classes
    }

    /// The path of the file that the images were read from.
    #[must_use]
    pub fn images_file(&self) -> &Path {
        self.images.file()
    }

    /// The path of the file that the labels were read from, or `None` if the data
    /// set is unlabelled.
    #[must_use]
    pub fn labels_file(&self) -> Option<&Path> {
        self.labels.as_ref().map(|labels| labels.file.as_path())
    }

    /// Mean and standard deviation of all pixels. Computed on the first call.
    #[must_use]
    pub fn stats(&self) -> PixelStats {
        *self.stats.get_or_init(|| PixelStats::compute(self.images()))
    }

    /// SHA-256 of the images as an uncompressed IDX file, in hexadecimal. The
    /// digest depends on the images only, not on the format they were read from.
    /// Computed at most once.
    #[must_use]
    pub fn images_sha256(&self) -> &str {
        self.images_sha256.get_or_init(|| {
            let header = header_of_images(self.len(), self.rows(), self.cols());
            let header = header.unwrap_or_else(|_| unreachable!("`new` checked the dimensions"));
            sha256_of_idx(&header, self.images())
        })
    }

    /// SHA-256 of the labels as an uncompressed IDX file, in hexadecimal, or `None`
    /// if the data set is unlabelled.
    #[must_use]
    pub fn labels_sha256(&self) -> Option<&str> {
        let labels = self.labels()?;
        Some(self.labels_sha256.get_or_init(|| {
            let header = header_of_labels(labels.len())
                .unwrap_or_else(|_| unreachable!("`new` checked the dimensions"));
            sha256_of_idx(&header, labels)
        }))
    }

    /// Replaces the content of `out` with the images at `indices`, scaled to
    /// \[-1, 1]: indices.len() × rows × cols values. Reusing `out` saves
    /// allocations.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if an index is not below [`len`](Self::len).
    pub fn gather_images(&self, indices: &[u32], out: &mut Vec<f32>) -> Result<()> {
        let size = self.image_size();
        out.clear();
        out.reserve(indices.len() * size);
        for &index in indices {
            let start = self.check_index(index)? * size;
            out.extend(self.images()[start..start + size].iter().map(|&pixel| to_model_scale(pixel)));
        }
        Ok(())
    }

    /// Replaces the content of `out` with the labels at `indices`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if an index is not below [`len`](Self::len),
    /// [`Error::NoLabels`] if the data set is unlabelled.
    pub fn gather_labels(&self, indices: &[u32], out: &mut Vec<u8>) -> Result<()> {
        let labels = self.labels().ok_or_else(|| Error::NoLabels { name: self.name.clone() })?;
        out.clear();
        for &index in indices {
            out.push(labels[self.check_index(index)?]);
        }
        Ok(())
    }

    /// The indices of `count` images that are spaced evenly over the data set, or of
    /// all images if there are fewer. Use it for a subset of a data set whose order
    /// is not random.
    #[must_use]
    pub fn evenly_spaced(&self, count: usize) -> Vec<u32> {
        let (total, count) = (self.len() as u64, count.min(self.len()) as u64);
        // `new` checked that every index fits in a u32.
        (0..count).filter_map(|i| u32::try_from((i * total).div_euclid(count)).ok()).collect()
    }

    fn check_index(&self, index: u32) -> Result<usize> {
        let valid = usize::try_from(index).ok().filter(|&index| index < self.len());
        valid.ok_or_else(|| {
            let expected = format!("0 to {}", self.len() - 1);
            Error::out_of_range(format!("index into {}", self.name), index, expected)
        })
    }
}

fn sha256_of_idx(header: &[u8], content: &[u8]) -> String {
    let mut digest = Sha256::default();
    digest.update(header);
    digest.update(content);
    digest.into_hex()
}

impl PixelStats {
    /// Exact integer sums; only the final square root and divisions round.
    #[expect(clippy::cast_precision_loss, reason = "the sums are below 2^53 for data sets of realistic size")]
    fn compute(pixels: &[u8]) -> Self {
        // Most pixels are 0. With a single histogram each increment would wait for
        // the previous one, so there are four.
        let mut histograms = [[0_u64; 256]; 4];
        for group in pixels.chunks(4) {
            for (histogram, &pixel) in histograms.iter_mut().zip(group) {
                histogram[usize::from(pixel)] += 1;
            }
        }
        let mut sum = 0_u64;
        let mut sum_of_squares = 0_u64;
        for (index, level) in (0..256).zip(0_u64..) {
            let count: u64 = histograms.iter().map(|histogram| histogram[index]).sum();
            sum += count * level;
            sum_of_squares += count * level * level;
        }
        let n = pixels.len() as f64;
        let mean = sum as f64 / n;
        // n·Σp² − (Σp)², in integers: no rounding error.
        let scaled_variance = u128::from(sum_of_squares) * pixels.len() as u128 - u128::from(sum).pow(2);
        let std = (scaled_variance as f64).sqrt() / n;
        Self { mean: mean / 127.5 - 1.0, std: std / 127.5 }
    }
}
