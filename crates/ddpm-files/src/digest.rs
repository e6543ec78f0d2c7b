//! SHA-256 digests in lower-case hexadecimal.

use std::{
    fmt::Write,
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use sha2::Digest;

use crate::{Error, Result};

/// Computes the SHA-256 of data that is added in pieces.
#[derive(Clone, Debug, Default)]
pub struct Sha256(sha2::Sha256);

impl Sha256 {
    /// Adds the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the digest of all pieces, as 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn into_hex(self) -> String {
        let mut hex = String::with_capacity(64);
        for byte in self.0.finalize() {
            // Writing into a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    }
}

/// Computes the SHA-256 of `bytes`, as 64 lower-case hexadecimal digits.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    let mut digest = Sha256::default();
    digest.update(bytes);
    digest.into_hex()
}

/// Computes the SHA-256 of a file, as 64 lower-case hexadecimal digits. It reads the file in pieces of 64 KiB.
///
/// # Errors
///
/// [`Error::Read`] if the file cannot be read.
pub fn sha256_of_file(path: &Path) -> Result<String> {
    let error = |source| Error::Read { path: path.to_owned(), source };
    let mut input = BufReader::with_capacity(1 << 16, File::open(path).map_err(error)?);
    let mut digest = Sha256::default();
    loop {
        let piece = input.fill_buf().map_err(error)?;
        if piece.is_empty() {
            return Ok(digest.into_hex());
        }
        digest.update(piece);
        let len = piece.len();
        input.consume(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_pieces_and_of_a_file_equal_the_digest_of_all_bytes() {
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_hex(b"abc"), abc);
        let mut digest = Sha256::default();
        for piece in ["a", "", "bc"] {
            digest.update(piece.as_bytes());
        }
        assert_eq!(digest.into_hex(), abc);
        let folder = tempfile::tempdir().unwrap();
        let (path, long) = (folder.path().join("file"), [7; 200_000]);
        std::fs::write(&path, long).unwrap();
        assert_eq!(sha256_of_file(&path).unwrap(), sha256_hex(&long));
        assert!(matches!(sha256_of_file(folder.path()), Err(Error::Read { .. })));
    }
}
