//! `.npy` and `.npz` files as containers: their headers, checksums and compression.

use std::io::{Cursor, Write};

use ddpm_data::{Error, formats};
use zip::{ZipWriter, write::SimpleFileOptions};

use super::{SIZE, error_of, fixture, grey, npy, sources, with_header};
use crate::alloc::largest_allocation;

/// An archive of files that are not compressed.
fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn valid() -> Vec<u8> {
    npy("|u1", "(3, 4, 5)", &grey())
}

#[test]
fn an_archive_needs_one_array_of_images() {
    let npz = zip(&[("a.npy", &valid()), ("notes.txt", b"text")]);
    assert_eq!(formats::parse("f".as_ref(), &npz, SIZE).unwrap().images(), grey());
    for files in [&[][..], &[("a.txt", b"text".as_slice())], &[("labels.npy", b"")]] {
        let error = error_of(&zip(files));
        assert!(matches!(error, Error::NotImages { .. }), "{error}");
    }
    let keras = ["x_test", "x_train", "y_test", "y_train"].map(|name| format!("{name}.npy"));
    let error = error_of(&zip(&keras.each_ref().map(|name| (name.as_str(), &[][..]))));
    assert!(
        error.to_string().contains("x_test, x_train, y_test, y_train; name one of them `images`"),
        "{error}"
    );
}

#[test]
fn every_flipped_bit_of_the_images_is_found_by_the_checksum() {
    for name in ["stored.npz", "compressed.npz"] {
        let bytes = std::fs::read(fixture(name)).unwrap();
        let whole = formats::parse(name.as_ref(), &bytes, SIZE).unwrap();
        let mut errors = 0;
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit.div_euclid(8)] ^= 1 << bit.rem_euclid(8);
            match formats::parse(name.as_ref(), &flipped, SIZE) {
                // The checksums do not cover names and times, so labels may be lost.
                Ok(set) => assert_eq!(set.images(), whole.images(), "{name}: bit {bit}"),
                Err(error) => {
                    assert!(error.to_string().contains(name), "{error}");
                    errors += 1;
                }
            }
        }
        assert!(errors > 1000, "{errors}");
    }
}

#[test]
fn every_truncation_is_an_error() {
    for name in ["stored.npz", "compressed.npz", "one.npy", "version-2.npy"] {
        let bytes = std::fs::read(fixture(name)).unwrap();
        for length in 0..bytes.len() {
            assert!(formats::parse(name.as_ref(), &bytes[..length], SIZE).is_err(), "{name}: {length}");
        }
    }
}

#[test]
fn the_checksum_and_other_methods_are_named() {
    let mut bytes = zip(&[("a.npy", &valid())]);
    let at = bytes.windows(60).position(|part| part == grey()).unwrap();
    bytes[at] ^= 1;
    let error = error_of(&bytes);
    assert!(matches!(error, Error::Npz { .. }), "{error}");
    assert_eq!(sources(&error), "the checksum of a.npy is wrong");
    // The method is in the local header and in the central directory.
    let mut bytes = zip(&[("a.npy", &valid())]);
    let directory = bytes.windows(4).position(|part| part == b"PK\x01\x02").unwrap();
    bytes[directory + 10] = 12;
    assert!(
        sources(&error_of(&bytes)).starts_with("a.npy is compressed with "),
        "{}",
        sources(&error_of(&bytes))
    );
    bytes[directory + 10] = 0;
    bytes[directory + 8] |= 1;
    assert_eq!(sources(&error_of(&bytes)), "a.npy is encrypted");
}

#[test]
fn the_same_name_twice_is_refused() {
    let mut bytes = zip(&[("a.npy", &valid()), ("b.npy", &valid())]);
    while let Some(at) = bytes.windows(5).position(|part| part == b"b.npy") {
        bytes[at] = b'a';
    }
    assert_eq!(sources(&error_of(&bytes)), "two of its files have the same name");
}

#[test]
fn a_zip_bomb_is_not_unpacked() {
    // 100 MiB of zeros after the array, compressed to 100 KiB.
    let content = [valid(), vec![0; 100 << 20]].concat();
    let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    deflate.write_all(&content).unwrap();
    let packed = deflate.finish().unwrap();
    let mut bytes = zip(&[("a.npy", &packed)]);
    for signature in [b"PK\x03\x04", b"PK\x01\x02"] {
        let at = bytes.windows(4).position(|part| part == signature).unwrap();
        bytes[at + if signature[2] == 3 { 8 } else { 10 }] = 8;
    }
    let (error, largest) = largest_allocation(|| formats::parse("bomb".as_ref(), &bytes, SIZE).unwrap_err());
    assert!(error.to_string().contains("a has more than 60 bytes, expected 60 bytes for"), "{error}");
    assert!(largest < 1 << 17, "{largest}");
}

#[test]
fn headers_that_numpy_does_not_write_are_named() {
    for (bytes, part) in [
        (b"\x93NUMPY".to_vec(), "has no header, expected an array as `numpy.save` writes it"),
        (b"\x93NUMPY\x04\x00\x00\x00".to_vec(), "the version 4 of its format, expected 1, 2 or 3"),
        (b"\x93NUMPY\x01\x00\x10".to_vec(), "an incomplete header"),
        (b"\x93NUMPY\x01\x00\x10\x00{'descr'".to_vec(), "an incomplete header"),
        (
            b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec(),
            "a header of 4294967295 bytes, expected at most 10000",
        ),
        (
            with_header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,)}", &[]),
            "the header {'descr'",
        ),
        (with_header("\u{e9}", &[]), "the header \u{e9}, expected a type, an order and a shape"),
        (
            npy("|u1", "(3, 4, 5)", &[9; 59]),
            "has 59 bytes, expected 60 bytes for its shape [3, 4, 5] and its type uint8",
        ),
        (npy("|u1", "(3, 4, 5)", &[9; 61]), "has more than 60 bytes, expected 60 bytes"),
    ] {
        let error = error_of(&bytes);
        assert!(matches!(error, Error::Array { .. }) && error.to_string().contains(part), "{error}");
        // The same array in an archive.
        let error = error_of(&zip(&[("images.npy", &bytes)]));
        assert!(
            error.to_string().contains(part) && error.to_string().contains("array images has"),
            "{error}"
        );
    }
}
