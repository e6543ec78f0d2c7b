//! The errors of this crate.

use std::{io, path::PathBuf};

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// A file or folder that cannot be read, written or replaced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read.
    #[error("{}: cannot read", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file or folder cannot be written.
    #[error("{}: cannot write", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file would replace something that is no regular file, for example a device.
    #[error("{}: cannot write: exists and is no regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// A folder would replace one that holds something else.
    #[error("{}: cannot write: exists and holds no {kind}", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// What the folder may hold, for example "feature net".
        kind: &'static str,
    },
    /// A folder could not be replaced, and the old one could not be moved back to its name.
    #[error("{}: cannot replace; the old folder is kept as {}", path.display(), old.display())]
    Replace {
        /// The folder.
        path: PathBuf,
        /// Where its old content is, complete.
        old: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}
