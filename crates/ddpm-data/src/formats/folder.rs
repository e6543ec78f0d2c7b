//! PNG images and folders of them, and IDX files with their labels.

use std::fs;
use std::path::{Path, PathBuf};

use super::{check_len, png};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::idx::{self, IdxKind, Images, Labels};
use crate::source::names;

/// The largest number of names that an error or a note has.
const SHOWN: usize = 8;

/// The names in a folder, sorted. Hidden ones are left out.
#[derive(Default)]
struct Names {
    pngs: Vec<String>,
    folders: Vec<String>,
    others: Vec<String>,
}

impl Names {
    fn of(folder: &Path) -> Result<Self> {
        let error = |source| Error::Read { file: folder.to_owned(), source };
        let mut all = Self::default();
        for entry in fs::read_dir(folder).map_err(error)? {
            let entry = entry.map_err(error)?;
            let name = match entry.file_name().into_string() {
                Ok(name) => name,
                // Not UTF-8. A note says that it is not read.
                Err(name) => {
                    all.others.push(name.to_string_lossy().into_owned());
                    continue;
                }
            };
            if name.starts_with('.') {
                continue;
            }
            let is_png = Path::new(&name).extension().is_some_and(|end| end.eq_ignore_ascii_case("png"));
            // Follows links.
            if entry.path().is_dir() {
                all.folders.push(name);
            } else if is_png {
                all.pngs.push(name);
            } else {
                all.others.push(name);
            }
        }
        for names in [&mut all.pngs, &mut all.folders, &mut all.others] {
            names.sort();
        }
        Ok(all)
    }

    /// The IDX files with this content, by what stands before it in their names. A file without `.gz` takes precedence.
    fn idx_files(&self, kind: IdxKind) -> Vec<(&str, &str)> {
        let files = self.others.iter().filter_map(|name| {
            let (stem, found) = names::parse_kind(name)?;
            (found == kind).then_some((stem, name.as_str()))
        });
        let is_copy =
            |name: &str| name.strip_suffix(".gz").is_some_and(|raw| self.others.iter().any(|n| n == raw));
        files.filter(|(_, name)| !is_copy(name)).collect()
    }
}

/// Reads a folder of images of `size`, or of the size of the first one.
pub(super) fn read(folder: &Path, mut size: Option<[usize; 2]>) -> Result<Dataset> {
    let names = Names::of(folder)?;
    if !names.pngs.is_empty() {
        if let Some(below) = names.folders.first() {
            return Err(Error::MixedFolder { folder: folder.to_owned(), below: below.clone() });
        }
        let mut pixels = Vec::new();
        read_pngs(folder, &names.pngs, &mut size, &mut pixels)?;
        return dataset(folder, size, pixels, None, &[(folder.to_owned(), names.others)]);
    }
    let is_class = |name: &String| class_of(name).is_some();
    if names.folders.iter().any(is_class) {
        return read_classes(folder, names, size);
    }
    match names.idx_files(IdxKind::Images).as_slice() {
        [] => {
            let mut found: Vec<_> =
                names.folders.iter().map(|name| format!("{name}/")).chain(names.others).collect();
            if found.len() > SHOWN {
                found.truncate(SHOWN);
                found.push("…".to_owned());
            }
            let found = if found.is_empty() { "no files".to_owned() } else { found.join(", ") };
            Err(Error::NoImages { folder: folder.to_owned(), found })
        }
        [(_, file)] => read_idx(&folder.join(file), size),
        several => {
            let path = |(_, file): &(&str, &str)| folder.join(file).display().to_string();
            let candidates = several.iter().map(path).collect();
            Err(Error::Ambiguous { folder: folder.to_owned(), candidates })
        }
    }
}

/// The class that a folder is named by.
fn class_of(name: &str) -> Option<u8> {
    name.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.parse().ok())?
}

fn read_classes(folder: &Path, names: Names, mut size: Option<[usize; 2]>) -> Result<Dataset> {
    let mut classes = Vec::new();
    for name in &names.folders {
        let path = folder.join(name);
        let class = class_of(name).ok_or_else(|| Error::ClassFolder { folder: path.clone() })?;
        classes.push((class, path));
    }
    classes.sort();
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    let mut unread = vec![(folder.to_owned(), names.others)];
    for (class, path) in classes {
        let mut names = Names::of(&path)?;
        read_pngs(&path, &names.pngs, &mut size, &mut pixels)?;
        labels.extend(names.pngs.iter().map(|_| class));
        names.others.append(&mut names.folders);
        unread.push((path, names.others));
    }
    let labels = Labels { file: folder.to_owned(), values: labels };
    dataset(folder, size, pixels, Some(labels), &unread)
}

/// Reads a PNG image, of `size` if it is given.
pub(super) fn read_png(file: &Path, mut size: Option<[usize; 2]>) -> Result<Dataset> {
    let mut pixels = Vec::new();
    png::read(file, &mut size, &mut pixels)?;
    dataset(file, size, pixels, None, &[])
}

fn read_pngs(
    folder: &Path,
    names: &[String],
    size: &mut Option<[usize; 2]>,
    pixels: &mut Vec<u8>,
) -> Result<()> {
    for name in names {
        png::read(&folder.join(name), size, pixels)?;
        check_len(folder, pixels.len() as u64)?;
    }
    Ok(())
}

/// The images of a folder, with a note on each folder that has other files.
fn dataset(
    folder: &Path,
    size: Option<[usize; 2]>,
    pixels: Vec<u8>,
    labels: Option<Labels>,
    unread: &[(PathBuf, Vec<String>)],
) -> Result<Dataset> {
    // Folders of classes without an image have no size.
    let Some([rows, cols]) = size else { return Err(Error::Empty { file: folder.to_owned() }) };
    let images = Images::new(folder, rows, cols, pixels)?;
    let set = Dataset::new(folder.display().to_string(), images, labels)?;
    let unread = unread.iter().filter(|(_, names)| !names.is_empty()).map(|(folder, names)| {
        let more = if names.len() > SHOWN { ", …" } else { "" };
        let shown = names[..names.len().min(SHOWN)].join(", ");
        format!("{}: not read, since only PNG images are: {shown}{more}", folder.display())
    });
    Ok(unread.fold(set, Dataset::with_note))
}

/// Reads an IDX file of images, of `size` if it is given, with the labels beside it.
pub(super) fn read_idx(file: &Path, size: Option<[usize; 2]>) -> Result<Dataset> {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_transposed = names::parse(name).is_some_and(names::IdxName::is_transposed);
    let images = idx::read_images(file)?;
    let images = if is_transposed { images.transposed() } else { images };
    let found = [images.rows(), images.cols()];
    if let Some(expected) = size.filter(|size| found != *size) {
        return Err(Error::Size { file: file.to_owned(), found, expected });
    }
    let labels = match names::parse_kind(name) {
        Some((stem, IdxKind::Images)) => labels_beside(file, stem)?,
        _ => None,
    };
    let is_unlabelled = labels.is_none();
    let mut set = Dataset::with_labels_file(file.display().to_string(), images, labels)?;
    if is_transposed {
        set =
            set.with_note(format!("{} is transposed, because EMNIST stores columns as rows", file.display()));
    }
    if is_unlabelled {
        let expected = match names::parse_kind(name) {
            Some((stem, _)) => format!("there is no {stem}-labels-idx1-ubyte beside it"),
            None => {
                "its name does not end in -images-idx3-ubyte, so no file of labels belongs to it".to_owned()
            }
        };
        set = set.with_note(format!("{} has no labels: {expected}", file.display()));
    }
    Ok(set)
}

/// The file of labels that belongs to a file of images, if there is one.
fn labels_beside(file: &Path, stem: &str) -> Result<Option<PathBuf>> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names = Names::of(parent)?;
    let found: Vec<_> =
        names.idx_files(IdxKind::Labels).into_iter().filter(|(other, _)| *other == stem).collect();
    match found.as_slice() {
        [] => Ok(None),
        // Without the folder if the path has none, as errors name the files.
        [(_, name)] => Ok(Some(file.with_file_name(name))),
        several => {
            let files = several.iter().map(|(_, name)| (*name).to_owned()).collect();
            Err(Error::SeveralFiles { folder: parent.to_owned(), files })
        }
    }
}
