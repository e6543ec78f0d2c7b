//! Writing files and folders so that what stands there is complete, old or new.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use tempfile::{TempDir, TempPath};

use crate::{Error, Result};

/// How the names of temporary files and folders begin. They are removed unless the program is killed.
pub const TEMPORARY: &str = ".tmp-";

/// Writes a file by way of a temporary one in the same folder, which is created if it is missing.
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

/// A file that is written under another name beside its place, and takes the place when it is complete.
///
/// Unless it is committed, neither it nor a folder that was created for it stays.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    // Dropped in this order: what is closed can be removed everywhere, and then the folders are empty.
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
        let open = || {
            check_target(&path)?;
            let folders = NewFolders::create(parent(&path))?;
            let mut builder = tempfile::Builder::new();
            // Temporary files are private; a result is as readable as the user's mask lets any new file be.
            #[cfg(unix)]
            builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
            Ok((builder.prefix(TEMPORARY).tempfile_in(parent(&path))?.into_parts(), folders))
        };
        let ((file, temporary), folders) = open().map_err(write_error(&path))?;
        Ok(Self { path, file: BufWriter::new(file), temporary, folders })
    }

    /// Where the file is to stand.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the next piece, by way of a buffer.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(write_error(&self.path))
    }

    /// Puts the file in its place, where it replaces one that is there.
    ///
    /// # Errors
    ///
    /// If it cannot be written or moved; what stood in its place stays then.
    pub fn commit(self) -> Result<()> {
        Self::commit_all([self])
    }

    /// Puts files that belong together in their places: all, or none that was not there before.
    ///
    /// All are completely on disk before the first takes its place, so that little can fail between the
    /// first and the last.
    ///
    /// # Errors
    ///
    /// If one cannot be written or moved. Files that did not exist before do not exist then; one that has been
    /// replaced by then stays replaced.
    pub fn commit_all(files: impl IntoIterator<Item = Self>) -> Result<()> {
        // Those of later files first, for they may lie within others. Dropped after the temporary files.
        let mut folders = NewFolders::default();
        let mut files: Vec<Self> = files.into_iter().collect();
        for file in &mut files {
            folders.0.splice(..0, std::mem::take(&mut file.folders.0));
        }
        for Self { path, file, .. } in &mut files {
            let complete = file.flush().and_then(|()| file.get_ref().sync_all());
            complete.and_then(|()| check_target(path)).map_err(write_error(path))?;
        }
        let mut new = Vec::new();
        for Self { path, file, temporary, .. } in files {
            drop(file);
            let existed = path.exists();
            let place = || {
                temporary.persist(&path)?;
                if !existed {
                    new.push(path.clone());
                }
                sync_folder(parent(&path))
            };
            if let Err(source) = place() {
                for path in new {
                    // The first error is the one to tell.
                    drop(fs::remove_file(path));
                }
                return Err(Error::Write { path, source });
            }
        }
        folders.0.clear();
        Ok(())
    }
}

/// Folders that were created, the innermost first. When dropped they are removed, as far as they are empty.
#[derive(Debug, Default)]
struct NewFolders(Vec<PathBuf>);

impl NewFolders {
    /// Creates a folder and those in which it lies, as far as they are missing.
    fn create(folder: &Path) -> io::Result<Self> {
        let missing = folder.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
        let folders = Self(missing.map(Path::to_owned).collect());
        fs::create_dir_all(folder)?;
        Ok(folders)
    }
}

impl Drop for NewFolders {
    fn drop(&mut self) {
        for folder in &self.0 {
            // One that holds something by now is not removed, and is to stay.
            drop(fs::remove_dir(folder));
        }
    }
}

/// A hidden folder next to `path`, removed with all that is in it unless [`replace_dir`] moves it.
///
/// # Errors
///
/// If it cannot be created.
pub fn temporary_beside(path: &Path) -> Result<TempDir> {
    let create = || {
        let folder = parent(path);
        fs::create_dir_all(folder)?;
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        builder.prefix(TEMPORARY).tempdir_in(folder)
    };
    create().map_err(write_error(path))
}

/// Puts a complete folder, from [`temporary_beside`], in the place of `to`. What stood there is moved aside
/// first and removed last.
///
/// # Errors
///
/// If a folder cannot be moved or removed. `to` holds the old content or the new.
pub fn replace_dir(from: TempDir, to: &Path) -> Result<()> {
    let aside = temporary_beside(to)?;
    let replace = || {
        let old = aside.path().join("old");
        let existed = to.exists();
        if existed {
            fs::rename(to, &old)?;
        }
        if let Err(error) = fs::rename(from.path(), to) {
            if existed {
                fs::rename(&old, to)?;
            }
            return Err(error);
        }
        // It is no longer where it would be removed from.
        let _: PathBuf = from.keep();
        sync_folder(parent(to))?;
        aside.close()
    };
    replace().map_err(write_error(to))
}

/// Names the file that cannot be written.
fn write_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Write { path: path.to_owned(), source }
}

/// A rename would replace a device such as /dev/null by a file.
fn check_target(path: &Path) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "exists and is no regular file"));
    }
    Ok(())
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the entries of a folder durable, where the system can.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { fs::File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests;
