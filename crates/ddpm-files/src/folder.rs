//! Folders that are complete, or not there.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{Error, Result, disk};

/// The beginning of the names of temporary files and folders. They are removed unless the program is killed.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// A folder that is filled under a temporary name beside its place, and renamed when it is complete.
///
/// Unless it is committed, neither it nor a folder that was created for it stays.
#[derive(Debug)]
pub struct AtomicDir {
    to: PathBuf,
    // Dropped in this order.
    temporary: TempDir,
    folders: NewFolders,
}

impl AtomicDir {
    /// Creates the temporary folder, in the parent of `to`, which is created if it is missing.
    ///
    /// # Errors
    ///
    /// If it cannot be created.
    pub fn create(to: impl Into<PathBuf>) -> Result<Self> {
        let to = to.into();
        let create = || {
            let folders = NewFolders::create(parent(&to))?;
            Ok((temporary_dir(TEMPORARY.as_ref(), parent(&to))?, folders))
        };
        let (temporary, folders) = create().map_err(write_error(&to))?;
        Ok(Self { to, temporary, folders })
    }

    /// The temporary folder. Files are to be written into it by [`write_atomic`](crate::write_atomic) or
    /// [`AtomicFile`](crate::AtomicFile), which sync them.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Renames the folder to its path. An older folder there is moved to a sibling `NAME.old-…` first and
    /// removed last.
    ///
    /// # Errors
    ///
    /// If a folder cannot be moved, synced or removed. The old or the new folder is then complete under its
    /// name, or [`Error::Replace`] names the path of the old one.
    pub fn commit(self) -> Result<()> {
        let Self { to, temporary, folders } = self;
        if fs::symlink_metadata(&to).is_ok() {
            replace(temporary, &to)?;
        } else {
            let commit = || {
                disk::rename(temporary.path(), &to)?;
                // Not to be removed any more.
                let _: PathBuf = temporary.keep();
                disk::sync_dir(parent(&to))
            };
            commit().map_err(write_error(&to))?;
        }
        folders.keep();
        Ok(())
    }
}

/// Puts `new` in the place of the folder `to`.
fn replace(new: TempDir, to: &Path) -> Result<()> {
    let name = to.file_name().unwrap_or_default();
    let mut prefix = OsString::from(name);
    prefix.push(".old-");
    let aside = temporary_dir(&prefix, parent(to)).map_err(write_error(to))?;
    let old = aside.path().join(name);
    disk::rename(to, &old).map_err(write_error(to))?;
    let placed = disk::rename(new.path(), to);
    if placed.is_ok() {
        // Not to be removed any more.
        let _: PathBuf = new.keep();
    } else if disk::rename(&old, to).is_ok() {
        return placed.map_err(write_error(to));
    }
    // Until the new name is on the disk, a crash may lose it, and the old folder is needed.
    if let Err(source) = placed.and_then(|()| disk::sync_dir(parent(to))) {
        let _: PathBuf = aside.keep();
        return Err(Error::Replace { path: to.to_owned(), old, source });
    }
    let path = aside.path().to_owned();
    aside.close().map_err(write_error(&path))
}

/// Creates a folder and its missing ancestors, and syncs the parent of each new one.
///
/// # Errors
///
/// If one cannot be created, or the path exists and is no folder. New ancestors are removed then.
pub fn create_dir_all(folder: &Path) -> Result<()> {
    NewFolders::create(folder).map(NewFolders::keep).map_err(write_error(folder))
}

/// Checks that a folder may be replaced: that it does not exist, is empty, or `is_kind` returns true.
///
/// # Errors
///
/// [`Error::Occupied`] with the name of the kind, for example "feature net".
pub fn check_writable(folder: &Path, kind: &'static str, is_kind: impl FnOnce() -> bool) -> Result<()> {
    let is_empty = || fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    if folder.exists() && !is_empty() && !is_kind() {
        return Err(Error::Occupied { path: folder.to_owned(), kind });
    }
    Ok(())
}

/// Removes the temporary folders that a killed program has left in `folder`.
///
/// # Errors
///
/// If the folder cannot be read or a temporary folder cannot be removed.
pub fn remove_temporary(folder: &Path) -> Result<()> {
    let read_error = |source| Error::Read { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(read_error)? {
        let path = entry.map_err(read_error)?.path();
        let temporary = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY));
        if temporary && path.is_dir() {
            fs::remove_dir_all(&path).map_err(write_error(&path))?;
        }
    }
    Ok(())
}

/// Folders that were created, the innermost first. When dropped they are removed, as far as they are empty.
#[derive(Debug, Default)]
pub(crate) struct NewFolders(Vec<PathBuf>);

impl NewFolders {
    /// Creates a folder and its missing ancestors, and syncs the parent of each new one.
    pub(crate) fn create(folder: &Path) -> io::Result<Self> {
        let missing = folder.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
        let missing: Vec<&Path> = missing.collect();
        let mut new = Self::default();
        for path in missing.into_iter().rev() {
            match disk::create_dir(path) {
                Ok(()) => new.0.insert(0, path.to_owned()),
                // By another program, or by way of `..`.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
                Err(error) => return Err(error),
            }
            disk::sync_dir(parent(path))?;
        }
        if folder.exists() && !folder.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(new)
    }

    /// Adds folders that may lie within these.
    pub(crate) fn prepend(&mut self, mut folders: Self) {
        self.0.splice(..0, std::mem::take(&mut folders.0));
    }

    /// Lets the folders stay.
    pub(crate) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for NewFolders {
    fn drop(&mut self) {
        for folder in &self.0 {
            // One that is no longer empty is not removed, and is to stay.
            drop(fs::remove_dir(folder));
        }
    }
}

/// An empty folder with a random name and the permissions of any new folder.
fn temporary_dir(prefix: &OsStr, parent: &Path) -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    builder.prefix(prefix).tempdir_in(parent)
}

/// Names the file or folder that cannot be written.
pub(crate) fn write_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Write { path: path.to_owned(), source }
}

/// The folder in which `path` lies.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
pub(crate) mod tests;
