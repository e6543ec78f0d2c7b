//! Folders of parquet files in the layouts of the Hub, and malformed files. Each error names the file, and the row where one
//! is wrong.

use std::fs;
use std::path::Path;

use ddpm_data::parquet::{Writer, metadata_value};
use ddpm_data::{Error, Splits, idx};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::ParquetMetaDataReader;
use tempfile::TempDir;

use crate::alloc::largest_allocation;
use crate::check_causes;
use crate::hub::parquet_file::{Cells, Row, empty_file, file, file_of, grey, grey_as_rgb, jpeg};

const FILE: &str = "data/train-00000-of-00001.parquet";

/// A folder with these files.
fn folder(files: &[(&str, Vec<u8>)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}

fn load(files: &[(&str, Vec<u8>)]) -> Result<Splits, Error> {
    Splits::from_folder(folder(files).path())
}

/// The error of loading a data set with this file as training set.
fn error(bytes: Vec<u8>) -> Error {
    let error = load(&[(FILE, bytes)]).unwrap_err();
    assert!(error.to_string().contains(FILE), "{error}");
    check_causes(&error);
    error
}

/// Images of 1×2 with this grey level and 0, and the labels 0, 1, …
fn levels(levels: &[u8]) -> Vec<u8> {
    let rows =
        levels.iter().zip(0..).map(|(&level, label)| -> Row { (Some(grey(1, 2, &[level, 0])), Some(label)) });
    file(&rows.collect::<Vec<_>>())
}

#[test]
fn a_written_file_is_read_again() {
    let pixels: Vec<u8> = (0..5 * 12).collect();
    for labels in [Some([3, 0, 255, 1, 0]), None] {
        let mut bytes = Vec::new();
        let metadata = [("made by".to_owned(), "a test".to_owned())];
        let mut writer =
            Writer::new(Path::new(FILE), &mut bytes, [3, 4], labels.map(|_| 256), metadata).unwrap();
        // Two row groups.
        for images in [0..2, 2..5] {
            let labels = labels.as_ref().map_or(&[][..], |labels| &labels[images.clone()]);
            writer.append(&pixels[images.start * 12..images.end * 12], labels).unwrap();
        }
        writer.finish().unwrap();
        let set = ddpm_data::parquet::parse(Path::new(FILE), bytes.clone()).unwrap();
        assert_eq!((set.images(), set.rows(), set.cols()), (&pixels[..], 3, 4));
        assert_eq!(set.labels(), labels.as_ref().map(|labels| &labels[..]));
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&bytes::Bytes::from(bytes)).unwrap();
        let file = metadata.file_metadata();
        let names = file.schema_descr().columns().iter().map(|column| column.path().string());
        let names: Vec<String> = names.collect();
        assert_eq!(names, ["image.bytes", "image.path", "label"][..if labels.is_some() { 3 } else { 2 }]);
        let keys = file.key_value_metadata().unwrap();
        let value = |key: &str| keys.iter().find(|found| found.key == key).unwrap().value.clone().unwrap();
        assert_eq!(value("made by"), "a test");
        assert!(value("huggingface").starts_with(r#"{"info":{"features":{"image":{"_type":"Image"}"#));
        assert_eq!(value("huggingface").contains(r#""255"]"#), labels.is_some());
    }
    let folder = folder(&[(FILE, levels(&[1]))]);
    assert_eq!(metadata_value(&folder.path().join(FILE), "made by").unwrap(), None);
    let mut writer = Writer::new(Path::new(FILE), Vec::new(), [3, 4], Some(1), []).unwrap();
    let error = writer.append(&pixels, &[0]).unwrap_err().to_string();
    assert_eq!(error, "number of labels is 1, expected 5");
    let mut none: [u8; 0] = [];
    let full = Writer::new(Path::new(FILE), &mut none[..], [3, 4], None, []);
    let error = full.and_then(|mut writer| writer.append(&pixels, &[]).and_then(|()| writer.finish()));
    let error = error.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot write {FILE} as a parquet file"));
    check_causes(&error);
}

#[test]
fn the_parts_of_a_split_are_read_in_order() {
    for [first, second, test] in [
        [
            "data/train-00000-of-00002.parquet",
            "data/train-00001-of-00002.parquet",
            "data/test-00000-of-00001.parquet",
        ],
        ["digits/train/0000.parquet", "digits/train/0001.parquet", "digits/test/0000.parquet"],
    ] {
        let splits = load(&[(first, levels(&[1, 2])), (second, levels(&[3])), (test, levels(&[4]))]).unwrap();
        assert_eq!(splits.train().images(), [1, 0, 2, 0, 3, 0]);
        assert_eq!(splits.train().labels(), Some([0, 1, 0].as_slice()));
        assert_eq!(splits.test().unwrap().images(), [4, 0]);
        assert_eq!(splits.notes(), [""; 0]);
    }
    let error = load(&[("train-00001-of-00002.parquet", levels(&[1]))]).unwrap_err();
    assert!(matches!(error, Error::Parts { split: "train", found: 1, expected: 2, .. }), "{error}");
}

#[test]
fn a_validation_set_stands_in_for_a_missing_test_set() {
    let files = [
        ("train.parquet", levels(&[1])),
        ("validation.parquet", levels(&[2])),
        ("test.parquet", levels(&[3])),
    ];
    assert_eq!(load(&files).unwrap().test().unwrap().images(), [3, 0]);
    let splits = load(&files[..2]).unwrap();
    assert_eq!(splits.test().unwrap().images(), [2, 0]);
    assert!(splits.test().unwrap().name().ends_with("/validation"), "{}", splits.test().unwrap().name());
}

#[test]
fn one_of_several_configurations_is_chosen_by_its_folder() {
    let files = [("a/train/0000.parquet", levels(&[1])), ("b_train.parquet", levels(&[2]))];
    let folder = folder(&files);
    let error = Splits::from_folder(folder.path()).unwrap_err();
    let Error::Ambiguous { candidates, .. } = &error else { panic!("{error}") };
    for (path, level) in std::iter::zip(candidates, [1, 2]) {
        assert_eq!(Splits::from_folder(path.as_ref()).unwrap().train().images(), [level, 0]);
    }
    let splits = Splits::from_folder(&folder.path().join("b_train.parquet")).unwrap();
    assert_eq!((splits.name(), splits.train().images()), ("b", [2, 0].as_slice()));
    fs::write(folder.path().join("digits.parquet"), levels(&[7])).unwrap();
    let splits = Splits::from_folder(&folder.path().join("digits.parquet")).unwrap();
    assert_eq!(splits.train().images(), [7, 0]);
}

#[test]
fn every_compression_and_every_form_of_an_image_is_read() {
    let pixels = [7, 99, 200, 255];
    let image = grey(2, 2, &pixels);
    let codecs = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::ZSTD(ZstdLevel::default()),
        Compression::LZ4_RAW,
    ];
    for compression in codecs {
        for (schema, integers_of_32_bits) in [
            ("message m { required binary image; required int32 label; }", true),
            ("message m { optional group image { optional binary bytes; } optional int64 label; }", false),
            ("message m { optional binary img; optional int64 label; optional binary name (UTF8); }", false),
            (
                "message m { optional group picture { optional binary bytes; } optional int32 label; optional binary x; }",
                true,
            ),
        ] {
            let labels = match integers_of_32_bits {
                true => Cells::Int32(vec![Some(0), Some(2), Some(1)]),
                false => Cells::Int64(vec![Some(0), Some(2), Some(1)]),
            };
            let others = Cells::Bytes(vec![None; 3]);
            let columns = [Cells::Bytes(vec![Some(image.clone()); 3]), labels, others];
            let columns =
                if schema.contains("name") || schema.contains(" x;") { &columns } else { &columns[..2] };
            let splits = load(&[(FILE, file_of(schema, compression, columns))]).unwrap();
            assert_eq!(splits.train().images(), pixels.repeat(3), "{schema}");
            assert_eq!(splits.train().labels(), Some([0, 2, 1].as_slice()), "{schema}");
        }
    }
}

#[test]
fn jpeg_and_colours_are_converted_to_grey() {
    let rows: [Row; 2] =
        [(Some(jpeg(8, 8, &[100; 64])), Some(0)), (Some(grey_as_rgb(8, 8, &[50; 64])), Some(1))];
    let splits = load(&[(FILE, file(&rows))]).unwrap();
    assert_eq!(splits.train().images(), [[100; 64], [50; 64]].concat());
}

#[test]
fn labels_are_in_a_column_of_another_name() {
    for (name, note) in [("label", None), ("Digit", Some("Digit")), ("coarse_label", Some("coarse_label"))] {
        let schema =
            format!("message m {{ required binary image; required int64 id; required int64 {name}; }}");
        let image = Some(grey(1, 1, &[3]));
        let columns = [Cells::Bytes(vec![image]), Cells::Int64(vec![Some(900)]), Cells::Int64(vec![Some(0)])];
        let splits = load(&[(FILE, file_of(&schema, Compression::SNAPPY, &columns))]).unwrap();
        assert_eq!(splits.train().labels(), Some([0].as_slice()), "{name}");
        assert_eq!(splits.notes().len(), usize::from(note.is_some()));
        assert!(splits.notes().iter().all(|text| text.contains(note.unwrap())), "{:?}", splits.notes());
    }
    let both = "message m { optional binary image; optional int64 fine_label; optional int64 coarse_label; }";
    let error = error(empty_file(both));
    assert!(
        matches!(&error, Error::SeveralLabels { columns, .. } if columns == &["fine_label", "coarse_label"]),
        "{error}"
    );
    let none = "message m { required binary image; required int64 id; required int64 width; }";
    let columns = [
        Cells::Bytes(vec![Some(grey(1, 1, &[3]))]),
        Cells::Int64(vec![Some(1)]),
        Cells::Int64(vec![Some(1)]),
    ];
    let splits = load(&[(FILE, file_of(none, Compression::SNAPPY, &columns))]).unwrap();
    assert_eq!(splits.train().labels(), None);
    assert!(splits.notes()[0].contains("no column has a name for labels, such as `label`: image, id, width"));
}

#[test]
fn images_without_a_label_are_left_out() {
    let row = |level, label| -> Row { (Some(grey(1, 1, &[level])), label) };
    let rows = [row(1, Some(-1)), row(2, Some(1)), row(3, None), row(4, Some(0))];
    let splits = load(&[(FILE, file(&rows))]).unwrap();
    assert_eq!((splits.train().images(), splits.train().labels()), (&[2, 4][..], Some(&[1, 0][..])));
    assert!(splits.notes()[0].contains("2 of 4 images are left out"), "{:?}", splits.notes());
    let test = file(&[row(5, Some(-1)), row(6, Some(-1))]);
    let splits = load(&[(FILE, file(&rows)), ("data/test-00000-of-00001.parquet", test)]).unwrap();
    let test = splits.test().unwrap();
    assert_eq!((test.images(), test.labels()), (&[5, 6][..], None));
}

#[test]
fn idx_files_take_precedence() {
    let images = idx::encode_images(1, 1, &[9]).unwrap();
    let splits = load(&[("train-images-idx3-ubyte", images), ("train.parquet", levels(&[1]))]).unwrap();
    assert_eq!(splits.train().images(), [9]);
}

#[test]
fn a_file_of_another_kind_is_named() {
    for (bytes, found) in [
        (&b"version https://git-lfs.github.com/spec/v1\noid"[..], "a Git LFS pointer"),
        (b"<!DOCTYPE html>", "an HTML page"),
        (b"not a parquet file", "text that begins with \"not a parquet file\""),
        (b"", "empty"),
    ] {
        let error = error(bytes.to_vec());
        assert!(
            matches!(&error, Error::NotParquet { found: text, .. } if text.starts_with(found)),
            "{error}"
        );
    }
}

#[test]
fn a_column_that_begins_outside_the_file_is_an_error() {
    let bytes = levels(&[1, 2, 3]);
    let error = error(damaged_offsets(bytes));
    let Error::Parquet { source, .. } = &error else { panic!("{error}") };
    assert!(source.to_string().contains("at byte -"), "{source}");
}

/// A file whose first offset in the metadata is negative.
fn damaged_offsets(mut bytes: Vec<u8>) -> Vec<u8> {
    let metadata =
        bytes.len() - 8 - u32::from_le_bytes(bytes[bytes.len() - 8..][..4].try_into().unwrap()) as usize;
    // The first column chunk begins after the magic number: the field 2 or 3 of a chunk with the zigzag encoding of 4.
    let at = (metadata..bytes.len()).find(|&at| bytes[at..].starts_with(&[0x26, 0x08])).unwrap();
    bytes[at + 1] = 0x07;
    bytes
}

/// Whatever is damaged, there is an error or a data set of the right size, no panic, and no memory for what the file
/// only claims.
#[test]
fn every_flipped_bit_is_an_error_or_keeps_the_size() {
    let bytes = levels(&[1, 2]);
    let folder = folder(&[]);
    let path = folder.path().join("train.parquet");
    let mut survived = 0;
    for bit in 0..8 * bytes.len() {
        let mut damaged = bytes.clone();
        damaged[bit.div_euclid(8)] ^= 1 << bit.rem_euclid(8);
        fs::write(&path, damaged).unwrap();
        let (found, largest) = largest_allocation(|| Splits::from_folder(folder.path()));
        assert!(largest < 80 << 20, "bit {bit}: {largest} bytes");
        if let Ok(splits) = found {
            survived += 1;
            assert_eq!((splits.train().rows(), splits.train().cols()), (1, 2), "bit {bit}");
        }
    }
    assert!(survived > 0);
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = levels(&[1, 2]);
    let folder = folder(&[]);
    for len in 0..bytes.len() {
        fs::write(folder.path().join("train.parquet"), &bytes[..len]).unwrap();
        let error = Splits::from_folder(folder.path()).unwrap_err();
        assert!(error.to_string().contains("train.parquet"), "{len}: {error}");
    }
}

fn rows(count: usize) -> Vec<Row> {
    (0..count).map(|_| (Some(grey(2, 2, &[1, 2, 3, 4])), Some(1))).collect()
}

#[test]
fn damaged_parquet_file() {
    let mut bytes = file(&rows(4));
    // The header of the first page, after the magic number.
    bytes[4..20].fill(0xff);
    assert!(matches!(error(bytes), Error::Parquet { .. }));
}

#[test]
fn no_rows() {
    assert!(matches!(error(file(&[])), Error::Empty { .. }));
}

#[test]
fn missing_image_column() {
    let error = error(empty_file("message schema { optional int64 label; optional int32 pixel0; }"));
    assert!(
        matches!(&error, Error::NoColumn { column, columns, .. } if column == "image" && columns == &["label", "pixel0"]),
        "{error}"
    );
    assert!(error.to_string().ends_with("has no column image; its columns are label, pixel0"), "{error}");
}

#[test]
fn image_column_of_another_type() {
    let schema = "message schema { optional group image { optional int32 bytes; } }";
    let error = error(empty_file(schema));
    assert!(
        matches!(&error, Error::Column { column, found, .. } if column == "image.bytes" && found == "INT32"),
        "{error}"
    );
}

#[test]
fn label_column_of_another_type() {
    for (label, expected) in
        [("optional binary label", "BYTE_ARRAY"), ("repeated int64 label", "a list of INT64")]
    {
        let schema =
            format!("message schema {{ optional group image {{ optional binary bytes; }} {label}; }}");
        let error = error(empty_file(&schema));
        assert!(
            matches!(&error, Error::Column { column, found, .. } if column == "label" && found == expected),
            "{error}"
        );
    }
}

#[test]
fn null_image() {
    let mut rows = rows(5);
    rows[3].0 = None;
    assert!(matches!(error(file(&rows)), Error::Null { row: 3, .. }));
}

#[test]
fn image_of_another_format() {
    let mut rows = rows(5);
    rows[3].0 = Some(b"GIF89a".to_vec());
    let error = error(file(&rows));
    assert!(matches!(error, Error::Image { row: 3, .. }));
    assert!(error.to_string().contains("row 3"), "{error}");
}

#[test]
fn image_of_another_size() {
    let mut rows = rows(5);
    rows[4].0 = Some(grey(2, 3, &[0; 6]));
    let error = error(file(&rows));
    assert!(matches!(error, Error::ImageSize { row: 4, found: [2, 3], .. }));
    assert!(error.to_string().contains("row 4 is 2x3, expected 2x2"), "{error}");
}

#[test]
fn label_out_of_range() {
    for label in [-2, 256, i64::MAX] {
        let mut rows = rows(3);
        rows[2].1 = Some(label);
        let error = error(file(&rows));
        assert!(matches!(error, Error::LabelOutOfRange { index: 2, label: l, .. } if l == label), "{error}");
    }
}

#[test]
fn image_above_the_size_limit() {
    let mut rows = rows(1);
    rows[0].0 = Some(grey(1, 5000, &[0; 5000]));
    assert!(matches!(error(file(&rows)), Error::Image { row: 0, .. }));
}

/// A PNG whose header claims 60,000 × 60,000 pixels.
#[test]
fn an_image_bomb_is_refused_from_its_header() {
    let mut bomb = grey(1, 1, &[0]);
    for at in [16, 20] {
        bomb[at..at + 4].copy_from_slice(&60_000_u32.to_be_bytes());
    }
    // The header, from its type on, and its checksum.
    let mut checksum = flate2::Crc::new();
    checksum.update(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&checksum.sum().to_be_bytes());
    let (bytes, started) = (file(&[(Some(bomb), Some(0))]), std::time::Instant::now());
    let (error, largest) = largest_allocation(|| error(bytes));
    let Error::Image { row: 0, source, .. } = &error else { panic!("{error}") };
    assert!(largest < 1 << 20, "{largest} bytes: {source}");
    println!(
        "torture | image bomb | a PNG of 60,000 × 60,000 pixels in a parquet file | refused in {:.3} s, largest block of \
         memory {} kB",
        started.elapsed().as_secs_f64(),
        largest >> 10
    );
}
