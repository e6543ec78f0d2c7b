//! Atomic writing of files and folders, SHA-256 digests, manifests, and a check of JSON.
//!
//! [`AtomicFile`] and [`AtomicDir`] write under a temporary name and rename at the end. So a reader, or the next
//! run after a crash, finds either the complete old content or the complete new content. They sync the content
//! to the disk before the rename, and the folder after it. A symbolic link stays, and its target is replaced; a device
//! or a pipe is written directly. A [`Manifest`] lists the files of a folder with their digests.
//!
//! A folder that cannot be synced after a rename is a warning, through the crate `log`, and no error: the rename was
//! done, and some file systems cannot sync a folder.
//!
//! ```
//! use ddpm_files::{AtomicDir, Manifest, sha256_hex};
//!
//! # let root = tempfile::tempdir()?;
//! # let root = root.path();
//! let new = AtomicDir::create(root.join("model"))?;
//! new.write("weights", b"0.5")?;
//! let mut manifest = Manifest::default();
//! manifest.insert("weights", sha256_hex(b"0.5"));
//! manifest.write(&new)?;
//! new.commit()?;
//! assert_eq!(Manifest::read_verified(&root.join("model"), ["weights"])?, Some([b"0.5".to_vec()]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod digest;
mod disk;
mod error;
mod file;
mod folder;
mod json;
mod manifest;
mod target;

pub use digest::{Sha256, sha256_hex, sha256_of_file};
pub use error::{Error, Result};
#[cfg(unix)]
pub use file::link_atomic;
pub use file::{AtomicFile, write_atomic};
pub use folder::{AtomicDir, check_writable, create_dir_all, remove_temporary};
pub use json::check_keys;
pub use manifest::{Damage, Manifest};
