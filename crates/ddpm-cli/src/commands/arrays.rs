//! Images and labels as files of other programs.

use std::{
    collections::HashMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use ddpm_data::{
    Dataset,
    idx::{header_of_images, header_of_labels},
};
use ddpm_files::{AtomicDir, AtomicFile, Sha256};
use ddpm_model::safetensors_header;
use image::GrayImage;
use safetensors::{Dtype, tensor::TensorInfo};
use zip::{CompressionMethod, DateTime, ZipWriter, write::SimpleFileOptions};

use crate::{interrupt, picture, progress::Progress};

/// What follows the name of an IDX file of images.
pub(super) const IDX_IMAGES: &str = "-images-idx3-ubyte";
/// What follows the name of an IDX file of labels.
pub(super) const IDX_LABELS: &str = "-labels-idx1-ubyte";

/// A new folder, which must not exist or be empty.
pub(super) fn new_folder(path: &Path) -> Result<AtomicDir> {
    let is_empty = || fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    ensure!(!path.exists() || is_empty(), "{}: exists, expected a new or empty folder", path.display());
    Ok(AtomicDir::create(path)?)
}

/// A path with a suffix of its name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A file whose SHA-256 is computed while it is written.
pub(super) struct Digested {
    file: AtomicFile,
    digest: Sha256,
}

impl Digested {
    pub(super) fn create(path: PathBuf) -> Result<Self> {
        Ok(Self { file: AtomicFile::create(path)?, digest: Sha256::default() })
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.digest.update(bytes);
        Ok(self.file.append(bytes)?)
    }

    /// The file, and the SHA-256 of its content.
    pub(super) fn finish(self) -> (AtomicFile, String) {
        (self.file, self.digest.into_hex())
    }
}

/// Writes the images and, if there are any, the labels to IDX files, which `open` opens by the ends of their names.
pub(super) fn idx(
    set: &Dataset,
    open: impl Fn(&str) -> Result<AtomicFile, ddpm_files::Error>,
) -> Result<Vec<AtomicFile>> {
    let mut images = open(IDX_IMAGES)?;
    images.append(&header_of_images(set.len(), set.rows(), set.cols())?)?;
    images.append(set.images())?;
    let mut files = vec![images];
    if let Some(values) = set.labels() {
        let mut labels = open(IDX_LABELS)?;
        labels.append(&header_of_labels(values.len())?)?;
        labels.append(values)?;
        files.push(labels);
    }
    Ok(files)
}

/// The header of a safetensors file with the tensors `images`, u8 of shape \[N, rows, cols\], and `labels`, u8 of shape
/// \[N\]. Their bytes follow it. The library needs all tensors in memory, so it is used only for the header.
pub(super) fn tensors_header(
    path: &Path,
    shape: [usize; 3],
    has_labels: bool,
    metadata: Option<HashMap<String, String>>,
) -> Result<Vec<u8>> {
    let (count, end) = (shape[0], shape.iter().product());
    let info = |shape, data_offsets| TensorInfo { dtype: Dtype::U8, shape, data_offsets };
    let mut tensors = vec![("images".to_owned(), info(shape.to_vec(), (0, end)))];
    if has_labels {
        tensors.push(("labels".to_owned(), info(vec![count], (end, end + count))));
    }
    Ok(safetensors_header(path, metadata, tensors)?)
}

/// Writes a safetensors file.
pub(super) fn safetensors(set: &Dataset, mut file: AtomicFile) -> Result<AtomicFile> {
    let labels = set.labels();
    let shape = [set.len(), set.rows(), set.cols()];
    let header = tensors_header(file.path(), shape, labels.is_some(), None)?;
    file.append(&header)?;
    file.append(set.images())?;
    file.append(labels.unwrap_or_default())?;
    Ok(file)
}

/// Writes a file as `numpy.savez` does: an uncompressed archive of the arrays `images` and `labels`.
pub(super) fn npz(set: &Dataset, mut file: AtomicFile) -> Result<AtomicFile> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default());
    let (count, rows, cols) = (set.len(), set.rows(), set.cols());
    let path = file.path().to_owned();
    let mut archive = ZipWriter::new_stream(Appending(&mut file));
    let mut write = || -> Result<()> {
        let mut add = |name, shape: String, numbers: &[u8]| -> Result<()> {
            archive.start_file(name, options)?;
            archive.write_all(&npy_header(&shape)?)?;
            Ok(archive.write_all(numbers)?)
        };
        add("images.npy", format!("({count}, {rows}, {cols})"), set.images())?;
        if let Some(labels) = set.labels() {
            add("labels.npy", format!("({count},)"), labels)?;
        }
        Ok(())
    };
    write().and_then(|()| Ok(archive.finish().map(drop)?)).with_context(|| path.display().to_string())?;
    Ok(file)
}

/// What stands before the bytes of an array of `uint8`, as NumPy writes it: a dictionary of Python, and spaces up to a
/// multiple of 64 bytes.
fn npy_header(shape: &str) -> Result<Vec<u8>> {
    const START: &[u8] = b"\x93NUMPY\x01\x00";
    let dictionary = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}");
    let before = START.len() + 2;
    let length = (before + dictionary.len() + 1).next_multiple_of(64) - before;
    let text = format!("{dictionary:width$}\n", width = length - 1);
    Ok([START, &u16::try_from(length)?.to_le_bytes(), text.as_bytes()].concat())
}

/// A file as other libraries write it.
pub(super) struct Appending<'a>(pub(super) &'a mut AtomicFile);

impl Write for Appending<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.append(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes each image to a PNG file of a folder: below `part`, in a folder for its class if there are labels, and named by
/// its index. All names have the same length, so sorting by name sorts by index.
pub(super) fn pngs(set: &Dataset, folder: &AtomicDir, part: &Path, progress: &Progress) -> Result<()> {
    let (width, height) = (u32::try_from(set.cols())?, u32::try_from(set.rows())?);
    let digits = (set.len() - 1).to_string().len();
    let file = |(index, pixels): (usize, &[u8])| -> Result<(PathBuf, Vec<u8>)> {
        interrupt::check()?;
        let picture = GrayImage::from_raw(width, height, pixels.to_vec());
        let png = picture::encode_png(&picture.context("an image of another size")?, None)?;
        let class = set.labels().map_or(String::new(), |labels| labels[index].to_string());
        progress.add(1);
        Ok((part.join(class).join(format!("{index:0digits$}.png")), png))
    };
    folder.write_many(set.images().chunks_exact(set.image_size()).enumerate().map(file))
}
