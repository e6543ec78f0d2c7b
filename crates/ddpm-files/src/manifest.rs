//! A file with the SHA-256 of each file of its folder.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{AtomicDir, Error, Result, check_keys, disk, sha256_hex, sha256_of_file};

/// The SHA-256 of each file of a folder, by file name: the content of `manifest.json`, or a part of another JSON file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Manifest(BTreeMap<String, String>);

/// A file that is missing, or has another SHA-256 than its manifest says. Its text names the file and both values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// The SHA-256 of the file; `None` if it does not exist.
    pub found: Option<String>,
    /// The SHA-256 in the manifest.
    pub expected: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.found {
            Some(found) => {
                write!(f, "{} has SHA-256 {found}, expected {}", self.path.display(), self.expected)
            }
            None => write!(f, "{} does not exist", self.path.display()),
        }
    }
}

impl Manifest {
    /// The file name of the manifest.
    pub const NAME: &str = "manifest.json";

    /// Adds a file name and the SHA-256 of the file, in lower-case hexadecimal.
    pub fn insert(&mut self, name: &str, sha256: String) {
        self.0.insert(name.to_owned(), sha256);
    }

    /// Whether it lists no file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The file names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Compares every listed file with its SHA-256, and returns the first one that is missing or damaged. `path` gives the
    /// file for a name of the manifest. Reads the files in pieces.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] if a file exists and cannot be read. Its content is then unknown, not damaged.
    pub fn damage(&self, path: impl Fn(&str) -> PathBuf) -> Result<Option<Damage>> {
        for (name, expected) in &self.0 {
            let path = path(name);
            let found = match sha256_of_file(&path) {
                Ok(digest) => Some(digest),
                Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            if found.as_ref() != Some(expected) {
                return Ok(Some(Damage { path, found, expected: expected.clone() }));
            }
        }
        Ok(None)
    }

    /// Reads the content of a `manifest.json`.
    ///
    /// # Errors
    ///
    /// If it is no JSON object of texts, or has a key twice.
    pub fn parse(json: &[u8]) -> serde_json::Result<Self> {
        check_keys(json)?;
        serde_json::from_slice(json).map(Self)
    }

    /// Writes the manifest into a new folder.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] if the file cannot be written.
    pub fn write(&self, folder: &AtomicDir) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(&self.0)
            .map_err(|source| Error::Write { path: Self::NAME.into(), source: source.into() })?;
        json.push(b'\n');
        folder.write(Self::NAME, &json)
    }

    /// Reads files of `folder` and compares them with the manifest. Returns `None` if one of them or the manifest
    /// is missing or damaged.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] if a file exists and cannot be read. Its content is then unknown, not damaged.
    pub fn read_verified<const N: usize>(folder: &Path, names: [&str; N]) -> Result<Option<[Vec<u8>; N]>> {
        let Some(manifest) = read(&folder.join(Self::NAME))? else { return Ok(None) };
        let Ok(Self(digests)) = Self::parse(&manifest) else { return Ok(None) };
        let mut contents = [const { Vec::new() }; N];
        for (content, name) in contents.iter_mut().zip(names) {
            let Some(bytes) = read(&folder.join(name))? else { return Ok(None) };
            if digests.get(name).is_none_or(|digest| *digest != sha256_hex(&bytes)) {
                return Ok(None);
            }
            *content = bytes;
        }
        Ok(Some(contents))
    }
}

/// Reads a file, or returns `None` if it does not exist.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match disk::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder with the files `a` and `b` and their manifest.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut manifest = Manifest::default();
        let new = AtomicDir::create(folder.path()).unwrap();
        for name in ["a", "b"] {
            new.write(name, name.as_bytes()).unwrap();
            manifest.insert(name, sha256_hex(name.as_bytes()));
        }
        manifest.write(&new).unwrap();
        new.commit().unwrap();
        folder
    }

    #[test]
    fn files_with_matching_digests_are_read() {
        let folder = folder();
        let contents = Manifest::read_verified(folder.path(), ["b", "a"]).unwrap();
        assert_eq!(contents, Some([b"b".to_vec(), b"a".to_vec()]));
        let text = fs::read_to_string(folder.path().join(Manifest::NAME)).unwrap();
        assert!(text.starts_with("{\n  \"a\": \"ca978112ca1b") && text.ends_with("\"\n}\n"), "{text}");
    }

    #[test]
    fn with_a_missing_or_changed_file_the_result_is_none() {
        for name in ["a", "b", Manifest::NAME] {
            let folder = folder();
            fs::write(folder.path().join(name), "changed").unwrap();
            assert_eq!(Manifest::read_verified(folder.path(), ["a", "b"]).unwrap(), None, "{name}");
            fs::remove_file(folder.path().join(name)).unwrap();
            assert_eq!(Manifest::read_verified(folder.path(), ["a", "b"]).unwrap(), None, "{name}");
        }
        let folder = folder();
        fs::write(folder.path().join("c"), "not listed").unwrap();
        assert_eq!(Manifest::read_verified(folder.path(), ["a", "c"]).unwrap(), None);
    }

    #[test]
    fn the_first_missing_or_damaged_file_is_found_without_a_file_of_the_manifest() {
        let folder = folder();
        let json = fs::read(folder.path().join(Manifest::NAME)).unwrap();
        fs::remove_file(folder.path().join(Manifest::NAME)).unwrap();
        let manifest = Manifest::parse(&json).unwrap();
        assert!(manifest.names().eq(["a", "b"]) && !manifest.is_empty());
        let damage = || manifest.damage(|name| folder.path().join(name));
        assert_eq!(damage().unwrap(), None);
        let expected = sha256_hex(b"b");
        fs::write(folder.path().join("b"), "c").unwrap();
        let path = folder.path().join("b");
        let text = damage().unwrap().unwrap().to_string();
        let found = sha256_hex(b"c");
        assert_eq!(text, format!("{} has SHA-256 {found}, expected {expected}", path.display()));
        fs::remove_file(&path).unwrap();
        let missing = damage().unwrap().unwrap();
        assert_eq!(missing.to_string(), format!("{} does not exist", path.display()));
        assert_eq!(missing, Damage { path: path.clone(), found: None, expected });
        fs::create_dir(&path).unwrap();
        assert!(matches!(damage(), Err(Error::Read { .. })), "its content is unknown");
    }

    #[test]
    fn the_error_names_a_file_that_cannot_be_read() {
        let folder = folder();
        for (failing, name) in [Manifest::NAME, "a", "b"].into_iter().enumerate() {
            let read = || Manifest::read_verified(folder.path(), ["a", "b"]);
            let (result, _) = disk::record(move |call, _| call == failing, read);
            let error = result.unwrap_err();
            assert!(
                matches!(&error, Error::Read { path, source } if *path == folder.path().join(name)
                    && source.kind() == io::ErrorKind::PermissionDenied),
                "{error}"
            );
        }
    }
}
