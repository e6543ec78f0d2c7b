//! Streams the images and labels of all parts into the files of one job. Memory does not grow with the parts or the images.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use ddpm_data::idx::{header_of_images, header_of_labels};
use ddpm_files::{AtomicFile, Manifest};

use super::parts::Parts;
use crate::{
    args::{Format, MergedFormat},
    commands::{arrays::tensors_header, part::ArrayFiles},
    interrupt,
    progress::Progress,
    recipe::{self, Recipe},
};

/// The number of images that are read at once.
const IMAGES: usize = 1000;

/// The longest header of a safetensors file that is read: that of a recipe.
const HEADER: u64 = 1 << 21;

/// Writes the files of the whole job, which are to be committed together.
///
/// # Errors
/// A file cannot be read or written, or the images of the parts differ in size.
pub(super) fn files(
    parts: &Parts,
    format: MergedFormat,
    out: &Path,
    progress: &Progress,
) -> Result<Vec<AtomicFile>> {
    let size = size(parts)?;
    progress.start(0, parts.len() as u64);
    match format {
        MergedFormat::Idx => idx(parts, size, out, progress),
        MergedFormat::Safetensors => Ok(vec![safetensors(parts, size, out, progress)?]),
        #[cfg(feature = "hub")]
        MergedFormat::Parquet => Ok(vec![super::parquet::file(parts, size, out, progress)?]),
        #[cfg(not(feature = "hub"))]
        MergedFormat::Parquet => Err(ddpm_data::Error::ParquetFeature { path: out.to_owned() }.into()),
    }
}

/// Writes what `sample --format idx` of the whole job writes.
fn idx(parts: &Parts, size: [usize; 2], out: &Path, progress: &Progress) -> Result<Vec<AtomicFile>> {
    let [rows, cols] = size;
    let files = ArrayFiles { out: out.to_owned(), format: Format::Idx, has_labels: parts.has_labels() };
    let mut images = AtomicFile::create(files.images())?;
    let mut labels = files.labels().map(AtomicFile::create).transpose()?;
    let mut recipe = AtomicFile::create(files.recipe())?;
    images.append(&header_of_images(parts.len(), rows, cols)?)?;
    if let Some(labels) = &mut labels {
        labels.append(&header_of_labels(parts.len())?)?;
    }
    copy(parts, size, |pixels, classes| {
        images.append(pixels)?;
        labels.iter_mut().try_for_each(|labels| labels.append(classes))?;
        progress.add(pixels.len().div_euclid(rows * cols));
        Ok(())
    })?;
    recipe.append(parts.recipe.in_format(Format::Idx).encode()?.as_bytes())?;
    Ok([images].into_iter().chain(labels).chain([recipe]).collect())
}

/// Writes what `sample --format safetensors` of the whole job writes.
fn safetensors(parts: &Parts, size: [usize; 2], out: &Path, progress: &Progress) -> Result<AtomicFile> {
    let [rows, cols] = size;
    let mut file = AtomicFile::create(out)?;
    let recipe = parts.recipe.in_format(Format::Safetensors).encode()?;
    let metadata = HashMap::from([(recipe::KEY.to_owned(), recipe)]);
    file.append(&tensors_header(out, [parts.len(), rows, cols], parts.has_labels(), Some(metadata))?)?;
    copy(parts, size, |pixels, _| {
        progress.add(pixels.len().div_euclid(rows * cols));
        Ok(file.append(pixels)?)
    })?;
    // All labels follow all images.
    if parts.has_labels() {
        copy_labels(parts, size, |classes| Ok(file.append(classes)?))?;
    }
    Ok(file)
}

/// Calls `take` with the pixels and the labels of up to [`IMAGES`] images at once, in the order of the images.
pub(super) fn copy(
    parts: &Parts,
    size: [usize; 2],
    mut take: impl FnMut(&[u8], &[u8]) -> Result<()>,
) -> Result<()> {
    let image = size[0] * size[1];
    let (mut pixels, mut classes) = (vec![0; IMAGES * image], vec![0; IMAGES]);
    for part in parts.with_recipes() {
        let (files, recipe, range) = part?;
        let mut images = Array::images(&files, &recipe, range.len(), size)?;
        let mut labels =
            files.has_labels.then(|| Array::labels(&files, &recipe, range.len(), size)).transpose()?;
        for start in range.clone().step_by(IMAGES) {
            interrupt::check()?;
            let count = IMAGES.min(range.end - start);
            images.read(&mut pixels[..count * image])?;
            let count =
                labels.as_mut().map_or(Ok(0), |labels| labels.read(&mut classes[..count]).map(|()| count))?;
            let images = IMAGES.min(range.end - start);
            take(&pixels[..images * image], &classes[..count])?;
        }
    }
    Ok(())
}

fn copy_labels(parts: &Parts, size: [usize; 2], mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    for part in parts.with_recipes() {
        let (files, recipe, range) = part?;
        let mut classes = vec![0; range.len()];
        Array::labels(&files, &recipe, range.len(), size)?.read(&mut classes)?;
        take(&classes)?;
    }
    Ok(())
}

/// Bytes of a file that are read from its header on.
struct Array {
    path: PathBuf,
    file: BufReader<File>,
}

impl Array {
    /// The pixels of a part.
    fn images(files: &ArrayFiles, recipe: &Recipe, count: usize, size: [usize; 2]) -> Result<Self> {
        let [rows, cols] = size;
        match files.format {
            Format::Idx => {
                Self::after(files.images(), &header_of_images(count, rows, cols)?, 0, count * rows * cols)
            }
            _ => Self::of_tensors(files, recipe, count, size, 0),
        }
    }

    /// The labels of a part.
    fn labels(files: &ArrayFiles, recipe: &Recipe, count: usize, size: [usize; 2]) -> Result<Self> {
        match files.labels() {
            Some(path) => Self::after(path, &header_of_labels(count)?, 0, count),
            None => Self::of_tensors(files, recipe, count, size, count * size[0] * size[1]),
        }
    }

    /// The bytes of a safetensors file from this one after the header on.
    fn of_tensors(
        files: &ArrayFiles,
        recipe: &Recipe,
        count: usize,
        [rows, cols]: [usize; 2],
        skipped: usize,
    ) -> Result<Self> {
        let recipe = Recipe { written: Manifest::default(), ..recipe.clone() };
        let metadata = HashMap::from([(recipe::KEY.to_owned(), recipe.encode()?)]);
        let header = tensors_header(&files.out, [count, rows, cols], files.has_labels, Some(metadata))?;
        let length = count * (rows * cols + usize::from(files.has_labels));
        Self::after(files.out.clone(), &header, skipped, length - skipped)
    }

    /// The bytes after a header and `skipped` bytes, which must be `length` ones.
    fn after(path: PathBuf, header: &[u8], skipped: usize, length: usize) -> Result<Self> {
        let name = path.display();
        let error = || format!("{name}: cannot read");
        let mut file = BufReader::new(File::open(&path).with_context(error)?);
        let (found, expected) =
            (file.get_ref().metadata().with_context(error)?.len(), header.len() + skipped + length);
        ensure!(found == expected as u64, "{name}: has {found} bytes, expected {expected} by its recipe");
        let mut start = vec![0; header.len()];
        file.read_exact(&mut start).with_context(error)?;
        ensure!(start == header, "{name}: has another header than its recipe says");
        file.seek(SeekFrom::Current(i64::try_from(skipped)?)).with_context(error)?;
        Ok(Self { path, file })
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact(bytes).with_context(|| format!("{}: cannot read", self.path.display()))
    }
}

/// The rows and columns of the images, from the header of the first part. The other parts are compared with them.
fn size(parts: &Parts) -> Result<[usize; 2]> {
    let files = parts.iter().next().context("no part")?;
    let path = files.images();
    let error = || format!("{}: cannot read its header", path.display());
    let mut file = File::open(&path).with_context(error)?;
    let size = match files.format {
        Format::Idx => {
            let mut header = [0; 16];
            file.read_exact(&mut header).with_context(error)?;
            let number = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|byte| header[at + byte]));
            [number(8), number(12)].map(u64::from)
        }
        _ => {
            let mut length = [0; 8];
            file.read_exact(&mut length).with_context(error)?;
            let length = u64::from_le_bytes(length);
            ensure!(
                length <= HEADER,
                "{}: a header of {length} bytes, expected at most {HEADER}",
                path.display()
            );
            let mut header = Vec::new();
            file.take(length).read_to_end(&mut header).with_context(error)?;
            let header: serde_json::Value = serde_json::from_slice(&header).with_context(error)?;
            let side = |axis: usize| header["images"]["shape"][axis].as_u64().unwrap_or(0);
            [side(1), side(2)]
        }
    };
    let sides = size.map(|side| usize::try_from(side).ok().filter(|side| (1..=4096).contains(side)));
    match sides {
        [Some(rows), Some(cols)] => Ok([rows, cols]),
        _ => anyhow::bail!(
            "{}: images of {}×{} pixels, expected sides of 1 to 4096",
            path.display(),
            size[0],
            size[1]
        ),
    }
}
