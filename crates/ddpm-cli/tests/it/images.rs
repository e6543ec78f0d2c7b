//! `eval --images`: images of any program, measured as samples of a model are.

use std::{
    fs,
    io::{Cursor, Write},
    path::Path,
};

use candle_core::Device;
use ddpm_data::{
    Dataset,
    idx::{encode_images, encode_labels},
};
use ddpm_eval::{FeatureNet, nearest_images};
use image::GrayImage;
use safetensors::{Dtype, serialize, tensor::TensorView};
use serde_json::{Value, json as value};
use tempfile::{TempDir, tempdir};
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::{
    CLASSES, SIDE,
    evaluation::{LARGE, with_large},
    json, keys, labels, names, pixels,
    refusals::{refused, usage},
    run, stdout, with_model, with_unlabelled_model,
};

const METRICS: [&str; 6] = ["frechet", "kernel", "manifold", "accuracy", "diversity", "memorisation"];
const NUMBER: usize = 135;

/// `eval --images PATH` with the data set `large`.
fn eval(images: &str) -> [&str; 7] {
    ["eval", "--images", images, "--data", "large", "--features", "net"]
}

/// The values of all metrics, and the numbers of images.
fn measured(result: &Value) -> Vec<&Value> {
    let counts = ["samples", "distinct_samples", "train_images", "test_images", "missing"];
    METRICS.iter().chain(&counts).map(|key| &result[key]).collect()
}

/// Images that are not those of the data set, sorted by class, and their labels.
fn sorted_set() -> (Vec<u8>, Vec<u8>) {
    let (pixels, labels) = (pixels(2 * LARGE), labels(2 * LARGE));
    let mut images: Vec<(u8, &[u8])> =
        std::iter::zip(labels, pixels.chunks(SIDE * SIDE)).skip(LARGE).take(NUMBER).collect();
    images.sort_by_key(|(label, _)| *label);
    let (labels, images): (Vec<u8>, Vec<&[u8]>) = images.into_iter().unzip();
    (images.concat(), labels)
}

fn npy(descr: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let shape: String = shape.iter().map(|size| format!("{size}, ")).collect();
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}\n");
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
}

fn npz(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, array) in arrays {
        writer.start_file(format!("{name}.npy"), SimpleFileOptions::default()).unwrap();
        writer.write_all(array).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Writes images as PNG files, with numbers of four digits as names: below a folder for each class if `by_class`.
fn write_pngs(folder: &Path, pixels: &[u8], labels: &[u8], by_class: bool) {
    for (number, (image, label)) in std::iter::zip(pixels.chunks(SIDE * SIDE), labels).enumerate() {
        let below = if by_class { folder.join(label.to_string()) } else { folder.to_owned() };
        fs::create_dir_all(&below).unwrap();
        let side = u32::try_from(SIDE).unwrap();
        let image = GrayImage::from_raw(side, side, image.to_vec()).unwrap();
        image.save(below.join(format!("{number:04}.png"))).unwrap();
    }
}

fn floats<const N: usize>(pixels: &[u8], number: impl Fn(f64) -> [u8; N]) -> Vec<u8> {
    pixels.iter().flat_map(|&pixel| number(f64::from(pixel) / 255.0)).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "as a program writes f32")]
#[test]
fn the_same_images_in_every_format_have_the_same_metrics() {
    let folder = with_large(with_model(), true);
    let path = folder.path();
    let (pixels, labels) = sorted_set();
    let images = encode_images(SIDE, SIDE, &pixels).unwrap();
    write(path, "plain/x-images-idx3-ubyte", &images);
    write(path, "plain/x-labels-idx1-ubyte", encode_labels(&labels).unwrap());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&images).unwrap();
    write(path, "packed/x-images-idx3-ubyte.gz", gzip.finish().unwrap());
    write(path, "packed/x-labels-idx1-ubyte", encode_labels(&labels).unwrap());
    let wide: Vec<u8> = labels.iter().flat_map(|&label| i64::from(label).to_le_bytes()).collect();
    let of_labels = npy("<i8", &[NUMBER], &wide);
    let grey = npy("|u1", &[NUMBER, SIDE, SIDE], &pixels);
    write(path, "grey.npz", npz(&[("arr_0", grey.clone()), ("y", of_labels.clone())]));
    let unit = floats(&pixels, |share| (share as f32).to_le_bytes());
    let unit = npy("<f4", &[NUMBER, 1, SIDE, SIDE], &unit);
    write(path, "unit.npz", npz(&[("images", unit), ("labels", of_labels)]));
    let scaled = floats(&pixels, |share| (2.0 * share - 1.0).to_le_bytes());
    let tensors = [
        ("images", TensorView::new(Dtype::F64, vec![NUMBER, SIDE * SIDE], &scaled).unwrap()),
        ("label", TensorView::new(Dtype::U8, vec![NUMBER], &labels).unwrap()),
    ];
    write(path, "model.safetensors", serialize(tensors, None).unwrap());
    write(path, "unlabelled.npy", grey);
    write_pngs(&path.join("classes"), &pixels, &labels, true);
    write_pngs(&path.join("flat"), &pixels, &labels, false);

    let expected = json(path, &eval("plain/x-images-idx3-ubyte"));
    assert_eq!(expected["samples"], NUMBER);
    assert!(METRICS.iter().all(|metric| expected[metric].is_object()), "{expected}");
    for images in ["plain", "packed", "grey.npz", "unit.npz", "model.safetensors", "classes"] {
        let found = json(path, &eval(images));
        assert_eq!(measured(&found), measured(&expected), "{images}");
        for key in ["images_sha256", "labels_sha256"] {
            assert!(found[key] == expected[key] && found[key].is_string(), "{images}: {found}");
        }
    }
    for images in ["unlabelled.npy", "flat"] {
        let found = json(path, &eval(images));
        assert_eq!(found["images_sha256"], expected["images_sha256"]);
        assert!(found["labels_sha256"].is_null() && found["class_accuracy"].is_null());
        for metric in ["frechet", "kernel", "manifold"] {
            assert_eq!(found[metric], expected[metric], "{images}");
        }
        assert_eq!(found["diversity"]["by_class"], value!([]));
        for reason in [
            "There is no class accuracy, because the generated images have no labels.",
            "The diversity is over all images instead of within classes, because the generated images have no labels.",
        ] {
            assert!(found["missing"].as_array().unwrap().contains(&reason.into()), "{found}");
        }
    }
    // The scale that was taken is in both forms of the output.
    for (images, note) in
        [("unit.npz", "so 0 is black and 1 is white"), ("model.safetensors", "so -1 is black and 1 is white")]
    {
        let notes = &json(path, &eval(images))["notes"];
        let text = notes[0].as_str().unwrap();
        assert!(text.starts_with(images) && text.ends_with(note) && notes[1].is_null(), "{notes}");
        assert!(stdout(&run(path, &eval(images))).contains(text));
    }
    assert_eq!(expected["notes"], value!([]));
}

/// What `sample` writes, measured as files, is what `eval` measures of the model.
#[test]
fn samples_in_files_have_the_metrics_of_the_model() {
    let folder = with_large(with_model(), true);
    let path = folder.path();
    let model = ["--model", "model", "-n", "135"];
    let of_model = json(path, &[&["eval", "--data", "large", "--features", "net"], &model[..]].concat());
    for (format, out, images) in [
        ("idx", "drawn", "drawn-images-idx3-ubyte"),
        ("idx", "set/train", "set"),
        ("safetensors", "drawn.safetensors", "drawn.safetensors"),
    ] {
        run(path, &[&["sample", "--format", format, "-o", out], &model[..]].concat());
        assert_eq!(measured(&json(path, &eval(images))), measured(&of_model), "{images}");
    }
    // A grid cannot be taken apart, in a folder or by itself.
    run(path, &["sample", "--model", "model", "-o", "grids/grid.png"]);
    let expected = ["grid.png", "expected 8x8", "in an IDX, .npz or .safetensors file"];
    refused(path, &eval("grids"), &expected);
    refused(path, &eval("grids/grid.png"), &["a picture of many images is not taken apart", ".safetensors"]);
    run(path, &["sample", "--model", "model", "-o", "steps.gif"]);
    refused(path, &eval("steps.gif"), &["is a GIF image; expected a folder of PNG images"]);

    let unlabelled = with_large(with_unlabelled_model(), false);
    let path = unlabelled.path();
    let of_model = json(path, &[&["eval", "--data", "large", "--features", "net"], &model[..]].concat());
    run(path, &[&["sample", "--format", "safetensors", "-o", "drawn.safetensors"], &model[..]].concat());
    assert_eq!(measured(&json(path, &eval("drawn.safetensors"))), measured(&of_model));
}

#[test]
fn real_test_images_score_at_the_floor() {
    let folder = with_large(with_model(), true);
    // Other test images than the training images.
    let (pixels, labels) = sorted_set();
    write(folder.path(), "large/t10k-images-idx3-ubyte", encode_images(SIDE, SIDE, &pixels).unwrap());
    write(folder.path(), "large/t10k-labels-idx1-ubyte", encode_labels(&labels).unwrap());
    write_pngs(&folder.path().join("classes"), &pixels, &labels, true);
    for images in ["large/t10k-images-idx3-ubyte", "classes"] {
        let result = json(folder.path(), &eval(images));
        assert_eq!(
            (&result["frechet"]["ratio"], &result["memorisation"]["ratio"]),
            (&1.0.into(), &1.0.into())
        );
        for metric in METRICS {
            let mut generated = result[metric].clone();
            let floor = generated.as_object_mut().unwrap().remove("floor").unwrap();
            for (key, value) in floor.as_object().unwrap() {
                assert_eq!(generated[key], *value, "{metric}: {key}");
            }
        }
    }
}

/// The metrics of 200 test images of MNIST, computed with the library directly.
#[test]
fn digits_have_the_metrics_that_the_library_computes() {
    let folder = tempdir().unwrap();
    let test = Dataset::mnist_test().unwrap();
    let (pixels, labels) = (&test.images()[..200 * 784], &test.labels().unwrap()[..200]);
    write(folder.path(), "a-images-idx3-ubyte", encode_images(28, 28, pixels).unwrap());
    write(folder.path(), "a-labels-idx1-ubyte", encode_labels(labels).unwrap());
    let args = ["eval", "--images", "a-images-idx3-ubyte", "--metrics", "accuracy,memorisation"];
    let result = json(folder.path(), &args);
    let predicted = FeatureNet::builtin(&Device::Cpu).unwrap().classes(pixels).unwrap();
    let correct = std::iter::zip(&predicted, labels).filter(|(a, b)| a == b).count();
    assert_eq!(result["class_accuracy"].as_f64().unwrap(), correct as f64 / 200.0);
    let nearest = nearest_images(&Dataset::mnist_train().unwrap(), pixels, &Device::Cpu).unwrap();
    let mean = nearest.iter().map(|image| image.distance).sum::<f64>() / 200.0;
    assert!((result["memorisation"]["distance"].as_f64().unwrap() - mean).abs() < 1e-9);
    assert_eq!((&result["samples"], &result["test_images"]), (&200.into(), &200.into()));
}

#[test]
fn the_output_names_the_images_instead_of_a_model() {
    let folder = with_large(with_model(), true);
    let (pixels, labels) = sorted_set();
    write(folder.path(), "x-images-idx3-ubyte", encode_images(SIDE, SIDE, &pixels).unwrap());
    write(folder.path(), "x-labels-idx1-ubyte", encode_labels(&labels).unwrap());
    let args = [&eval("x-images-idx3-ubyte")[..], &["-o", "out", "--seed", "3"]].concat();
    let result = json(folder.path(), &args);
    let mut expected = vec![
        "class_accuracy",
        "class_accuracy_by_class",
        "data",
        "distinct_samples",
        "feature_net",
        "features_sha256",
        "images",
        "images_sha256",
        "labels_sha256",
        "missing",
        "notes",
        "real_accuracy",
        "samples",
        "seed",
        "subset_images",
        "test_images",
        "train_images",
    ];
    expected.extend(METRICS);
    expected.sort_unstable();
    assert_eq!(keys(&result), expected);
    assert_eq!(result["images"], "x-images-idx3-ubyte");
    // The digest that `data` prints for the same images.
    write(folder.path(), "same/train-images-idx3-ubyte", encode_images(SIDE, SIDE, &pixels).unwrap());
    let digest = json(folder.path(), &["data", "--data", "same"])["train_images_sha256"].clone();
    assert_eq!(result["images_sha256"], digest);

    let out = folder.path().join("out");
    assert_eq!(names(&out), ["closest-pairs.png", "quality.md", "quality.svg"]);
    let text = fs::read_to_string(out.join("quality.md")).unwrap();
    let command =
        "`ddpm-cli eval --images x-images-idx3-ubyte --data large --features net --seed 3`, version ";
    assert!(text.starts_with(command) && text.contains(digest.as_str().unwrap()), "{text}");
    let plot = fs::read_to_string(out.join("quality.svg")).unwrap();
    assert_eq!(plot.matches("<circle").count(), LARGE + NUMBER + CLASSES + 1);
}

#[test]
fn few_and_equal_images_have_some_metrics_and_reasons_for_the_others() {
    let folder = with_large(with_model(), true);
    let (pixels, labels) = sorted_set();
    let image = SIDE * SIDE;
    let write = |count: usize, pixels: &[u8]| {
        let images = npy("|u1", &[count, SIDE, SIDE], &pixels[..count * image]);
        let labels = npy("|u1", &[count], &labels[..count]);
        write(folder.path(), "few.npz", npz(&[("images", images), ("labels", labels)]));
    };
    for count in [1, 2, 3, 4, 128, 129] {
        write(count, &pixels);
        let result = json(folder.path(), &eval("few.npz"));
        assert_eq!((&result["samples"], &result["test_images"]), (&count.into(), &count.into()));
        let has =
            [result["frechet"].is_object(), result["kernel"].is_object(), result["manifold"].is_object()];
        assert_eq!(has, [count > 128, count > 3, count > 3], "{count}: {result}");
        assert_eq!(result["class_accuracy"], 1.0);
        assert!(
            result["memorisation"]["distance"].is_number() && result["memorisation"]["floor"].is_object()
        );
        let text = stdout(&run(folder.path(), &eval("few.npz")));
        assert!(!text.contains("inf") && !text.contains("NaN"), "{text}");
        for sentence in result["missing"].as_array().unwrap() {
            assert!(text.contains(&format!("\n{}", sentence.as_str().unwrap())), "{sentence} {text}");
        }
        assert_eq!(text.contains("at least 129 generated images are needed"), count < 129, "{text}");
    }
    write(1, &pixels);
    let note = "few.npz: no image has the label 1,2, and the real images have all classes";
    assert_eq!(json(folder.path(), &eval("few.npz"))["notes"], value!([note]));
    assert!(
        stdout(&run(folder.path(), &eval("few.npz")))
            .contains("| class accuracy | 1.0000 ± – | 1.0000 ± – |")
    );

    // The same image again and again: far from real ones, without variety.
    write(NUMBER, &pixels[..image].repeat(NUMBER));
    let result = json(folder.path(), &eval("few.npz"));
    assert_eq!(
        (&result["distinct_samples"], &result["manifold"]["recall"]["mean"]),
        (&1.into(), &0.0.into())
    );
    assert!(result["frechet"]["ratio"].as_f64().unwrap() > 2.0, "{result}");
    assert_eq!(result["diversity"]["overall"], 0.0);
    assert!(stdout(&run(folder.path(), &eval("few.npz"))).contains("\nAll generated images are equal.\n"));
    write(4, &[&pixels[..3 * image], &pixels[..image]].concat());
    let text = stdout(&run(folder.path(), &eval("few.npz")));
    assert!(text.contains("\nOnly 3 of the 4 generated images are different.\n"), "{text}");
}

#[test]
fn options_of_sampling_do_not_go_with_images() {
    for option in [
        ["--model", "model"],
        ["-n", "100"],
        ["--classes", "0-2"],
        ["--sampler", "ddpm"],
        ["--steps", "5"],
        ["--timesteps", "9,4"],
        ["--variance", "zero"],
        ["--noise", "none"],
        ["--eta", "0"],
        ["--guidance-scale", "1"],
        ["--guidance-interval", "1-2"],
        ["--guide-scale", "1"],
        ["--guide-interval", "1-2"],
    ] {
        let name = if option[0] == "-n" { "--num-images" } else { option[0] };
        usage(
            &[&["eval", "--images", "x"], &option[..]].concat(),
            &["--images", name, "cannot be used with"],
        );
    }
}

/// A folder with `large`, `net` and some files that cannot be measured.
fn with_bad_files() -> TempDir {
    let folder = with_large(with_model(), true);
    let path = folder.path();
    let (pixels, labels) = sorted_set();
    let array = |shape: &[usize]| npy("|u1", shape, &pixels[..4 * SIDE * SIDE]);
    fs::create_dir(path.join("empty")).unwrap();
    write(path, "notes.txt", "text");
    write(path, "cut.npz", &npz(&[("images", array(&[4, SIDE, SIDE]))])[..200]);
    write(path, "colour.npy", npy("|u1", &[1, SIDE, SIDE, 3], &pixels[..3 * SIDE * SIDE]));
    write(path, "half.npy", npy("<f2", &[2, SIDE, SIDE], &[0; 4 * SIDE * SIDE]));
    write(path, "two.npz", npz(&[("a", array(&[4, SIDE, SIDE])), ("b", array(&[4, SIDE, SIDE]))]));
    let bytes: Vec<u8> = floats(&pixels[..SIDE * SIDE], |share| (255.0 * share).to_le_bytes());
    write(path, "bytes.npy", npy("<f8", &[1, SIDE, SIDE], &bytes));
    write(path, "class.npz", npz(&[("images", array(&[4, 64])), ("y", npy("|u1", &[4], &[0, 1, 2, 3]))]));
    write(path, "small-images-idx3-ubyte", encode_images(4, 4, &pixels[..64]).unwrap());
    write_pngs(&path.join("colour"), &pixels[..64], &labels[..1], false);
    let mut colour = image::open(path.join("colour/0000.png")).unwrap().into_rgb8();
    colour.put_pixel(2, 1, [1, 2, 3].into());
    colour.save(path.join("colour/0000.png")).unwrap();
    write(path, "cat/cat.jpg", "");
    folder
}

#[test]
fn files_that_cannot_be_measured_are_named_with_what_is_expected() {
    let folder = with_bad_files();
    for (images, parts) in [
        ("nowhere", &["cannot read nowhere"][..]),
        ("empty", &["found no images in empty, but no files; expected PNG images"]),
        ("cat", &["found no images in cat, but cat.jpg; expected"]),
        ("notes.txt", &["notes.txt is text that begins with", "expected a folder of PNG images"]),
        ("cut.npz", &["cannot read cut.npz as a ZIP archive of NumPy arrays: "]),
        ("colour.npy", &["colour.npy: the array", "the shape [1, 8, 8, 3], expected N grey images of 8x8"]),
        ("half.npy", &["half.npy", "the type float16, expected uint8, float32 or float64"]),
        ("two.npz", &["two.npz: the images may be in any of the arrays a, b; name one of them `images`"]),
        ("bytes.npy", &["bytes.npy", "values from 0 to ", "expected values from 0 to 1"]),
        ("class.npz", &["class.npz: label 3 at index 3, expected 0 to 2"]),
        ("small-images-idx3-ubyte", &["small-images-idx3-ubyte: images of 4x4 pixels, expected 8x8"]),
        ("colour", &["0000.png: the picture has the colour [1, 2, 3] in row 1, column 2, expected grey"]),
        (".", &["the name of", "is not the number of a class"]),
    ] {
        if images == "." {
            fs::create_dir(folder.path().join("5")).unwrap();
        }
        refused(folder.path(), &eval(images), parts);
    }
    let unlabelled = [&eval("large/t10k-images-idx3-ubyte")[..], &["--metrics", "accuracy"]].concat();
    fs::remove_file(folder.path().join("large/t10k-labels-idx1-ubyte")).unwrap();
    refused(folder.path(), &unlabelled, &["the images have no labels, so class accuracy cannot be measured"]);
    let candidates = "choose one: large/t10k-images-idx3-ubyte, large/train-images-idx3-ubyte";
    refused(folder.path(), &eval("large"), &[candidates]);
}
