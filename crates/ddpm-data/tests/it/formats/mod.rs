//! Images in PNG, NumPy and safetensors files, one test for each way in which a file can be malformed.

mod arrays;
mod containers;
mod idx;
mod pngs;

use std::fs;
use std::path::{Path, PathBuf};

use ddpm_data::{Dataset, Error, formats};

use crate::check_causes;

/// The size of the images in `tests/fixtures/formats`.
const SIZE: [usize; 2] = [4, 5];

/// The images of `fixtures/generate/formats.py`.
fn grey() -> Vec<u8> {
    let level = |i: usize| 97 * i.div_euclid(20) + 31 * (i % 20).div_euclid(5) + 7 * (i % 5);
    (0..60).map(|i| u8::try_from(level(i) % 256).unwrap()).collect()
}

/// A file that Python wrote.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats").join(name)
}

/// The error of reading `bytes` from memory. It must name the file, and reading the same bytes from a file must give
/// the same error.
fn error_of(bytes: &[u8]) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("some-images");
    fs::write(&file, bytes).unwrap();
    let error = formats::parse(&file, bytes, SIZE).unwrap_err();
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
    check_causes(&error);
    let from_file = Dataset::from_path(&file, SIZE).unwrap_err();
    assert_eq!((from_file.to_string(), sources(&from_file)), (error.to_string(), sources(&error)));
    error
}

/// The text of the first cause.
fn sources(error: &Error) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

/// A file as `numpy.save` writes it.
fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    with_header(&format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n"), data)
}

fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
}

fn bytes_of<T: Copy, const N: usize>(numbers: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    numbers.iter().flat_map(|number| bytes(*number)).collect()
}
