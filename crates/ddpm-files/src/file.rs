//! Atomic writing of files.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use tempfile::TempPath;

use crate::{
    Error, Result, disk,
    folder::{NewFolders, TEMPORARY, parent, write_error},
};

/// Writes a file under a temporary name in the same folder, then renames it. Creates the folder if it is missing.
///
/// # Errors
///
/// If the folder or the file cannot be written, or the path exists and is not a regular file. No temporary or
/// partial file remains then.
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
/// Dropping it without [`commit`](Self::commit) removes the temporary file and the folders created for it.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    // Rust drops fields in this order: the file is closed, then removed, then its folders are removed.
    file: BufWriter<File>,
    temporary: TempPath,
    folders: NewFolders,
}

impl AtomicFile {
    /// Opens a temporary file in the folder of `path`. Creates the folder if it is missing.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written, or `path` exists and is not a regular file.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        check_target(&path)?;
        let open = || {
            let folders = NewFolders::create(parent(&path))?;
            let mut builder = tempfile::Builder::new();
            // By default only the owner can read a temporary file. This gives it the usual permissions.
            #[cfg(unix)]
            builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
            Ok((builder.prefix(TEMPORARY).tempfile_in(parent(&path))?.into_parts(), folders))
        };
        let ((file, temporary), folders) = open().map_err(write_error(&path))?;
        Ok(Self { path, file: BufWriter::new(file), temporary, folders })
    }

    /// The final path of the file.
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

    /// Completes files that belong together and renames them to their final paths.
    ///
    /// It syncs all files to the disk, then renames all of them without other work in between, then syncs their
    /// folders.
    ///
    /// # Errors
    ///
    /// If a file cannot be written or renamed. New files are removed then. A file that already replaced an
    /// existing one stays.
    pub fn commit_all(files: impl IntoIterator<Item = Self>) -> Result<()> {
        // The folders of later files come first, because they may lie in folders of earlier files. This variable
        // is dropped after `files`, so the folders are removed after the temporary files.
        let mut folders = NewFolders::default();
        let mut files: Vec<Self> = files.into_iter().collect();
        for file in &mut files {
            folders.prepend(std::mem::take(&mut file.folders));
        }
        for Self { path, file, .. } in &mut files {
            let complete = file.flush().and_then(|()| disk::sync_file(file.get_ref(), path));
            complete.map_err(write_error(path))?;
            check_target(path)?;
        }
        let (mut new, mut parents) = (NewFiles::default(), BTreeSet::new());
        for Self { path, file, temporary, .. } in files {
            drop(file);
            let existed = path.exists();
            disk::persist(temporary, &path).map_err(write_error(&path))?;
            parents.insert(parent(&path).to_owned());
            if !existed {
                new.0.push(path);
            }
        }
        for parent in parents {
            disk::sync_dir(&parent).map_err(write_error(&parent))?;
        }
        new.0.clear();
        folders.keep();
        Ok(())
    }
}

/// The paths of new files. Dropping it removes the files.
#[derive(Default)]
struct NewFiles(Vec<PathBuf>);

impl Drop for NewFiles {
    fn drop(&mut self) {
        for path in &self.0 {
            // The caller reports the first error, so this one is ignored.
            drop(fs::remove_file(path));
        }
    }
}

/// Checks that `path` does not exist or is a regular file. A rename would replace, for example, the device
/// /dev/null.
fn check_target(path: &Path) -> Result<()> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(Error::NotAFile { path: path.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
