//! SHA-256 in hexadecimal.

use std::fmt::Write;
#[cfg(feature = "hub")]
use std::io::{self, BufRead, BufReader};
#[cfg(feature = "hub")]
use std::path::Path;

use sha2::{Digest, Sha256};

/// SHA-256 of the concatenated `parts`, in lower-case hexadecimal.
pub(crate) fn sha256_hex(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    to_hex(hasher)
}

/// SHA-256 of a file, in lower-case hexadecimal.
#[cfg(feature = "hub")]
pub(crate) fn sha256_of_file(file: &Path) -> io::Result<String> {
    let mut input = BufReader::with_capacity(1 << 16, std::fs::File::open(file)?);
    let mut hasher = Sha256::new();
    loop {
        let chunk = input.fill_buf()?;
        if chunk.is_empty() {
            return Ok(to_hex(hasher));
        }
        hasher.update(chunk);
        let len = chunk.len();
        input.consume(len);
    }
}

fn to_hex(hasher: Sha256) -> String {
    let mut hex = String::with_capacity(64);
    for byte in hasher.finalize() {
        // Writing into a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_parts_is_the_digest_of_the_whole() {
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_hex(&[b"abc"]), abc);
        assert_eq!(sha256_hex(&[b"a", b"", b"bc"]), abc);
    }
}
