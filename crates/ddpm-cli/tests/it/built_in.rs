//! The built-in model.

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
