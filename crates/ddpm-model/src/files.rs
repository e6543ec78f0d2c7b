//! Writing files so that a reader sees the old content or the new, and never a part.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// Writes a file by way of a temporary one in the same folder, which is created if it is missing.
///
/// # Errors
///
/// If the folder or the file cannot be written; nothing is left behind then.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let folder = parent(path);
        fs::create_dir_all(folder)?;
        let mut file = tempfile::Builder::new().prefix(".tmp-").tempfile_in(folder)?;
        io::Write::write_all(&mut file, bytes)?;
        // Temporary files are private; a result is as readable as any new file.
        #[cfg(unix)]
        file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        sync_folder(folder)
    };
    write().map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// Puts a complete folder in the place of `to`, in the same file system. What stood there is removed after.
///
/// # Errors
///
/// If a folder cannot be moved; `to` is then as it was.
pub fn replace_dir(from: &Path, to: &Path) -> Result<()> {
    let replace = || {
        let old = sibling(to, "old");
        let existed = to.exists();
        if existed {
            if old.exists() {
                fs::remove_dir_all(&old)?;
            }
            fs::rename(to, &old)?;
        }
        if let Err(error) = fs::rename(from, to) {
            if existed {
                fs::rename(&old, to)?;
            }
            return Err(error);
        }
        sync_folder(parent(to))?;
        if existed { fs::remove_dir_all(&old) } else { Ok(()) }
    };
    replace().map_err(|source| Error::Write { path: to.to_owned(), source })
}

/// `folder` with `.suffix` at the end of its name.
pub(crate) fn sibling(folder: &Path, suffix: &str) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{suffix}"));
    folder.with_file_name(name)
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

    use super::{replace_dir, write_atomic};

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
        assert!(error.contains("taken"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_takes_the_place_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir(&to).unwrap();
        fs::write(to.join("old"), "").unwrap();
        fs::create_dir(&from).unwrap();
        fs::write(from.join("new"), "").unwrap();
        replace_dir(&from, &to).unwrap();
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["to"]);
        assert!(to.join("new").exists() && !to.join("old").exists());
    }
}
