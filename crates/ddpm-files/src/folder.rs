//! Atomic writing of folders.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{AtomicFile, Error, Result, disk, target::follow};

/// The prefix of the names of temporary files and folders. They remain only if the program is killed.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// A folder that is filled under a temporary name in the same parent, and renamed when it is complete.
///
/// Dropping it without [`commit`](Self::commit) removes the temporary folder and the parents created for it.
#[derive(Debug)]
pub struct AtomicDir {
    to: PathBuf,
    // Rust drops fields in this order: the temporary folder is removed before its parents.
    temporary: TempDir,
    folders: NewFolders,
}

impl AtomicDir {
    /// Creates a temporary folder in the parent of `to`. Creates the parent if it is missing.
    ///
    /// # Errors
    ///
    /// If a folder cannot be created.
    pub fn create(to: impl Into<PathBuf>) -> Result<Self> {
        let to = to.into();
        let to = follow(&to).map_err(write_error(&to))?.unwrap_or(to);
        let create = || temporary_dir(TEMPORARY.as_ref(), parent(&to));
        let (temporary, folders) = create_in(parent(&to), create).map_err(write_error(&to))?;
        Ok(Self { to, temporary, folders })
    }

    /// The path of the temporary folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Opens a file of the new folder; `name` is its path in the folder. Errors name its final path.
    ///
    /// # Errors
    ///
    /// If the file cannot be created.
    pub fn file(&self, name: impl AsRef<Path>) -> Result<AtomicFile> {
        AtomicFile::create_as(self.to.join(&name), &self.path().join(&name))
    }

    /// Writes a file of the new folder; `name` is its path in the folder. Errors name its final path.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(&self, name: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
        let mut file = self.file(name)?;
        file.append(bytes)?;
        file.commit()
    }

    /// Writes many files of the new folder, each with its path in the folder, and syncs them to the disk together, which is
    /// much faster than one after the other. On systems other than Linux it is the same as [`write`](Self::write).
    ///
    /// # Errors
    ///
    /// The errors of `files`, and if a file cannot be written.
    pub fn write_many<E: From<Error>>(
        &self,
        files: impl IntoIterator<Item = Result<(PathBuf, Vec<u8>), E>>,
    ) -> Result<(), E> {
        for file in files {
            let (name, bytes) = file?;
            if cfg!(target_os = "linux") {
                let path = self.path().join(&name);
                let written = fs::create_dir_all(parent(&path)).and_then(|()| fs::write(&path, bytes));
                written.map_err(write_error(&self.to.join(name)))?;
            } else {
                self.write(name, &bytes)?;
            }
        }
        Ok(disk::sync_file_system(self.path()).map_err(write_error(&self.to))?)
    }

    /// Renames the folder to its final path. It exchanges an existing folder with the new one and then removes it. If
    /// the file system cannot exchange folders, it moves the existing folder into a sibling `NAME.old-…` first.
    ///
    /// # Errors
    ///
    /// If a folder cannot be moved, synced or removed. Then the final path holds the complete old or the complete
    /// new folder, or the error is [`Error::Replace`], which names the path of the old folder.
    pub fn commit(self) -> Result<()> {
        let Self { to, temporary, folders } = self;
        if fs::symlink_metadata(&to).is_ok() {
            replace(temporary, &to)?;
        } else {
            let commit = || {
                disk::rename(temporary.path(), &to)?;
                // Keeps the renamed folder.
                let _: PathBuf = temporary.keep();
                disk::sync_dir(parent(&to))
            };
            commit().map_err(write_error(&to))?;
        }
        folders.keep();
        Ok(())
    }
}

/// Replaces the folder `to` with `new`.
fn replace(new: TempDir, to: &Path) -> Result<()> {
    let (old, path) = if disk::exchange(new.path(), to).map_err(write_error(to))? {
        let path = new.path().to_owned();
        (new, path)
    } else {
        move_aside(new, to)?
    };
    // Until the change is synced to the disk, a crash may undo it, so the old folder must stay.
    if let Err(source) = disk::sync_dir(parent(to)) {
        let _: PathBuf = old.keep();
        return Err(Error::Replace { path: to.to_owned(), old: path, source });
    }
    let path = old.path().to_owned();
    old.close().map_err(write_error(&path))
}

/// Moves the folder `to` into a sibling, and `new` to its place. Returns the sibling and the path of the old folder in
/// it.
fn move_aside(new: TempDir, to: &Path) -> Result<(TempDir, PathBuf)> {
    let name = to.file_name().unwrap_or_default();
    let mut prefix = OsString::from(name);
    prefix.push(".old-");
    let sibling = temporary_dir(&prefix, parent(to)).map_err(write_error(to))?;
    let old = sibling.path().join(name);
    disk::rename(to, &old).map_err(write_error(to))?;
    if let Err(source) = disk::rename(new.path(), to) {
        if disk::rename(&old, to).is_ok() {
            return Err(write_error(to)(source));
        }
        let _: PathBuf = sibling.keep();
        return Err(Error::Replace { path: to.to_owned(), old, source });
    }
    // Keeps the renamed folder.
    let _: PathBuf = new.keep();
    Ok((sibling, old))
}

/// Creates a folder and its missing ancestors, and syncs the parent of each new folder to the disk.
///
/// # Errors
///
/// If a folder cannot be created, or the path exists and is not a folder. New ancestors are removed then.
pub fn create_dir_all(folder: &Path) -> Result<()> {
    NewFolders::create(folder).map(NewFolders::keep).map_err(write_error(folder))
}

/// Checks that a folder may be replaced: it does not exist, it is empty, or `is_kind` returns true and it has only
/// `files`, paths in the folder. `kind` names the content in the error, for example "feature net". Creates and removes a
/// temporary folder to check that the folder can be written.
///
/// # Errors
///
/// [`Error::Occupied`] or [`Error::Extra`] if the folder may not be replaced, [`Error::Read`] if it cannot be read,
/// [`Error::Write`] if it cannot be written.
pub fn check_writable(
    folder: &Path,
    kind: &'static str,
    is_kind: impl FnOnce() -> bool,
    files: &[&str],
) -> Result<()> {
    let is_empty = || fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    if folder.exists() && !is_empty() {
        if !is_kind() {
            return Err(Error::Occupied { path: folder.to_owned(), kind });
        }
        check_files(folder, kind, files)?;
    }
    AtomicDir::create(folder).map(drop)
}

/// Checks that a folder has only `files`, paths in the folder.
fn check_files(folder: &Path, kind: &'static str, files: &[&str]) -> Result<()> {
    let files: Vec<PathBuf> = files.iter().map(|file| folder.join(file)).collect();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let read_error = |source| Error::Read { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(read_error)? {
            let path = entry.map_err(read_error)?.path();
            if files.iter().any(|file| *file != path && file.starts_with(&path)) && path.is_dir() {
                folders.push(path);
            } else if !files.contains(&path) && path.file_name().is_none_or(|name| name != ".DS_Store") {
                return Err(Error::Extra { path, kind });
            }
        }
    }
    Ok(())
}

/// Removes the temporary files and folders that a killed program left in `folder`: those whose name is `.tmp-` and six
/// letters or digits.
///
/// # Errors
///
/// If the folder cannot be read or a temporary file or folder cannot be removed.
pub fn remove_temporary(folder: &Path) -> Result<()> {
    let read_error = |source| Error::Read { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(read_error)? {
        let entry = entry.map_err(read_error)?;
        let name = entry.file_name();
        let random = name.to_str().and_then(|name| name.strip_prefix(TEMPORARY)).unwrap_or_default();
        if random.len() == 6 && random.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let path = entry.path();
            let is_dir = entry.file_type().map_err(read_error)?.is_dir();
            let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(write_error(&path))?;
        }
    }
    Ok(())
}

/// The paths of new folders, the innermost first. Dropping it removes those that are empty.
#[derive(Debug, Default)]
pub(crate) struct NewFolders(Vec<PathBuf>);

impl NewFolders {
    /// Creates a folder and its missing ancestors, and syncs the parent of each new folder to the disk.
    pub(crate) fn create(folder: &Path) -> io::Result<Self> {
        let missing = folder.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
        let missing: Vec<&Path> = missing.collect();
        let mut new = Self::default();
        for path in missing.into_iter().rev() {
            match disk::create_dir(path) {
                Ok(()) => new.0.insert(0, path.to_owned()),
                // Another program created it, or the path contains `..`.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    // `NotFound` if that program has removed it again.
                    if !fs::metadata(path)?.is_dir() {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
            disk::sync_dir(parent(path))?;
        }
        if fs::metadata(folder).is_ok_and(|found| !found.is_dir()) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(new)
    }

    /// Adds folders that may lie inside these.
    pub(crate) fn prepend(&mut self, mut folders: Self) {
        self.0.splice(..0, std::mem::take(&mut folders.0));
    }

    /// Keeps the folders.
    pub(crate) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for NewFolders {
    fn drop(&mut self) {
        for folder in &self.0 {
            // The system does not remove a folder that is not empty, as intended.
            drop(fs::remove_dir(folder));
        }
    }
}

/// Creates something in a folder, and first the folder itself. Another program that created the folder may remove it in
/// between, when it ends; then the folder is created again.
pub(crate) fn create_in<T>(folder: &Path, create: impl Fn() -> io::Result<T>) -> io::Result<(T, NewFolders)> {
    const ATTEMPTS: usize = 100;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let created = NewFolders::create(folder).and_then(|folders| Ok((create()?, folders)));
        match created {
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempts < ATTEMPTS => {}
            created => return created,
        }
    }
}

/// Creates an empty folder with a random name and the usual permissions of a new folder.
pub(crate) fn temporary_dir(prefix: &OsStr, parent: &Path) -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    // The text of this error names the temporary folder, which does not exist.
    builder.prefix(prefix).tempdir_in(parent).map_err(|error| error.kind().into())
}

/// Converts a system error to [`Error::Write`] for `path`.
pub(crate) fn write_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Write { path: path.to_owned(), source }
}

/// The folder that contains `path`; `.` if `path` has one part.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
pub(crate) mod tests;
