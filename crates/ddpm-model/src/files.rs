//! Writing files and folders so that what stands there is complete, old or new.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

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
    let write = || {
        // A rename would replace a device such as /dev/null by a file.
        if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "exists and is no regular file"));
        }
        let folder = parent(path);
        fs::create_dir_all(folder)?;
        let mut builder = tempfile::Builder::new();
        // Temporary files are private; a result is as readable as the user's mask lets any new file be.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.prefix(TEMPORARY).tempfile_in(folder)?;
        io::Write::write_all(&mut file, bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        sync_folder(folder)
    };
    write().map_err(|source| Error::Write { path: path.to_owned(), source })
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
    create().map_err(|source| Error::Write { path: path.to_owned(), source })
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
    replace().map_err(|source| Error::Write { path: to.to_owned(), source })
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
    use std::fs;

    use super::{replace_dir, temporary_beside, write_atomic};

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
        let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["model", "model.old", "model.tmp"]);
        assert!(to.join("new").exists() && !to.join("old").exists());
    }
}
