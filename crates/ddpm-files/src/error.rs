//! The errors of this crate.

use std::{io, path::PathBuf};

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// A file or folder cannot be read, written or replaced.
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
    /// The path of a new file exists and is not a regular file but, for example, a device.
    #[error("{}: cannot write: exists and is not a regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// The path of a new folder exists, and is not empty or a folder of the same kind.
    #[error("{}: cannot write: exists and holds no {kind}; expected a new or empty folder", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// The content that may be replaced, for example "feature net".
        kind: &'static str,
    },
    /// A folder cannot be replaced, and the old folder cannot be moved back to its path.
    #[error("{}: cannot replace; the old folder is kept as {}", path.display(), old.display())]
    Replace {
        /// The folder.
        path: PathBuf,
        /// The path of the complete old folder.
        old: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}
