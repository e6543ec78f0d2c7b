//! A folder's files with their SHA-256, as a file in the same folder.

use std::{collections::BTreeMap, io, path::Path};

use crate::{Error, Result, disk, sha256_hex, write_atomic};

/// `manifest.json`: the SHA-256 of each file by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest(BTreeMap<String, String>);

impl Manifest {
    /// The manifest's own name in the folder.
    pub const NAME: &str = "manifest.json";

    /// Adds a file by its name and its SHA-256 in hexadecimal.
    pub fn insert(&mut self, name: &str, sha256: String) {
        self.0.insert(name.to_owned(), sha256);
    }

    /// Writes the manifest into `folder`.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(Self::NAME);
        let mut json = serde_json::to_vec_pretty(&self.0)
            .map_err(|source| Error::Write { path: path.clone(), source: source.into() })?;
        json.push(b'\n');
        write_atomic(&path, &json)
    }

    /// Reads files of `folder`, or returns `None` if one of them or the manifest is missing or damaged.
    ///
    /// # Errors
    ///
    /// If a file exists and cannot be read, which says nothing about its content.
    pub fn read_verified<const N: usize>(folder: &Path, names: [&str; N]) -> Result<Option<[Vec<u8>; N]>> {
        let Some(manifest) = read(&folder.join(Self::NAME))? else { return Ok(None) };
        let Ok(sums) = serde_json::from_slice::<BTreeMap<String, String>>(&manifest) else {
            return Ok(None);
        };
        let mut contents = [const { Vec::new() }; N];
        for (content, name) in contents.iter_mut().zip(names) {
            let Some(bytes) = read(&folder.join(name))? else { return Ok(None) };
            if sums.get(name).is_none_or(|sum| *sum != sha256_hex(&bytes)) {
                return Ok(None);
            }
            *content = bytes;
        }
        Ok(Some(contents))
    }
}

/// A file's content, or `None` if there is no such file.
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
        for name in ["a", "b"] {
            fs::write(folder.path().join(name), name).unwrap();
            manifest.insert(name, sha256_hex(name.as_bytes()));
        }
        manifest.write(folder.path()).unwrap();
        folder
    }

    #[test]
    fn files_are_read_if_they_match() {
        let folder = folder();
        let contents = Manifest::read_verified(folder.path(), ["b", "a"]).unwrap();
        assert_eq!(contents, Some([b"b".to_vec(), b"a".to_vec()]));
        let text = fs::read_to_string(folder.path().join(Manifest::NAME)).unwrap();
        assert!(text.starts_with("{\n  \"a\": \"ca978112ca1b") && text.ends_with("\"\n}\n"), "{text}");
    }

    #[test]
    fn a_missing_or_changed_file_is_damage() {
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
    fn a_file_that_cannot_be_read_is_an_error_with_its_name() {
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
