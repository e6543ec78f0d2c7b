//! The system calls whose order or failure matters. Tests record them and let some fail.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use tempfile::TempPath;

/// Reads a whole file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    before("read", path)?;
    fs::read(path)
}

/// Creates one folder.
pub(crate) fn create_dir(path: &Path) -> io::Result<()> {
    before("create_dir", path)?;
    fs::create_dir(path)
}

/// Makes a file's content durable. `path` is for tests.
pub(crate) fn sync_file(file: &File, path: &Path) -> io::Result<()> {
    before("sync_file", path)?;
    file.sync_all()
}

/// Makes the entries of a folder durable, where the system can.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    before("sync_dir", path)?;
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

/// Moves a temporary file to `to`, replacing a file there.
pub(crate) fn persist(file: TempPath, to: &Path) -> io::Result<()> {
    before("rename", to)?;
    Ok(file.persist(to)?)
}

/// Renames a folder.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    before("rename", to)?;
    fs::rename(from, to)
}

#[cfg(not(test))]
fn before(_call: &'static str, _path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) use faults::{before, record};

#[cfg(test)]
mod faults {
    use std::{
        cell::RefCell,
        io,
        path::{Path, PathBuf},
    };

    /// A call, and the path that it changes or reads.
    pub(crate) type Call = (&'static str, PathBuf);
    /// From the number of a call, counted from 0, and its name: whether it fails.
    type Fails = Box<dyn Fn(usize, &str) -> bool>;

    thread_local! {
        static RECORD: RefCell<Option<(Fails, Vec<Call>)>> = const { RefCell::new(None) };
    }

    /// Runs `work`, lets the calls fail of which `fails` says so, with "permission denied", and returns all
    /// calls in order.
    pub(crate) fn record<T>(
        fails: impl Fn(usize, &str) -> bool + 'static,
        work: impl FnOnce() -> T,
    ) -> (T, Vec<Call>) {
        RECORD.with_borrow_mut(|record| *record = Some((Box::new(fails), Vec::new())));
        let result = work();
        let (_, calls) = RECORD.take().expect("recording began above");
        (result, calls)
    }

    pub(crate) fn before(call: &'static str, path: &Path) -> io::Result<()> {
        RECORD.with_borrow_mut(|record| {
            let Some((fails, calls)) = record else { return Ok(()) };
            let number = calls.len();
            calls.push((call, path.to_owned()));
            if fails(number, call) { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
        })
    }
}
