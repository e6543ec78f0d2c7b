//! IDX files, one test for each way in which a file can be malformed.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use ddpm_data::idx::{self, IdxKind, Images};
use ddpm_data::{Dataset, Error, Labels};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::alloc::largest_allocation;
use crate::check_causes;

/// A limit in bytes above the size of each test file, below the size that a false
/// header gives.
const SMALL: usize = 1 << 20;

pub(crate) fn header(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Two images of 2×3.
fn valid() -> Vec<u8> {
    idx::encode_images(2, 3, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]).unwrap()
}

/// The error of parsing `bytes` as images. It must name the file, and reading the
/// same bytes from a file must give the same error.
fn images_error(bytes: &[u8]) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("some-images");
    fs::write(&file, bytes).unwrap();
    let error = idx::parse_images(&file, bytes).unwrap_err();
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
    check_causes(&error);
    assert_eq!(idx::read_images(&file).unwrap_err().to_string(), error.to_string());
    error
}

#[test]
fn gzip_is_detected_by_content_and_not_by_file_name() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [("a", valid()), ("b.gz", valid()), ("c", gzip(&valid())), ("d.gz", gzip(&valid()))]
    {
        let file = folder.path().join(name);
        fs::write(&file, bytes).unwrap();
        let images = idx::read_images(&file).unwrap();
        assert_eq!((images.count(), images.rows(), images.cols()), (2, 2, 3), "{name}");
        assert_eq!(images.pixels(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(images.file(), file);
    }
    let labels = idx::encode_labels(&[3, 1, 4]).unwrap();
    for bytes in [labels.clone(), gzip(&labels)] {
        assert_eq!(idx::parse_labels(Path::new("l"), &bytes).unwrap().values, [3, 1, 4]);
    }
}

#[test]
fn encoded_bytes_follow_the_format() {
    assert_eq!(
        idx::encode_images(1, 2, &[9, 8]).unwrap(),
        [0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 9, 8]
    );
    assert_eq!(idx::encode_labels(&[7]).unwrap(), [0, 0, 8, 1, 0, 0, 0, 1, 7]);
}

#[test]
fn pixels_that_are_not_a_whole_number_of_images_are_refused() {
    for (rows, cols, pixels) in [(2, 2, 5), (0, 2, 0), (2, 0, 4), (usize::MAX, 2, 4)] {
        let error = idx::encode_images(rows, cols, &vec![0; pixels]).unwrap_err();
        assert!(matches!(error, Error::OutOfRange { .. }), "{error}");
        let text =
            format!("number of pixels is {pixels}, expected a multiple of {rows}x{cols}, neither of them 0");
        assert_eq!(error.to_string(), text);
        assert!(Images::new("x", rows, cols, vec![0; pixels]).is_err());
    }
}

#[test]
fn missing_file() {
    let file = PathBuf::from("no/such/file");
    for error in [idx::read_images(&file).unwrap_err(), idx::read_labels(&file).unwrap_err()] {
        assert!(matches!(error, Error::Read { .. }));
        assert_eq!(error.to_string(), "cannot read no/such/file");
    }
}

#[test]
fn unreadable_file() {
    let folder = tempfile::tempdir().unwrap();
    let error = idx::read_images(folder.path()).unwrap_err();
    assert!(matches!(error, Error::Read { .. }), "{error}");
    assert!(error.to_string().contains(folder.path().to_str().unwrap()), "{error}");
}

#[test]
fn a_file_of_another_kind_is_named() {
    for (bytes, found) in [
        (&b"<!DOCTYPE html>\n<html><head>"[..], "an HTML page, such as the answer to a failed download"),
        (b"\n<HTML>403 Forbidden", "an HTML page"),
        (b"<?xml version=\"1.0\"?><Error/>", "an XML document"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:",
            "a Git LFS pointer, not the file itself",
        ),
        (b"PK\x03\x04\x14\0\0\0", "a ZIP archive, which must be unpacked"),
        (b"\xfd7zXZ\0\0", "compressed with xz"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (b"PAR1\x15\x04", "a parquet file"),
        (b"\x93NUMPY\x01\0", "a NumPy array"),
        (b"%PDF-1.7 and some more text", "a PDF document"),
        (b"label,pixel0,pixel1\n5,0,0\n", "text that begins with \"label,pixel0,pixel1\\n5,0,\""),
        (b"\x1b[2J\x07bell", "text that begins with \"\\u{1b}[2J\\u{7}bell\""),
        (&[&[b'x'; 257][..], b"ustar"].concat(), "a tar archive"),
        (b"\0\0\x08\0\0\0\0\0", "of an unknown kind (it begins with the bytes 00 00 08 00)"),
        (&[0; 64], "of an unknown kind"),
    ] {
        let error = images_error(bytes);
        assert!(matches!(error, Error::NotIdx { expected: IdxKind::Images, .. }), "{error}");
        let expected = "expected an IDX file of images (unsigned bytes in 3 dimensions";
        for part in [&format!("some-images is {found}"), expected] {
            assert!(error.to_string().contains(part), "{error}");
        }
        let error = images_error(&gzip(bytes));
        assert!(error.to_string().contains(&format!("is a gzip file whose content is {found}")), "{error}");
    }
    let twice = images_error(&gzip(&gzip(&valid()))).to_string();
    assert!(twice.contains("is a gzip file whose content is compressed with gzip, expected"), "{twice}");
}

#[test]
fn idx_data_of_another_type_or_shape_is_named() {
    let rgb = [header(&[0x804, 2, 8, 8, 3]), vec![0; 384]].concat();
    for (bytes, found) in [
        (rgb, "IDX data of unsigned bytes in 4 dimensions (2×8×8×3)"),
        (header(&[0xc03, 1, 1, 1, 5]), "IDX data of 32-bit integers in 3 dimensions (1×1×1)"),
        (header(&[0xd03, 1, 1, 1, 5]), "IDX data of 32-bit floats in 3 dimensions (1×1×1)"),
        (header(&[0xe02, 1, 1, 5, 5]), "IDX data of 64-bit floats in 2 dimensions (1×1)"),
    ] {
        let error = images_error(&bytes);
        assert!(matches!(&error, Error::NotIdx { found: text, .. } if text == found), "{error}");
    }
    for labels in [header(&[0xd01, 1, 5]), header(&[0x802, 3, 0]), header(&[0x803, 1, 1, 1])] {
        assert!(idx::parse_labels(Path::new("l"), &labels).is_err());
    }
}

#[test]
fn labels_may_have_more_bits_and_more_columns() {
    let qmnist = [header(&[0xc02, 3, 8]), header(&[7; 8]), header(&[2; 8]), header(&[1; 8])].concat();
    let short = [header(&[0xb01, 2]), vec![0, 9, 0, 255]].concat();
    for (bytes, expected) in [
        (qmnist, &[7, 2, 1][..]),
        (short, &[9, 255]),
        ([header(&[0xc01, 2]), header(&[3, 4])].concat(), &[3, 4]),
        ([header(&[0x901, 1]), vec![5]].concat(), &[5]),
        ([header(&[0x802, 2, 2]), vec![6, 0, 8, 0]].concat(), &[6, 8]),
    ] {
        for bytes in [gzip(&bytes), bytes] {
            assert_eq!(idx::parse_labels(Path::new("l"), &bytes).unwrap().values, expected);
        }
    }
    for (value, label) in [(256, 256), (u32::MAX - 1, -2)] {
        let bytes = [header(&[0xc01, 2]), header(&[0, value])].concat();
        let error = idx::parse_labels(Path::new("l"), &bytes).unwrap_err();
        assert!(matches!(error, Error::LabelOutOfRange { index: 1, label: l, .. } if l == label), "{error}");
    }
}

#[test]
fn labels_where_images_are_expected() {
    let error = images_error(&idx::encode_labels(&[1, 2]).unwrap());
    assert!(matches!(error, Error::WrongKind { found: IdxKind::Labels, expected: IdxKind::Images, .. }));
    assert!(error.to_string().contains("holds labels"), "{error}");
}

#[test]
fn images_where_labels_are_expected() {
    let error = idx::parse_labels(Path::new("some-labels"), &gzip(&valid())).unwrap_err();
    assert!(matches!(error, Error::WrongKind { found: IdxKind::Images, expected: IdxKind::Labels, .. }));
    assert!(error.to_string().starts_with("some-labels: holds images"), "{error}");
}

#[test]
fn file_that_ends_inside_the_header() {
    for len in 0..16 {
        let error = images_error(&valid()[..len]);
        assert!(
            matches!(error, Error::ShortHeader { found, expected: 16, .. } if found == len as u64),
            "{error}"
        );
        let error = images_error(&gzip(&valid()[..len]));
        assert!(matches!(error, Error::ShortHeader { found, .. } if found == len as u64), "{error}");
    }
    let error = idx::parse_labels(Path::new("l"), &[0, 0, 8, 1, 0, 0]).unwrap_err();
    assert!(matches!(error, Error::ShortHeader { found: 6, expected: 8, .. }), "{error}");
}

#[test]
fn no_rows() {
    let error = images_error(&header(&[0x803, 1, 0, 28]));
    assert!(matches!(error, Error::ZeroSize { rows: 0, cols: 28, .. }), "{error}");
}

#[test]
fn no_columns() {
    let error = images_error(&header(&[0x803, 1, 28, 0]));
    assert!(matches!(error, Error::ZeroSize { rows: 28, cols: 0, .. }), "{error}");
}

#[test]
fn short_file() {
    let error = images_error(&valid()[..27]);
    assert!(matches!(error, Error::Short { found: 27, expected: 28, .. }), "{error}");
    let error = images_error(&gzip(&valid()[..27]));
    assert!(matches!(error, Error::Short { found: 27, expected: 28, .. }), "{error}");
}

#[test]
fn trailing_bytes() {
    let long = [valid(), vec![0; 5]].concat();
    let error = images_error(&long);
    assert!(matches!(error, Error::TrailingBytes { found: 33, expected: 28, .. }), "{error}");
    let error = images_error(&gzip(&long));
    assert!(matches!(error, Error::TrailingBytes { found: 29, expected: 28, .. }), "{error}");
}

#[test]
fn truncated_gzip() {
    let compressed = gzip(&valid());
    // The first two bytes stay, so that the reader detects gzip.
    for len in 2..compressed.len() {
        let error = images_error(&compressed[..len]);
        assert!(matches!(error, Error::Gzip { .. }), "{len}: {error}");
    }
}

#[test]
fn corrupt_gzip() {
    let mut bytes = gzip(&valid());
    let checksum = bytes.len() - 8;
    bytes[checksum] ^= 1;
    let error = images_error(&bytes);
    assert!(matches!(error, Error::Gzip { .. }), "{error}");
}

#[test]
fn bytes_after_gzip() {
    let error = images_error(&[gzip(&valid()), b"more".to_vec()].concat());
    assert!(matches!(error, Error::Gzip { .. }), "{error}");
}

#[test]
fn four_billion_images_are_not_allocated() {
    let claim = header(&[0x803, u32::MAX, 28, 28]);
    for bytes in [claim.clone(), gzip(&claim)] {
        let (error, largest) = largest_allocation(|| images_error(&bytes));
        assert!(matches!(error, Error::TooLarge { claimed: 3_367_254_359_296, .. }), "{error}");
        assert!(largest < SMALL, "{largest}");
    }
    let error = images_error(&header(&[0x803, u32::MAX, u32::MAX, u32::MAX]));
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

#[test]
fn a_claim_below_the_limit_is_not_allocated_either() {
    let claim = header(&[0x803, 2_000_000, 28, 28]);
    for bytes in [claim.clone(), gzip(&claim)] {
        let (error, largest) = largest_allocation(|| images_error(&bytes));
        assert!(matches!(error, Error::Short { found: 16, expected: 1_568_000_016, .. }), "{error}");
        assert!(largest < SMALL, "{largest}");
    }
}

#[test]
fn gzip_bomb_is_not_unpacked() {
    let bomb = gzip(&[header(&[0x803, 1, 2, 2]), vec![0; 100 << 20]].concat());
    let (error, largest) = largest_allocation(|| idx::parse_images(Path::new("bomb"), &bomb).unwrap_err());
    assert!(matches!(error, Error::TrailingBytes { found: 21, expected: 20, .. }), "{error}");
    assert!(error.to_string().starts_with("bomb: "), "{error}");
    assert!(largest < SMALL, "{largest}");
}

#[test]
fn empty_set() {
    let images = idx::parse_images(Path::new("none"), &header(&[0x803, 0, 28, 28])).unwrap();
    assert_eq!(images.count(), 0);
    let error = Dataset::new("set", images, None).unwrap_err();
    assert!(matches!(error, Error::Empty { .. }));
    assert_eq!(error.to_string(), "none: holds no images, expected at least one");
}

#[test]
fn count_mismatch_between_images_and_labels() {
    let images = idx::parse_images(Path::new("the-images"), &valid()).unwrap();
    let labels = Labels { file: "the-labels".into(), values: vec![0, 1, 2] };
    let error = Dataset::new("set", images, Some(labels)).unwrap_err();
    assert!(matches!(error, Error::CountMismatch { images: 2, labels: 3, .. }));
    assert_eq!(
        error.to_string(),
        "the-images holds 2 images, but the-labels holds 3 labels, expected one for each image"
    );
}

#[test]
fn label_out_of_range() {
    let images = idx::parse_images(Path::new("the-images"), &valid()).unwrap();
    let labels = Labels { file: "the-labels".into(), values: vec![9, 10] };
    let set = Dataset::new("set", images, Some(labels)).unwrap();
    assert_eq!(set.classes(), Some(11));
    let error = set.with_classes(10).unwrap_err();
    assert!(matches!(error, Error::LabelOutOfRange { index: 1, label: 10, max: 9, .. }));
    assert_eq!(error.to_string(), "the-labels: label 10 at index 1, expected 0 to 9");
}
