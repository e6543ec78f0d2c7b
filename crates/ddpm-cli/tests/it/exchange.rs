//! `export` and `import`: every format and back, single parts, and what is refused.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
};

use ddpm_data::{
    Dataset,
    idx::{encode_images, encode_labels},
};
use safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};
use tempfile::{TempDir, tempdir};
use zip::ZipArchive;

use crate::{
    CLASSES, SIDE, TEST, TRAIN, fail, json, labels, names, pixels, run, with_model, write_data, write_split,
};

const FILES: [&str; 4] = [
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
];

fn data(labelled: bool) -> TempDir {
    let folder = tempdir().unwrap();
    write_data(folder.path(), labelled);
    folder
}

fn read(path: impl AsRef<Path>) -> Vec<u8> {
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// A file that Python wrote.
fn fixture(name: &str) -> String {
    format!("{}/../ddpm-data/tests/fixtures/formats/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Exports the data set, imports it again, and checks that the files are the same.
fn round_trip(labelled: bool, format: &str) {
    let folder = data(labelled);
    let folder = folder.path();
    let exported = json(folder, &["export", "--data", "data", "--to", format, "-o", "out"]);
    assert_eq!((&exported["train"], &exported["test"]), (&TRAIN.into(), &TEST.into()));
    let imported = json(folder, &["import", "out", "-o", "back"]);
    assert_eq!((&imported["train"], &imported["test"]), (&TRAIN.into(), &TEST.into()));
    assert_eq!(imported["has_labels"], labelled);
    assert_eq!(names(&folder.join("back")), names(&folder.join("data")), "{format}");
    for name in names(&folder.join("data")) {
        let (found, expected) =
            (read(folder.join("back").join(&name)), read(folder.join("data").join(&name)));
        if format == "png-folder" && labelled {
            // By class, and in each class in order.
            assert!(found == by_class(&name), "{name}");
        } else {
            assert!(found == expected, "{format}: {name}");
        }
    }
    run(folder, &["train", "--data", "back", "--epochs", "1", "--batch-size", "96", "-q"]);
}

/// A file of the data set, with the images sorted by class.
fn by_class(name: &str) -> Vec<u8> {
    let count = if name.starts_with("train") { TRAIN } else { TEST };
    let (pixels, labels) = (pixels(count), labels(count));
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|&image| labels[image]);
    let images = order.iter().flat_map(|&image| &pixels[image * SIDE * SIDE..(image + 1) * SIDE * SIDE]);
    if name.contains("images") {
        encode_images(SIDE, SIDE, &images.copied().collect::<Vec<_>>()).unwrap()
    } else {
        encode_labels(&order.iter().map(|&image| labels[image]).collect::<Vec<_>>()).unwrap()
    }
}

#[test]
fn every_format_leads_back_to_the_same_files() {
    for labelled in [true, false] {
        for format in ["npz", "safetensors", "idx", "png-folder"] {
            round_trip(labelled, format);
        }
    }
}

/// `data` reads the files of `idx`, and `eval --images` the others.
#[test]
fn exports_are_read_as_they_are() {
    let folder = with_model();
    let folder = folder.path();
    for (format, names) in [
        ("idx", &FILES[..]),
        ("npz", &["test.npz", "train.npz"]),
        ("safetensors", &["test.safetensors", "train.safetensors"]),
        ("png-folder", &["test", "train"]),
    ] {
        let out = format!("all/{format}");
        run(folder, &["export", "--data", "data", "--to", format, "-o", &out, "-q"]);
        assert_eq!(crate::names(&folder.join(out)), names);
    }
    assert_eq!(names(&folder.join("all/png-folder/test")), ["0", "1", "2"]);
    assert_eq!(names(&folder.join("all/png-folder/test/1"))[..2], ["01.png", "04.png"]);
    assert_eq!(json(folder, &["data", "--data", "all/idx"])["classes"], CLASSES);
    let eval = ["eval", "--data", "data", "--features", "net", "--metrics", "accuracy", "--images"];
    let accuracy = |images: &str| json(folder, &[&eval[..], &[images]].concat())["class_accuracy"].clone();
    let expected = accuracy("data/t10k-images-idx3-ubyte");
    for images in ["all/npz/test.npz", "all/safetensors/test.safetensors", "all/png-folder/test"] {
        assert_eq!(accuracy(images), expected, "{images}");
    }
}

#[test]
fn one_split_is_the_file_itself() {
    let folder = data(true);
    let folder = folder.path();
    let export = ["export", "--data", "data", "--split", "test", "-q", "--to"];
    for (format, out) in
        [("npz", "test.npz"), ("safetensors", "test.safetensors"), ("idx", "x/test"), ("png-folder", "pngs")]
    {
        run(folder, &[&export[..], &[format, "-o", out]].concat());
    }
    assert_eq!(names(&folder.join("x")), ["test-images-idx3-ubyte", "test-labels-idx1-ubyte"]);
    assert_eq!(names(&folder.join("pngs")), ["0", "1", "2"]);
    let (pixels, labels) = (pixels(TEST), labels(TEST));
    for out in ["test.npz", "test.safetensors", "x/test-images-idx3-ubyte"] {
        let set = Dataset::from_path(&folder.join(out), None).unwrap();
        assert_eq!((set.images(), set.labels()), (&pixels[..], Some(&labels[..])), "{out}");
    }
    let view = |shape: &[usize], data| TensorView::new(Dtype::U8, shape.to_vec(), data).unwrap();
    let tensors = [("images", view(&[TEST, SIDE, SIDE], &pixels)), ("labels", view(&[TEST], &labels))];
    assert!(read(folder.join("test.safetensors")) == serialize(tensors, None).unwrap());
    // A file is replaced, a folder is not.
    run(folder, &[&export[..], &["npz", "-o", "test.npz"]].concat());
    let error = fail(folder, 1, &[&export[..], &["png-folder", "-o", "pngs"]].concat());
    assert!(error.contains("pngs: exists, expected a new or empty folder"), "{error}");
}

/// The arrays of an archive, as bytes with their headers.
fn arrays(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut archive = ZipArchive::new(File::open(path).unwrap()).unwrap();
    let one = |index| {
        let mut entry = archive.by_index(index).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.name().unwrap().into_owned(), bytes)
    };
    (0..2).map(one).collect()
}

/// The fixture is of NumPy.
#[test]
fn the_arrays_of_an_npz_have_the_bytes_that_numpy_writes() {
    let folder = tempdir().unwrap();
    let stored = fixture("stored.npz");
    run(folder.path(), &["export", "--images", &stored, "--to", "npz", "-o", "again.npz", "-q"]);
    assert!(arrays(&folder.path().join("again.npz")) == arrays(Path::new(&stored)));
    run(folder.path(), &["export", "--images", &stored, "--to", "npz", "-o", "twice.npz", "-q"]);
    assert!(read(folder.path().join("again.npz")) == read(folder.path().join("twice.npz")), "no clock");
}

#[test]
fn samples_are_exported() {
    let folder = with_model();
    let folder = folder.path();
    let sample = ["sample", "--model", "model", "-n", "7", "-q", "-o"];
    run(folder, &[&sample[..], &["s.safetensors"]].concat());
    run(folder, &[&sample[..], &["s", "--format", "idx"]].concat());
    run(folder, &["export", "--images", "s.safetensors", "--to", "idx", "-o", "again", "-q"]);
    for end in ["images-idx3-ubyte", "labels-idx1-ubyte"] {
        assert!(read(folder.join(format!("again-{end}"))) == read(folder.join(format!("s-{end}"))), "{end}");
    }
    run(folder, &["export", "--images", "s-images-idx3-ubyte", "--to", "png-folder", "-o", "pngs", "-q"]);
    assert_eq!(names(&folder.join("pngs/2")), ["2.png", "5.png"]);
    let bytes = read(folder.join("s.safetensors"));
    let images = SafeTensors::deserialize(&bytes).unwrap().tensor("images").unwrap().data().to_vec();
    let picture = image::open(folder.join("pngs/2/5.png")).unwrap();
    assert_eq!(picture.color(), image::ColorType::L8);
    assert_eq!(picture.into_luma8().into_raw(), images[5 * SIDE * SIDE..6 * SIDE * SIDE]);
}

/// Classes are numbered from 0 for a model, and other programs know the labels of the files.
#[test]
fn the_labels_are_those_of_the_files() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir(folder.join("data")).unwrap();
    write_split(&folder.join("data"), "train", [1, 2], &[0, 10, 20, 30, 40, 50], Some(vec![7, 3, 7]));
    let export = ["export", "--data", "data", "-q", "--to"];
    run(folder, &[&export[..], &["idx", "-o", "idx"]].concat());
    assert_eq!(names(&folder.join("idx")), ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"]);
    let labels = "train-labels-idx1-ubyte";
    assert_eq!(read(folder.join("idx").join(labels)), read(folder.join("data").join(labels)));
    run(folder, &[&export[..], &["png-folder", "-o", "pngs"]].concat());
    assert_eq!(names(&folder.join("pngs/train/7")), ["0.png", "2.png"]);
    let error = fail(folder, 1, &[&export[..], &["npz", "--split", "test", "-o", "x.npz"]].concat());
    assert!(error.contains("data has no test images"), "{error}");
}

#[test]
fn arrays_of_python_are_imported() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let import = |name: &str, more: &[&str]| {
        let out = format!("of-{name}");
        run(folder, &[&["import", &fixture(name), "-o", &out, "-q"], more].concat());
        Dataset::from_path(&folder.join(out), None).unwrap()
    };
    let stored = import("stored.npz", &[]);
    assert_eq!((stored.rows(), stored.cols(), stored.labels()), (4, 5, Some(&[2, 0, 1][..])));
    for (name, more) in [
        ("compressed.npz", &[][..]),
        ("big-endian.npz", &[]),
        ("rows.npz", &["--size", "4x5"]),
        ("one.npy", &["--size", "4x5"]),
        ("plain.safetensors", &[]),
    ] {
        assert_eq!(import(name, more).images(), stored.images(), "{name}");
    }
    let error = fail(folder, 1, &["import", &fixture("rows.npz"), "-o", "rows"]);
    assert!(error.contains("the shape [3, 20]") && error.contains("[N, rows·cols] with the size"), "{error}");
    let error = fail(folder, 1, &["import", &fixture("one.npy"), "--size", "5x4", "-o", "x"]);
    assert!(error.contains("the shape [3, 4, 5], expected N grey images of 5x4"), "{error}");
}

#[test]
fn test_images_may_lie_elsewhere() {
    let folder = data(true);
    let folder = folder.path();
    for (split, out) in [("train", "a.npz"), ("test", "b.safetensors")] {
        let to = out.split_once('.').unwrap().1;
        run(folder, &["export", "--data", "data", "--split", split, "--to", to, "-o", out, "-q"]);
    }
    run(folder, &["import", "a.npz", "--test", "b.safetensors", "-o", "back", "-q"]);
    for name in FILES {
        assert!(read(folder.join("back").join(name)) == read(folder.join("data").join(name)), "{name}");
    }
}

/// Each case leaves the folder as it was.
#[test]
fn what_fits_no_data_set_is_refused_with_the_reason() {
    let folder = data(true);
    let folder = folder.path();
    run(folder, &["export", "--data", "data", "--to", "npz", "-o", "npz", "-q"]);
    fs::create_dir(folder.join("two")).unwrap();
    for name in ["train.npz", "train.npy"] {
        fs::write(folder.join("two").join(name), "").unwrap();
    }
    fs::create_dir(folder.join("plain")).unwrap();
    write_split(&folder.join("plain"), "train", [SIDE, SIDE], &pixels(3), None);
    let small = fixture("stored.npz");
    let before = names(folder);
    for (args, expected) in [
        (&["import", "npz/train.npz", "-o", "data"][..], "data: exists, expected a new or empty folder"),
        (&["import", "nowhere", "-o", "x"], "cannot read nowhere"),
        (&["import", "npz", "--test", "npz/test.npz", "-o", "x"], "npz has test images of its own"),
        (&["import", "two", "-o", "x"], "two: train.npz, train.npy are for the same part"),
        (&["import", "npz/train.npz", "--test", &small, "-o", "x"], "images of 4x5, expected 8x8"),
        (
            &["import", "npz/train.npz", "--test", "plain/train-images-idx3-ubyte", "-o", "x"],
            "npz/train.npz has labels and plain/train-images-idx3-ubyte has none",
        ),
        (&["export", "--images", "nowhere", "--to", "npz", "-o", "x.npz"], "cannot read nowhere"),
        (&["export", "--to", "npz", "-o", "data"], "data: exists, expected a new or empty folder"),
        (
            &["export", "--split", "test", "--to", "npz", "-o", "x.safetensors"],
            "x.safetensors: the extension .safetensors does not fit --to npz",
        ),
        (&["export", "--data", "elsewhere", "--to", "npz", "-o", "x"], "elsewhere: no such folder"),
    ] {
        let error = fail(folder, 1, args);
        assert!(error.contains(expected), "{args:?}: {error}");
        assert_eq!(names(folder), before, "{args:?}");
    }
    for (args, expected) in [
        (&["export", "--to", "jpeg", "-o", "x"][..], "png-folder"),
        (&["export", "-o", "x"], "--to"),
        (&["export", "--images", "a", "--data", "data", "--to", "npz", "-o", "x"], "--data"),
        (&["import", "a"], "--out-dir"),
        (&["import", "a", "--size", "28", "-o", "x"], "ROWSxCOLS"),
    ] {
        let error = fail(folder, 2, args);
        assert!(error.contains(expected), "{args:?}: {error}");
    }
}
