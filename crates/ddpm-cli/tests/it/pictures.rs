//! Pictures of `sample`: strips, interpolations, given images, and pictures on the terminal.

use std::{fs, path::Path};

use image::GrayImage;

use crate::{SIDE, fail, json, refusals::refused, run, stdout, with_model, with_unlabelled_model};

/// The number of pixels of a picture for one pixel of an image.
const SCALE: usize = 11;

/// The grey levels of an image in a picture with labels.
fn tile(folder: &Path, name: &str, [column, row]: [usize; 2]) -> Vec<u8> {
    let picture = image::open(folder.join(name)).unwrap().into_luma8();
    let (left, top) = (12 + column * (SIDE * SCALE + 4), 12 + 28 + row * (SIDE * SCALE + 4));
    let level = |x: usize, y: usize| {
        let at = |start: usize, place: usize| u32::try_from(start + place * SCALE).unwrap();
        picture.get_pixel(at(left, x), at(top, y)).0[0]
    };
    (0..SIDE * SIDE).map(|place| level(place.rem_euclid(SIDE), place.div_euclid(SIDE))).collect()
}

fn sample(folder: &Path, options: &[&str]) {
    run(folder, &[&["sample", "--model", "model", "-q"], options].concat());
}

/// Writes an image: a bright bar at the top.
fn write_image(folder: &Path, name: &str, level: impl Fn(usize) -> u8) -> Vec<u8> {
    let pixels: Vec<u8> = (0..SIDE * SIDE).map(level).collect();
    let side = u32::try_from(SIDE).unwrap();
    GrayImage::from_raw(side, side, pixels.clone()).unwrap().save(folder.join(name)).unwrap();
    pixels
}

fn distance(a: &[u8], b: &[u8]) -> f64 {
    std::iter::zip(a, b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn an_interpolation_leads_from_each_image_of_a_class_to_the_next() {
    let folder = with_model();
    let path = folder.path();
    sample(path, &["--per-class", "3", "-o", "grid.png"]);
    sample(path, &["--per-class", "3", "--interpolate", "3", "-o", "between.png"]);
    for class in 0..3 {
        let images = [0, 1, 2].map(|image| tile(path, "grid.png", [class, image]));
        for (image, pixels) in images.iter().enumerate() {
            assert_eq!(
                tile(path, "between.png", [4 * image, class]),
                *pixels,
                "class {class}, image {image}"
            );
        }
        // The images between are others, and neighbours are nearer to each other than the ends.
        let way = [0, 1, 2, 3, 4].map(|column| tile(path, "between.png", [column, class]));
        let ends = distance(&way[0], &way[4]);
        let steps = way.windows(2).map(|pair| distance(&pair[0], &pair[1]));
        assert!(steps.clone().all(|step| step > 0.0) && steps.sum::<f64>() < 4.0 * ends, "{class}");
    }
}

#[test]
fn strips_end_where_the_images_are() {
    let folder = with_model();
    let path = folder.path();
    sample(path, &["--per-class", "1", "-o", "grid.png"]);
    for (strip, column) in [("reverse", 11), ("predictions", 10), ("forward", 0)] {
        sample(path, &["--per-class", "1", "--strip", strip, "-o", "strip.png"]);
        for class in 0..3 {
            let image = tile(path, "grid.png", [class, 0]);
            assert_eq!(tile(path, "strip.png", [column, class]), image, "{strip}");
        }
    }
    // The end of the forward process is the noise from which the reverse process starts, but for 0.8 % of the image.
    let noise = tile(path, "strip.png", [11, 0]);
    sample(path, &["--per-class", "1", "--strip", "reverse", "-o", "strip.png"]);
    let start = tile(path, "strip.png", [0, 0]);
    assert!(std::iter::zip(&noise, &start).all(|(a, b)| a.abs_diff(*b) <= 3), "{noise:?} {start:?}");
    // More classes than fit in a band of columns are no obstacle, nor is a model without classes.
    let folder = with_unlabelled_model();
    sample(folder.path(), &["-n", "2", "--strip", "reverse", "-o", "strip.png"]);
}

#[test]
fn known_pixels_stay_and_the_others_are_painted() {
    let folder = with_model();
    let path = folder.path();
    let given = write_image(path, "given.png", |place| if place < 3 * SIDE { 230 } else { 20 });
    write_image(path, "mask.png", |place| if place % SIDE < 4 { 0 } else { 255 });
    for sampler in ["ddim", "dpmpp-2m-sde", "repaint"] {
        let options =
            ["--from", "given.png", "--mask", "mask.png", "--sampler", sampler, "-o", "painted.png"];
        sample(path, &[&options[..], &["--per-class", "2"]].concat());
        let before = tile(path, "painted.png", [0, 0]);
        for place in 0..SIDE * SIDE {
            let is_known = place % SIDE < 4;
            assert_eq!(
                before[place],
                if is_known { given[place] } else { 128 },
                "the given image stands first"
            );
        }
        for class in 1..=3 {
            let painted = tile(path, "painted.png", [class, 1]);
            let known = |pixels: &[u8]| {
                (0..SIDE * SIDE).filter(|place| place % SIDE < 4).map(|at| pixels[at]).collect::<Vec<_>>()
            };
            assert_eq!(known(&painted), known(&given), "{sampler}");
            assert_ne!(painted, given);
        }
    }
}

#[test]
fn a_given_image_is_part_of_the_recipe() {
    let folder = with_model();
    let path = folder.path();
    write_image(path, "given.png", |place| if place < 20 { 255 } else { 0 });
    let read = |name: &str| fs::read(path.join(name)).unwrap();
    for (number, options) in [
        &["--from", "given.png", "--mask", "given.png", "-n", "4"][..],
        &["--from", "given.png", "--strength", "0.5", "--interpolate", "2"],
        &["--strip", "predictions", "--steps", "7"],
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("{number}.png");
        sample(path, &[options, &["-o", &name]].concat());
        run(path, &["sample", "--like", &name, "-o", "again.png"]);
        assert!(read(&name) == read("again.png"), "{options:?}");
    }
    write_image(path, "given.png", |_| 0);
    let assert = run(path, &["sample", "--like", "0.png", "-o", "again.png"]);
    let warning = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(warning.contains("0.png was made with a file given.png of SHA-256"), "{warning}");
    assert_eq!(json(path, &["info", "0.png"])["files"].as_object().unwrap().len(), 1);
}

#[test]
fn given_images_and_layouts_that_do_not_fit_are_refused() {
    let folder = with_model();
    let path = folder.path();
    write_image(path, "given.png", |_| 9);
    run(path, &["sample", "--model", "model", "--format", "safetensors", "-o", "many.safetensors", "-q"]);
    sample(path, &["-o", "grid.png"]);
    let sample = |options: &[&'static str]| [&["sample", "--model", "model"], options].concat();
    for (options, parts) in [
        (
            &["--from", "given.png", "--strength", "0"][..],
            &["strength is 0, expected above 0 and at most 1"][..],
        ),
        (&["--from", "given.png", "--strength", "nan"], &["strength is NaN"]),
        (&["--from", "grid.png", "--strength", "0.5"], &["grid.png", "8x8"]),
        (
            &["--from", "many.safetensors", "--strength", "0.5"],
            &["many.safetensors has 15 images, expected one"],
        ),
        (&["--from", "data", "--strength", "0.5"], &["data is a folder, expected a file of one image"]),
        (&["--from", "none.png", "--strength", "0.5"], &["none.png"]),
        (&["--from", "given.png", "--mask", "grid.png"], &["grid.png", "8x8"]),
        (&["--interpolate", "2", "--per-class", "1"], &["--interpolate needs two images of a class"]),
        (&["--strip", "reverse", "-o", "a.gif"], &["draw a still picture, and the format is gif"]),
        (&["--strip", "reverse", "--per-class", "900"], &["2700 images do not fit in a picture"]),
    ] {
        refused(path, &sample(options), parts);
    }
    for options in [
        &["--from", "given.png"][..],
        &["--strength", "0.5"],
        &["--mask", "given.png"],
        &["--strip", "reverse", "--interpolate", "2"],
        &["--interpolate", "2", "-n", "4"],
        &["--show", "--json"],
    ] {
        fail(path, 2, &sample(options));
    }
}

#[test]
fn show_prints_the_picture_and_then_the_summary() {
    let folder = with_model();
    let show = ["sample", "--model", "model", "--per-class", "2", "--show"];
    let text = stdout(&run(folder.path(), &show));
    let lines: Vec<&str> = text.lines().collect();
    // A line of labels, four lines for each row of images, and one between two rows.
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["0", "1", "2"], "{text}");
    assert_eq!(lines.len(), 1 + 4 + 1 + 4 + 1, "{text}");
    assert!(lines[1].contains("\u{1b}[38;5;") && lines[10].starts_with("samples.png: 6 images"), "{text}");
    let mut plain = crate::ddpm(folder.path(), &show);
    let plain = stdout(&plain.env("NO_COLOR", "1").assert().success());
    assert!(!plain.contains('\u{1b}') && plain.contains(['░', '▒', '▓', '█']), "{plain}");
}
