//! Every format that `sample` writes can be read and has the expected content.

use std::{fs, io::Cursor, path::Path};

use ddpm_data::idx::{read_images, read_labels};
use image::{AnimationDecoder, GrayImage, codecs::gif::GifDecoder};
use safetensors::{Dtype, SafeTensors, serialize};

use crate::{CLASSES, SIDE, json, names, run, with_model};

/// Side of a tile in pixels: 8 times 11, the factor that comes closest to 84.
const TILE: u32 = 88;

fn grey(path: &Path) -> GrayImage {
    let picture = image::open(path).unwrap();
    assert_eq!(picture.color(), image::ColorType::L8);
    picture.into_luma8()
}

/// The 24 lines above a column, which hold its label.
fn label_of(picture: &GrayImage, column: u32) -> Vec<u8> {
    let strip = image::imageops::crop_imm(picture, 12 + column * (TILE + 4), 12, TILE, 24);
    strip.to_image().into_raw()
}

#[test]
fn a_png_is_a_grid_with_a_label_above_each_class() {
    let folder = with_model();
    run(folder.path(), &["sample", "--model", "model", "--per-class", "2", "-o", "grid.png"]);
    let picture = grey(&folder.path().join("grid.png"));
    assert_eq!(picture.dimensions(), (24 + 3 * TILE + 2 * 4, 24 + 28 + 2 * TILE + 4));
    let labels = [0, 1, 2].map(|column| label_of(&picture, column));
    for label in &labels {
        let ink = label.iter().filter(|&&level| level < 128).count();
        assert!((20..500).contains(&ink), "{ink} dark pixels");
    }
    assert!(labels[0] != labels[1] && labels[1] != labels[2] && labels[0] != labels[2]);
}

#[test]
fn a_png_has_a_column_for_each_requested_class() {
    let folder = with_model();
    let all = ["sample", "--model", "model", "--per-class", "1", "-o", "all.png"];
    run(folder.path(), &all);
    run(
        folder.path(),
        &["sample", "--model", "model", "--classes", "2,0", "--per-class", "1", "-o", "two.png"],
    );
    let (all, two) = (grey(&folder.path().join("all.png")), grey(&folder.path().join("two.png")));
    assert_eq!(two.width(), 24 + 2 * TILE + 4);
    assert!(label_of(&two, 0) == label_of(&all, 2) && label_of(&two, 1) == label_of(&all, 0));
}

#[test]
fn idx_files_hold_all_images_and_their_classes() {
    let folder = with_model();
    let result =
        json(folder.path(), &["sample", "--model", "model", "-n", "7", "--format", "idx", "-o", "out/train"]);
    let expected = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "train-recipe.json"];
    assert_eq!(names(&folder.path().join("out")), expected);
    assert_eq!(result["files"][0], "out/train-images-idx3-ubyte");
    let images = read_images(&folder.path().join("out/train-images-idx3-ubyte")).unwrap();
    assert_eq!((images.count(), images.rows(), images.cols()), (7, SIDE, SIDE));
    let labels = read_labels(&folder.path().join("out/train-labels-idx1-ubyte")).unwrap();
    assert_eq!(labels.values, [0, 1, 2, 0, 1, 2, 0], "with -n, the classes alternate");
}

#[test]
fn idx_files_are_a_data_set_again() {
    let folder = with_model();
    run(
        folder.path(),
        &["sample", "--model", "model", "--per-class", "4", "--format", "idx", "-o", "synthetic/train"],
    );
    let data = json(folder.path(), &["data", "--data", "synthetic"]);
    assert_eq!((&data["train"], &data["classes"]), (&(4 * CLASSES).into(), &CLASSES.into()));
}

#[test]
fn safetensors_hold_the_images_and_classes_of_the_idx_files() {
    let folder = with_model();
    for (format, out) in [("safetensors", "all.safetensors"), ("idx", "all")] {
        run(
            folder.path(),
            &["sample", "--model", "model", "--per-class", "2", "--format", format, "-o", out],
        );
    }
    let bytes = fs::read(folder.path().join("all.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (images, labels) = (file.tensor("images").unwrap(), file.tensor("labels").unwrap());
    assert_eq!((images.dtype(), images.shape()), (Dtype::U8, [6, SIDE, SIDE].as_slice()));
    assert_eq!((labels.dtype(), labels.shape()), (Dtype::U8, [6].as_slice()));
    let idx = read_images(&folder.path().join("all-images-idx3-ubyte")).unwrap();
    assert_eq!(images.data(), idx.pixels());
    assert_eq!(labels.data(), [0, 0, 1, 1, 2, 2], "with --per-class, the classes follow each other");
    let metadata = SafeTensors::read_metadata(&bytes).unwrap().1.metadata().clone();
    assert!(
        bytes == serialize([("images", images), ("labels", labels)], metadata).unwrap(),
        "the same bytes as the library writes"
    );
}

#[test]
fn a_gif_shows_every_step_and_ends_with_the_images() {
    let folder = with_model();
    for (format, out) in [("gif", "steps.gif"), ("png", "end.png")] {
        run(
            folder.path(),
            &["sample", "--model", "model", "--per-class", "1", "--format", format, "-o", out],
        );
    }
    let bytes = fs::read(folder.path().join("steps.gif")).unwrap();
    let frames = GifDecoder::new(Cursor::new(bytes)).unwrap().into_frames().collect_frames().unwrap();
    assert!((20..=21).contains(&frames.len()), "{} frames of 20 steps", frames.len());
    let last = image::DynamicImage::from(frames.last().unwrap().buffer().clone()).into_luma8();
    let png = grey(&folder.path().join("end.png"));
    // The same first image, enlarged 7 and 11 times, in 16 and in 256 grey levels.
    for (x, y) in (0..8).flat_map(|x| (0..8).map(move |y| (x, y))) {
        let small = last.get_pixel(12 + 7 * x, 12 + 28 + 7 * y).0[0];
        let large = png.get_pixel(12 + 11 * x, 12 + 28 + 11 * y).0[0];
        assert!(small.abs_diff(large) <= 9, "at {x}, {y}: {small} and {large}");
    }
    assert!(frames[0].buffer() != frames.last().unwrap().buffer());
}

#[test]
fn without_an_output_name_the_file_is_called_samples() {
    let folder = with_model();
    for (format, name) in [
        ("png", "samples.png"),
        ("gif", "samples.gif"),
        ("safetensors", "samples.safetensors"),
        ("idx", "samples-images-idx3-ubyte"),
    ] {
        run(folder.path(), &["sample", "--model", "model", "-n", "1", "--format", format, "-q"]);
        assert!(folder.path().join(name).is_file(), "{name}");
    }
}

#[test]
fn the_data_command_writes_a_picture_of_each_class() {
    let folder = with_model();
    run(folder.path(), &["data", "--data", "data", "-o", "data.png"]);
    let picture = grey(&folder.path().join("data.png"));
    assert_eq!(picture.dimensions(), (24 + 3 * TILE + 2 * 4, 24 + 28 + 5 * TILE + 4 * 4));
    // The bar of class 1 is in the middle of the second column, and not in the first.
    let middle = |column: u32| picture.get_pixel(12 + column * (TILE + 4) + 44, 12 + 28 + 44).0[0];
    assert!(middle(1) >= 220 && middle(0) < 32);
}
