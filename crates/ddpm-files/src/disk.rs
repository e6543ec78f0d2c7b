//! The system calls whose order or failure matters for atomic writing. Tests record them and make some fail.

use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::Once,
};

use tempfile::TempPath;

/// Reads the content of a file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    intercept("read", path)?;
    fs::read(path)
}

/// Creates a folder in an existing one.
pub(crate) fn create_dir(path: &Path) -> io::Result<()> {
    intercept("create_dir", path)?;
    fs::create_dir(path)
}

/// Syncs the content of a file to the disk. Only tests use `path`.
pub(crate) fn sync_file(file: &File, path: &Path) -> io::Result<()> {
    intercept("sync_file", path)?;
    file.sync_all()
}

/// Syncs the entries of a folder to the disk. Does nothing on systems other than Unix, and warns once on a file system
/// that cannot do it.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    intercept("sync_dir", path)?;
    if cfg!(unix) { supported(File::open(path).and_then(|folder| folder.sync_all()), path) } else { Ok(()) }
}

/// Syncs everything that was written to the file system of a folder. Does nothing on systems other than Linux.
pub(crate) fn sync_file_system(folder: &Path) -> io::Result<()> {
    intercept("sync_file_system", folder)?;
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(File::open(folder)?)?;
    Ok(())
}

/// Replaces the error that a file system cannot sync folders with a warning.
fn supported(synced: io::Result<()>, path: &Path) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    static WARNED: Once = Once::new();
    match synced {
        Err(error) if matches!(error.kind(), InvalidInput | PermissionDenied | Unsupported) => {
            WARNED.call_once(|| log::warn!("{}", unsynced(path, &error)));
            Ok(())
        }
        synced => synced,
    }
}

/// The text of a warning about a folder that cannot be synced.
pub(crate) fn unsynced(path: &Path, error: &io::Error) -> String {
    format!(
        "{}: cannot sync the folder ({error}); a power failure now may undo the last writes",
        path.display()
    )
}

/// Exchanges two folders in one step. Returns false if the system or the file system cannot do it.
pub(crate) fn exchange(one: &Path, other: &Path) -> io::Result<bool> {
    intercept("exchange", other)?;
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Ok(false),
            result => Ok(result.map(|()| true)?),
        }
    }
    #[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
    {
        let _ = (one, other);
        Ok(false)
    }
}

/// Renames a temporary file to `to`, replacing an existing file.
pub(crate) fn persist(file: TempPath, to: &Path) -> io::Result<()> {
    intercept("rename", to)?;
    Ok(file.persist(to)?)
}

/// Renames a folder.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    intercept("rename", to)?;
    fs::rename(from, to)
}

/// Does nothing. In tests it records the call and may make it fail.
#[cfg(not(test))]
fn intercept(_call: &'static str, _path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) use faults::{Call, intercept, record};

#[cfg(test)]
mod faults {
    use std::{
        cell::RefCell,
        io,
        path::{Path, PathBuf},
    };

    /// The name of a call, and the path that it reads or changes.
    pub(crate) type Call = (&'static str, PathBuf);
    /// Whether a call fails, given its number, counted from 0, and its name.
    type Fails = Box<dyn Fn(usize, &str) -> bool>;

    thread_local! {
        static RECORD: RefCell<Option<(Fails, Vec<Call>)>> = const { RefCell::new(None) };
    }

    /// Runs `work` and returns its result and all calls in order. A call for which `fails` returns true fails
    /// with "permission denied".
    pub(crate) fn record<T>(
        fails: impl Fn(usize, &str) -> bool + 'static,
        work: impl FnOnce() -> T,
    ) -> (T, Vec<Call>) {
        RECORD.with_borrow_mut(|record| *record = Some((Box::new(fails), Vec::new())));
        let result = work();
        let (_, calls) = RECORD.take().expect("recording began above");
        (result, calls)
    }

    pub(crate) fn intercept(call: &'static str, path: &Path) -> io::Result<()> {
        RECORD.with_borrow_mut(|record| {
            let Some((fails, calls)) = record else { return Ok(()) };
            let number = calls.len();
            calls.push((call, path.to_owned()));
            if fails(number, call) { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_cannot_sync_folders_is_no_error() {
        let path = Path::new("folder");
        for kind in [io::ErrorKind::InvalidInput, io::ErrorKind::Unsupported, io::ErrorKind::PermissionDenied]
        {
            supported(Err(kind.into()), path).unwrap();
        }
        // EINVAL and EIO.
        supported(Err(io::Error::from_raw_os_error(22)), path).unwrap();
        supported(Err(io::Error::from_raw_os_error(5)), path).unwrap_err();
    }
}
