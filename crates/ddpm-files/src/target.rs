//! The place that the path of an output file leads to.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::folder::parent;

/// The way in which a file is written.
#[derive(Debug)]
pub(crate) enum Target {
    /// A regular file at this path, existing or new, which is replaced by a rename.
    File(PathBuf),
    /// A device, a pipe, or an open file of the process such as `/dev/stdout`, which is written directly.
    Stream,
}

/// The largest number of links that are followed, as in the Linux kernel.
const MAX_LINKS: usize = 40;

impl Target {
    /// Follows symbolic links, also to a file that does not exist yet.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let to = follow(path)?;
        let Some(to) = to else { return Ok(Self::Stream) };
        match fs::metadata(&to) {
            Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if !found.is_file() => Ok(Self::Stream),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(Self::File(to)),
        }
    }
}

/// The end of a chain of links; `None` if it is an open file of the process.
pub(crate) fn follow(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut to = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(link) = fs::read_link(&to) else { return Ok(Some(to)) };
        let folder = parent(&to).canonicalize()?;
        // The system does not follow such a link by its text, for example `pipe:[123]`.
        if folder.starts_with("/proc") {
            return Ok(None);
        }
        to = folder.join(link);
    }
    Err(io::Error::other("too many symbolic links"))
}
