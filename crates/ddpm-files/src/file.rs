//! Atomic writing of files.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use tempfile::{NamedTempFile, TempPath};

use crate::{
    Error, Result, disk,
    folder::{NewFolders, TEMPORARY, create_in, parent, write_error},
    target::Target,
};

/// Writes a file under a temporary name in the same folder, then renames it. Creates the folder if it is missing.
///
/// # Errors
///
/// If the folder or the file cannot be written, or the path is a folder. No temporary or partial file remains then.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.append(bytes)?;
    file.commit()
}

/// Creates a symbolic link to `target` under a temporary name, then renames it. An existing link is replaced, and its
/// target stays unchanged.
///
/// # Errors
///
/// If the folder of `path` is missing or cannot be written.
#[cfg(unix)]
pub fn link_atomic(path: &Path, target: &Path) -> Result<()> {
    let mut builder = tempfile::Builder::new();
    let link = builder.prefix(TEMPORARY).make_in(parent(path), |new| std::os::unix::fs::symlink(target, new));
    let renamed = link.and_then(|link| disk::persist(link.into_temp_path(), path));
    renamed.and_then(|()| disk::sync_dir(parent(path))).map_err(write_error(path))
}

/// A file that is written under a temporary name in the same folder, and renamed when it is complete.
///
/// A symbolic link stays, and its target is replaced. A device, a pipe and an open file of the process, such as
/// `/dev/stdout`, are written directly. Dropping the file without [`commit`](Self::commit) removes the temporary file and
/// the folders created for it.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    // Rust drops fields in this order: the file is closed, then removed, then its folders are removed.
    file: BufWriter<File>,
    /// `None` for a stream.
    replacement: Option<Replacement>,
    folders: NewFolders,
}

/// A temporary file and the regular file that it replaces.
#[derive(Debug)]
struct Replacement {
    temporary: TempPath,
    to: PathBuf,
}

impl AtomicFile {
    /// Opens a temporary file in the folder of `path`. Creates the folder if it is missing.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written, or `path` is a folder.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        Self::create_as(path.clone(), &path)
    }

    /// Opens a file at `at`, which errors call `path`.
    pub(crate) fn create_as(path: PathBuf, at: &Path) -> Result<Self> {
        let open = || {
            let Target::File(to) = Target::of(at)? else {
                // Appending keeps what an open file already has.
                return Ok((File::options().append(true).open(at)?, None, NewFolders::default()));
            };
            let (file, folders) = create_in(parent(&to), || new_file(TEMPORARY.as_ref(), &to))?;
            let (file, temporary) = file.into_parts();
            Ok((file, Some(Replacement { temporary, to }), folders))
        };
        let (file, replacement, folders) = open().map_err(write_error(&path))?;
        Ok(Self { path, file: BufWriter::new(file), replacement, folders })
    }

    /// The path of the file, as errors name it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends bytes to the file, through a buffer.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(write_error(&self.path))
    }

    /// Completes the file and renames it to its final path, replacing an existing file.
    ///
    /// # Errors
    ///
    /// If the file cannot be written or renamed. An existing file stays unchanged then.
    pub fn commit(self) -> Result<()> {
        Self::commit_all([self])
    }

    /// Completes files that belong together and renames them to their final paths. The first is the one without which
    /// the others mean nothing.
    ///
    /// It syncs all files to the disk, moves existing files aside, to `NAME.old-…`, the first one first, and renames the
    /// new files, the first one last. So a crash in between leaves no mixture: the first file is missing, and the old
    /// files are complete under the other names.
    ///
    /// # Errors
    ///
    /// If a file cannot be written or renamed. All files are as before then.
    pub fn commit_all(files: impl IntoIterator<Item = Self>) -> Result<()> {
        // The folders of later files come first, because they may lie in folders of earlier files. This variable
        // is dropped after `files`, so the folders are removed after the temporary files.
        let mut folders = NewFolders::default();
        let mut replacements = Vec::new();
        let mut files: Vec<Self> = files.into_iter().collect();
        for Self { path, file, replacement, folders: new } in &mut files {
            folders.prepend(std::mem::take(new));
            file.flush().map_err(write_error(path))?;
            if replacement.is_some() {
                disk::sync_file(file.get_ref(), path).map_err(write_error(path))?;
            }
        }
        for Self { path, file, replacement, .. } in files {
            drop(file);
            replacements.extend(replacement.map(|replacement| (path, replacement)));
        }
        let mut done = Done::default();
        let parents: BTreeSet<PathBuf> =
            replacements.iter().map(|(_, replacement)| parent(&replacement.to).to_owned()).collect();
        if let Err((path, source)) = rename_all(replacements, &mut done) {
            done.undo()?;
            return Err(write_error(&path)(source));
        }
        for parent in parents {
            if let Err(error) = disk::sync_dir(&parent) {
                log::warn!("{}", disk::unsynced(&parent, &error));
            }
        }
        folders.keep();
        Ok(())
    }
}

/// Renames temporary files to their final paths, and records what it has done.
fn rename_all(
    replacements: Vec<(PathBuf, Replacement)>,
    done: &mut Done,
) -> std::result::Result<(), (PathBuf, io::Error)> {
    if replacements.len() > 1 {
        for (path, Replacement { to, .. }) in &replacements {
            done.move_aside(to).map_err(|error| (path.clone(), error))?;
        }
    }
    for (path, Replacement { temporary, to }) in replacements.into_iter().rev() {
        let renamed = disk::persist(temporary, &to);
        renamed.map_err(|error| (path, error))?;
        done.renamed.push(to);
    }
    Ok(())
}

/// The renames of a commit so far.
#[derive(Default)]
struct Done {
    /// The paths of existing files, and their other paths. Dropping it removes the files there.
    aside: Vec<(PathBuf, TempPath)>,
    renamed: Vec<PathBuf>,
}

impl Done {
    /// Renames a file, if it exists, to another name.
    fn move_aside(&mut self, path: &Path) -> io::Result<()> {
        if path.exists() {
            let mut prefix = path.file_name().unwrap_or_default().to_owned();
            prefix.push(".old-");
            let temporary = new_file(&prefix, path)?.into_temp_path();
            disk::rename(path, &temporary)?;
            self.aside.push((path.to_owned(), temporary));
        }
        Ok(())
    }

    /// Removes the new files, and moves the existing files back.
    fn undo(self) -> Result<()> {
        for path in self.renamed {
            // The caller reports the first error, so this one is ignored.
            drop(fs::remove_file(path));
        }
        for (path, temporary) in self.aside.into_iter().rev() {
            let old = temporary.to_path_buf();
            if let Err(source) = disk::rename(&temporary, &path) {
                drop(temporary.keep());
                return Err(Error::Replace { path, old, source });
            }
        }
        Ok(())
    }
}

/// Creates a file with a random name in the folder of `path`, with the usual permissions of a new file.
fn new_file(prefix: &OsStr, path: &Path) -> io::Result<NamedTempFile> {
    // `make_in` gives the error of the system, to which `tempfile_in` adds the temporary path.
    let create = |path: &Path| File::options().read(true).write(true).create_new(true).open(path);
    tempfile::Builder::new().prefix(prefix).make_in(parent(path), create)
}

#[cfg(test)]
mod tests;
