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
    file.file.write_all(bytes).map_err(write_error(path))?;
    file.commit()
}

/// A file that is written under another name beside its place, and takes the place when it is complete.
///
/// Write to it piece by piece as to any [`Write`], with a buffer and with errors that name the file. Unless
/// it is committed, neither it nor a folder that was created for it stays.
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
    /// If one cannot be written or moved. Files that did not exist before do not exist then.
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

    /// The error with the file's name, of the same kind.
    fn name(&self, source: io::Error) -> io::Error {
        io::Error::new(source.kind(), write_error(&self.path)(source))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|source| self.name(source))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush().map_err(|source| self.name(source))
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
mod tests {
    use std::{
        fs,
        io::Write,
        path::{Path, PathBuf},
    };

    use super::{AtomicFile, replace_dir, temporary_beside, write_atomic};

    /// The names in a folder, sorted.
    fn names(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_and_nothing_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/file.txt");
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        let error = write_atomic(&path, b"x").unwrap_err().to_string();
        assert!(error.contains("taken") && error.contains("no regular file"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    #[cfg(unix)]
    fn a_device_is_not_replaced_by_a_file() {
        assert!(write_atomic("/dev/null".as_ref(), b"x").is_err());
    }

    #[test]
    fn a_file_written_piece_by_piece_is_not_there_before_it_is_committed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        for _ in 0..100_000 {
            file.write_all(b"piece").unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), b"old");
        file.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"piece".repeat(100_000));
        assert_eq!(names(folder.path()).len(), 1);
    }

    #[test]
    fn a_file_that_is_not_committed_leaves_neither_itself_nor_its_folders() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/file");
        for _ in 0..2 {
            AtomicFile::create(&path).unwrap().write_all(b"x").unwrap();
            assert!(names(folder.path()).is_empty());
        }
        fs::create_dir(folder.path().join("a")).unwrap();
        drop(AtomicFile::create(&path).unwrap());
        assert!(names(&folder.path().join("a")).is_empty(), "a folder that was there stays");
        let file = AtomicFile::create(&path).unwrap();
        fs::write(folder.path().join("a/b/other"), "").unwrap();
        drop(file);
        assert_eq!(names(&folder.path().join("a/b")), [PathBuf::from("other")]);
    }

    /// Two files, complete but for their place.
    fn two_files(paths: &[PathBuf; 2]) -> [AtomicFile; 2] {
        paths.each_ref().map(|path| {
            let mut file = AtomicFile::create(path).unwrap();
            file.write_all(b"x").unwrap();
            file
        })
    }

    #[test]
    fn files_that_belong_together_are_written_together() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["new/one", "new/deeper/two"].map(|path| folder.path().join(path));
        let files = two_files(&paths);
        // Only after both are open does it turn out that the second cannot take its place.
        fs::create_dir(&paths[1]).unwrap();
        let error = AtomicFile::commit_all(files).unwrap_err().to_string();
        assert!(error.contains("two: cannot write"), "{error}");
        assert_eq!(names(&folder.path().join("new")), [PathBuf::from("deeper")]);
        fs::remove_dir(&paths[1]).unwrap();
        AtomicFile::commit_all(two_files(&paths)).unwrap();
        assert!(paths.iter().all(|path| fs::read(path).unwrap() == b"x"));
        assert_eq!(names(&folder.path().join("new")).len(), 2);
    }

    #[test]
    #[cfg(unix)]
    fn a_file_in_its_place_is_taken_back_if_the_next_one_fails() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["new/one", "new/deeper/two"].map(|path| folder.path().join(path));
        let files = two_files(&paths);
        fs::rename(folder.path().join("new/deeper"), folder.path().join("moved")).unwrap();
        let error = AtomicFile::commit_all(files).unwrap_err().to_string();
        assert!(error.contains("two: cannot write"), "{error}");
        assert_eq!(names(folder.path()), [PathBuf::from("moved")]);
    }

    /// A device that is full, in the place of the temporary file.
    #[test]
    #[cfg(target_os = "linux")]
    fn an_error_of_writing_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let full = || {
            let mut file = AtomicFile::create(folder.path().join("file")).unwrap();
            file.file = std::io::BufWriter::new(fs::File::create("/dev/full").unwrap());
            file
        };
        let error = full().write_all(&[0; 1 << 20]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        assert!(error.to_string().contains("file: cannot write: No space left"), "{error}");
        let mut buffered = full();
        buffered.write_all(b"x").unwrap();
        let error = buffered.commit().unwrap_err().to_string();
        assert!(error.contains("file: cannot write: No space left"), "{error}");
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_folder_takes_the_place_of_another_and_spares_its_neighbours() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("model");
        for name in ["model", "model.old", "model.tmp"] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("old"), "").unwrap();
        }
        let from = temporary_beside(&to).unwrap();
        fs::write(from.path().join("new"), "").unwrap();
        replace_dir(from, &to).unwrap();
        let expected = ["model", "model.old", "model.tmp"].map(PathBuf::from);
        assert_eq!(names(folder.path()), expected);
        assert!(to.join("new").exists() && !to.join("old").exists());
    }
}
