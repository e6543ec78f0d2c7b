//! Files that are complete, or not there.

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

/// Writes a file under a temporary name in the same folder, which is created if it is missing, and renames it.
///
/// # Errors
///
/// If the folder or the file cannot be written, or the path exists and is no regular file; nothing is left
/// behind then.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.append(bytes)?;
    file.commit()
}

/// A file that is written under a temporary name beside its place, and renamed when it is complete.
///
/// Unless it is committed, neither it nor a folder that was created for it stays.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    // Dropped in this order: a file is removed after it is closed, and its folders after that.
    file: BufWriter<File>,
    temporary: TempPath,
    folders: NewFolders,
}

impl AtomicFile {
    /// Opens the temporary file, in the folder of `path`, which is created if it is missing.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written, or `path` exists and is no regular file.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        check_target(&path)?;
        let open = || {
            let folders = NewFolders::create(parent(&path))?;
            let mut builder = tempfile::Builder::new();
            // Temporary files are private by default; this one gets the permissions of any new file.
            #[cfg(unix)]
            builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
            Ok((builder.prefix(TEMPORARY).tempfile_in(parent(&path))?.into_parts(), folders))
        };
        let ((file, temporary), folders) = open().map_err(write_error(&path))?;
        Ok(Self { path, file: BufWriter::new(file), temporary, folders })
    }

    /// The path that the file gets.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the next piece, through a buffer.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(write_error(&self.path))
    }

    /// Renames the file to its path, replacing a file there.
    ///
    /// # Errors
    ///
    /// If it cannot be written or renamed; an older file stays then.
    pub fn commit(self) -> Result<()> {
        Self::commit_all([self])
    }

    /// Renames files that belong together to their paths: all, or none that did not exist before.
    ///
    /// First all are synced to the disk, then all are renamed with nothing in between, then their folders are
    /// synced.
    ///
    /// # Errors
    ///
    /// If one cannot be written or renamed. Files that did not exist before do not exist then; a file that was
    /// replaced before the failure stays replaced.
    pub fn commit_all(files: impl IntoIterator<Item = Self>) -> Result<()> {
        // The folders of later files first, for they may lie within others. Dropped after the temporary files.
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

/// Files that did not exist before. When dropped they are removed.
#[derive(Default)]
struct NewFiles(Vec<PathBuf>);

impl Drop for NewFiles {
    fn drop(&mut self) {
        for path in &self.0 {
            // The first error is the one to report.
            drop(fs::remove_file(path));
        }
    }
}

/// A rename would replace a device such as /dev/null by a file.
fn check_target(path: &Path) -> Result<()> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(Error::NotAFile { path: path.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
