//! The built-in model.

use std::fs;

use tempfile::tempdir;

use crate::{json, names, run, stdout};

#[test]
fn sample_without_options_generates_five_images_of_each_digit() {
    let folder = tempdir().unwrap();
    let result = json(folder.path(), &["sample"]);
    assert_eq!(names(folder.path()), ["samples.png"]);
    assert_eq!((&result["images"], &result["model"]), (&50.into(), &"built-in".into()));
    let picture = image::open(folder.path().join("samples.png")).unwrap();
    let expected = (2 * 12 + 10 * 84 + 9 * 4, 2 * 12 + 28 + 5 * 84 + 4 * 4);
    assert_eq!((picture.width(), picture.height()), expected);
}

#[test]
fn info_describes_it() {
    let folder = tempdir().unwrap();
    let info = json(folder.path(), &["info"]);
    let denoiser = &info["denoiser"];
    assert_eq!((&denoiser["rows"], &denoiser["cols"]), (&28.into(), &28.into()));
    assert_eq!((&denoiser["num_classes"], &info["model"]), (&10.into(), &"built-in".into()));
    assert_eq!((&info["version"], &info["device"]), (&env!("CARGO_PKG_VERSION").into(), &"cpu".into()));
    let text = stdout(&run(folder.path(), &["info"]));
    for part in ["28×28 pixels, 10 classes", "patch-mlp: patches of 4×4 pixels", "β from 0.001 to 0.7"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains('{') && text.lines().count() == 7, "{text}");
}

/// Measured with the built-in feature net.
#[test]
fn its_images_are_of_the_requested_class() {
    let folder = tempdir().unwrap();
    let result = json(folder.path(), &["eval", "--num-images", "100", "--metrics", "accuracy"]);
    let accuracy = |key: &str| result[key].as_f64().unwrap();
    assert!(accuracy("class_accuracy") > 0.85, "{result}");
    assert!(accuracy("real_accuracy") > 0.95, "{result}");
}

/// A drawing of a one, with little and with much noise.
#[test]
fn a_smaller_strength_keeps_more_of_a_drawing() {
    let folder = tempdir().unwrap();
    let drawing = image::GrayImage::from_fn(28, 28, |x, y| {
        image::Luma([if (13..16).contains(&x) && (5..23).contains(&y) { 255 } else { 0 }])
    });
    drawing.save(folder.path().join("drawing.png")).unwrap();
    let distances = ["0.2", "0.5", "1"].map(|strength| {
        let from = ["sample", "-q", "--from", "drawing.png", "--strength", strength];
        run(folder.path(), &[&from[..], &["-n", "10", "--format", "idx", "-o", "varied"]].concat());
        let images = fs::read(folder.path().join("varied-images-idx3-ubyte")).unwrap();
        let off = |image: &[u8]| {
            let squares =
                std::iter::zip(image, drawing.as_raw()).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
            squares.sum::<f64>().sqrt()
        };
        images[16..].chunks(784).map(off).sum::<f64>()
    });
    assert!(distances.is_sorted_by(|near, far| 1.3 * near < *far), "{distances:?}");
}
