//! The errors of this crate.

use std::{io, path::PathBuf};

/// The result of this crate's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

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
    /// A file that is not of this kind of folder is in the way of replacing the folder.
    #[error(
        "{}: is not a file of a {kind}, and would be lost when its folder is replaced; move it away, or choose another \
         folder", path.display()
    )]
    Extra {
        /// The file.
        path: PathBuf,
        /// The content that may be replaced, for example "feature net".
        kind: &'static str,
    },
    /// The path of a new folder exists, and is not empty or a folder of the same kind.
    #[error("{}: cannot write: exists and holds no {kind}; expected a new or empty folder", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// The content that may be replaced, for example "feature net".
        kind: &'static str,
    },
    /// A file or folder cannot be replaced, and the old content cannot be moved back to its path.
    #[error("{}: cannot replace; the old content is kept as {}", path.display(), old.display())]
    Replace {
        /// The file or folder.
        path: PathBuf,
        /// The path of the complete old content.
        old: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}
