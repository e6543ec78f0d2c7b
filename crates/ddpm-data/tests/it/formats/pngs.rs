//! Folders of PNG images.

use std::fs;
use std::path::Path;

use ddpm_data::{Dataset, Error};
use image::GrayImage;
use tempfile::{TempDir, tempdir};

use super::{SIZE, fixture, grey};
use crate::check_causes;

/// Writes images of one grey level.
fn folder(files: &[(&str, u8)]) -> TempDir {
    let folder = tempdir().unwrap();
    for (path, level) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        GrayImage::from_pixel(5, 4, [*level].into()).save(&path).unwrap();
    }
    folder
}

/// The grey level of each image.
fn levels(set: &Dataset) -> Vec<u8> {
    set.images().chunks(20).map(|image| image[0]).collect()
}

fn error_of(folder: &Path) -> Error {
    let error = Dataset::from_path(folder, SIZE).unwrap_err();
    check_causes(&error);
    error
}

#[test]
fn every_kind_of_png_that_holds_grey_levels_is_read() {
    for name in ["grey.png", "rgb.png", "grey-alpha.png", "rgba.png", "palette.png", "1-bit.png"] {
        let folder = tempdir().unwrap();
        fs::copy(fixture(name), folder.path().join(name)).unwrap();
        let set = Dataset::from_path(folder.path(), SIZE).unwrap();
        let is_white = |i: usize| (i.div_euclid(5) + i % 5) % 2 == 1;
        let expected: Vec<u8> = match name {
            "1-bit.png" => (0..20).map(|i| if is_white(i) { 255 } else { 0 }).collect(),
            _ => grey()[..20].to_vec(),
        };
        assert_eq!(set.images(), expected, "{name}");
        assert!(set.notes().is_empty() && set.labels().is_none());
    }
}

#[test]
fn colours_transparency_and_more_bits_are_refused() {
    for (name, found) in [
        ("colour.png", "the colour [9, 9, 10] in row 2, column 3"),
        ("veiled.png", "the opacity 254 of 255 in row 1, column 4"),
        ("16-bit.png", "more than 8 bits for each grey level or colour"),
    ] {
        let folder = tempdir().unwrap();
        fs::copy(fixture(name), folder.path().join(name)).unwrap();
        let error = error_of(folder.path()).to_string();
        let expected = format!("{name}: the picture has {found}, expected grey levels of at most 8 bits");
        assert!(error.ends_with(&expected), "{error}");
    }
}

#[test]
fn a_flat_folder_is_in_the_order_of_names_and_has_no_labels() {
    let folder = folder(&[("b.png", 2), ("a.PNG", 1), ("c10.png", 3), ("c9.png", 4)]);
    fs::write(folder.path().join(".hidden.png"), "").unwrap();
    let set = Dataset::from_path(folder.path(), SIZE).unwrap();
    assert_eq!((levels(&set), set.labels()), (vec![1, 2, 3, 4], None));
    assert!(set.notes().is_empty());
    fs::write(folder.path().join("labels.csv"), "").unwrap();
    let set = Dataset::from_path(folder.path(), SIZE).unwrap();
    assert!(set.notes()[0].ends_with("not read, since only PNG images are: labels.csv"), "{:?}", set.notes());
}

#[test]
fn folders_that_are_named_by_numbers_are_classes() {
    let folder = folder(&[("10/a.png", 5), ("2/b.png", 4), ("2/a.png", 3), ("0/z.png", 1), ("0/y.png", 0)]);
    fs::create_dir(folder.path().join("7")).unwrap();
    fs::write(folder.path().join("2/Thumbs.db"), "").unwrap();
    let set = Dataset::from_path(folder.path(), SIZE).unwrap();
    assert_eq!(levels(&set), [0, 1, 3, 4, 5]);
    assert_eq!(set.labels(), Some([0, 0, 2, 2, 10].as_slice()));
    assert_eq!(set.notes().len(), 1);
    assert!(set.notes()[0].contains("Thumbs.db"), "{:?}", set.notes());
    let wide = self::folder(&[("00/a.png", 0), ("255/a.png", 9)]);
    assert_eq!(Dataset::from_path(wide.path(), SIZE).unwrap().labels(), Some([0, 255].as_slice()));
}

#[test]
fn folders_without_images_and_folders_of_other_content_are_refused() {
    let empty = tempdir().unwrap();
    let error = error_of(empty.path());
    assert!(
        matches!(error, Error::NoImages { .. }) && error.to_string().contains("but no files; expected PNG"),
        "{error}"
    );
    fs::write(empty.path().join("a.jpg"), "").unwrap();
    fs::create_dir(empty.path().join("cat")).unwrap();
    let error = error_of(empty.path()).to_string();
    assert!(error.contains("but cat/, a.jpg; expected"), "{error}");

    let mixed = folder(&[("a.png", 1), ("0/a.png", 2)]);
    let error = error_of(mixed.path());
    assert!(matches!(&error, Error::MixedFolder { below, .. } if below == "0"), "{error}");
    for other in ["cat", "256", "1x", "-1"] {
        let classes = folder(&[("0/a.png", 1), (&format!("{other}/a.png"), 2)]);
        let error = error_of(classes.path());
        assert!(matches!(&error, Error::ClassFolder { folder } if folder.ends_with(other)), "{error}");
    }
    // Folders of classes, all of them empty.
    let empty = tempdir().unwrap();
    fs::create_dir(empty.path().join("0")).unwrap();
    assert!(matches!(error_of(empty.path()), Error::Empty { .. }));
    let error = Dataset::from_path(&empty.path().join("nowhere"), SIZE).unwrap_err();
    assert!(matches!(&error, Error::Read { file, .. } if file.ends_with("nowhere")), "{error}");
}

/// A picture of all images, as `ddpm-cli sample` draws it.
#[test]
fn a_picture_of_another_size_is_refused_with_what_to_use() {
    let folder = folder(&[]);
    GrayImage::new(98, 46).save(folder.path().join("grid.png")).unwrap();
    let error = error_of(folder.path());
    assert!(matches!(error, Error::PictureSize { found: [46, 98], expected: SIZE, .. }));
    let text = error.to_string();
    assert!(
        text.contains("grid.png: the picture has 46x98 pixels, expected 4x5; a picture of many images"),
        "{text}"
    );
    assert!(text.ends_with("in an IDX, .npz or .safetensors file"), "{text}");
    // Also if the picture is named itself.
    let named = Dataset::from_path(&folder.path().join("grid.png"), SIZE).unwrap_err();
    assert_eq!(named.to_string(), text);
}

#[test]
fn a_picture_by_itself_is_one_image() {
    let set = Dataset::from_path(&fixture("grey.png"), SIZE).unwrap();
    assert_eq!((set.len(), set.labels(), set.image_size()), (1, None, 20));
    let folder = tempdir().unwrap();
    fs::copy(fixture("grey.png"), folder.path().join("a.png")).unwrap();
    assert_eq!(Dataset::from_path(folder.path(), SIZE).unwrap().images(), set.images());
}

#[test]
fn broken_and_disguised_pngs_are_named() {
    let bytes = fs::read(fixture("grey.png")).unwrap();
    for (content, cause) in [
        (&b""[..], "it is empty"),
        (b"\xff\xd8\xff\xe0", "it is a JPEG image"),
        (b"<html>", "it is an HTML page"),
        (&bytes[..40], ""),
        (&[&bytes[..30], &[0; 40][..]].concat(), ""),
    ] {
        let folder = tempdir().unwrap();
        fs::write(folder.path().join("x.png"), content).unwrap();
        let error = error_of(folder.path());
        assert!(matches!(&error, Error::Png { file, .. } if file.ends_with("x.png")), "{error}");
        assert!(super::sources(&error).starts_with(cause), "{}", super::sources(&error));
    }
}

#[test]
fn without_a_size_the_first_picture_gives_it() {
    let folder = folder(&[("0/b.png", 1), ("1/a.png", 2)]);
    let set = Dataset::from_path(folder.path(), None).unwrap();
    assert_eq!((set.rows(), set.cols(), set.labels()), (4, 5, Some([0, 1].as_slice())));
    GrayImage::new(4, 5).save(folder.path().join("1/b.png")).unwrap();
    let error = Dataset::from_path(folder.path(), None).unwrap_err();
    let is_other = matches!(&error, Error::PictureSize { file, found: [5, 4], expected: SIZE } if file.ends_with("b.png"));
    assert!(is_other, "{error}");
    let large = tempdir().unwrap();
    GrayImage::new(5000, 4000).save(large.path().join("a.png")).unwrap();
    let error = Dataset::from_path(large.path(), None).unwrap_err();
    assert!(matches!(error, Error::TooLarge { claimed: 20_000_000, .. }), "{error}");
}

/// A name that is no text is not silently left out.
#[cfg(target_os = "linux")]
#[test]
fn a_name_that_is_not_utf_8_is_noted() {
    use std::os::unix::ffi::OsStrExt;
    let folder = folder(&[("a.png", 1)]);
    let name = std::ffi::OsStr::from_bytes(b"b\xff.png");
    fs::copy(folder.path().join("a.png"), folder.path().join(name)).unwrap();
    let set = Dataset::from_path(folder.path(), SIZE).unwrap();
    assert_eq!(set.len(), 1);
    assert!(set.notes()[0].ends_with("are: b\u{fffd}.png"), "{:?}", set.notes());
}
