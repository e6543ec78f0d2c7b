//! The choice of arrays, their types, shapes and scales.

use ddpm_data::{Dataset, Error, formats};
use safetensors::tensor::{Dtype, TensorView, serialize};

use super::{SIZE, bytes_of, error_of, fixture, grey, npy, sources};
use crate::alloc::largest_allocation;

#[test]
fn files_of_numpy_and_safetensors_hold_the_same_images() {
    let labels = Some([2_u8, 0, 1].as_slice());
    for (name, labels, note) in [
        ("stored.npz", labels, None),
        ("compressed.npz", labels, Some("so 0 is black and 1 is white")),
        ("big-endian.npz", labels, Some("so -1 is black and 1 is white")),
        ("rows.npz", None, Some("so -1 is black and 1 is white")),
        ("one.npy", None, Some("so 0 is black and 1 is white")),
        ("version-2.npy", None, None),
        ("version-3.npy", None, None),
        ("plain.safetensors", labels, None),
        ("model.safetensors", None, Some("so -1 is black and 1 is white")),
    ] {
        let file = fixture(name);
        let set = Dataset::from_path(&file, SIZE).unwrap();
        assert_eq!(set.images(), grey(), "{name}");
        assert_eq!((set.rows(), set.cols(), set.labels()), (4, 5, labels), "{name}");
        assert_eq!(set.notes().len(), usize::from(note.is_some()), "{:?}", set.notes());
        assert!(set.notes().iter().all(|found| found.ends_with(note.unwrap()) && found.contains(name)));
        let parsed = formats::parse(&file, &std::fs::read(&file).unwrap(), SIZE).unwrap();
        assert_eq!((parsed.images_sha256(), parsed.labels()), (set.images_sha256(), set.labels()));
        // Without a size, the array gives it, if its shape has rows and columns.
        match (name, Dataset::from_path(&file, None)) {
            ("rows.npz", found) => {
                let error = found.unwrap_err().to_string();
                assert!(error.contains("[3, 20], expected N grey images: [N, rows, cols]"), "{error}");
            }
            (_, found) => assert_eq!(found.unwrap().images_sha256(), set.images_sha256(), "{name}"),
        }
    }
}

#[test]
fn arrays_of_another_type_or_order_are_named() {
    for (name, parts) in [
        ("fortran.npz", ["array images has column-major order", "`numpy.ascontiguousarray`"]),
        ("half.npz", ["array images has the type float16", "expected uint8, float32 or float64"]),
    ] {
        let error = Dataset::from_path(&fixture(name), SIZE).unwrap_err().to_string();
        assert!(error.contains(name) && parts.iter().all(|part| error.contains(part)), "{error}");
    }
    for (descr, found) in [
        ("<i8", "int64"),
        ("<u2", "uint16"),
        ("|i1", "int8"),
        ("|b1", "bool"),
        ("<c8", "<c8"),
        ("|S3", "|S3"),
        ("<f16", "<f16"),
    ] {
        let error = error_of(&npy(descr, "(3, 4, 5)", &[0; 480])).to_string();
        assert!(
            error.contains(&format!("has the type {found}, expected uint8, float32 or float64")),
            "{error}"
        );
    }
}

#[test]
fn an_array_has_one_of_four_shapes() {
    for shape in ["(3, 4, 5)", "(3, 1, 4, 5)", "(3, 4, 5, 1)", "(3, 20)"] {
        let set = formats::parse("f".as_ref(), &npy("|u1", shape, &grey()), SIZE).unwrap();
        assert_eq!(set.images(), grey(), "{shape}");
    }
    for (shape, text) in [
        ("(3, 5, 4)", "[3, 5, 4]"),
        ("(60,)", "[60]"),
        ("(4, 5)", "[4, 5]"),
        ("()", "[]"),
        ("(1, 3, 4, 5)", "[1, 3, 4, 5]"),
        ("(1, 4, 5, 3)", "[1, 4, 5, 3]"),
        ("(3, 1, 4, 5, 1)", "[3, 1, 4, 5, 1]"),
    ] {
        let error = error_of(&npy("|u1", shape, &grey())).to_string();
        let expected = format!("the shape {text}, expected N grey images of 4x5: [N, 4, 5], [N, 1, 4, 5], ");
        assert!(error.contains(&expected) && error.contains("[N, 4, 5, 1] or [N, 20]"), "{error}");
    }
    // One row: the same numbers may be read as [N, 1, cols] and as [N, 1, 1, cols].
    for shape in ["(2, 1, 3)", "(2, 1, 1, 3)", "(2, 1, 3, 1)", "(2, 3)"] {
        let set = formats::parse("f".as_ref(), &npy("|u1", shape, &[0, 1, 2, 3, 4, 5]), [1, 3]).unwrap();
        assert_eq!((set.len(), set.images()), (2, [0, 1, 2, 3, 4, 5].as_slice()), "{shape}");
    }
}

#[test]
fn no_images_are_an_error() {
    assert!(matches!(error_of(&npy("|u1", "(0, 4, 5)", &[])), Error::Empty { .. }));
    assert!(matches!(error_of(&npy("<f8", "(0, 4, 5)", &[])), Error::Empty { .. }));
}

/// Values of which it is not certain what is black and what is white.
#[test]
fn floats_on_neither_scale_are_refused() {
    let file = |values: [f64; 2]| {
        let numbers: Vec<f64> = values.into_iter().cycle().take(20).collect();
        npy("<f8", "(1, 4, 5)", &bytes_of(&numbers, f64::to_le_bytes))
    };
    for (values, found) in [
        ([0.0, 255.0], "values from 0 to 255"),
        ([-0.25, 0.75], "values from -0.25 to 0.75"),
        ([-1.25, 1.0], "values from -1.25 to 1"),
        ([-3.5, 2.5], "values from -3.5 to 2.5"),
    ] {
        let error = error_of(&file(values)).to_string();
        let expected = "expected values from 0 to 1, or from -1 to 1 with a smallest value of -0.5 or less, or grey \
                        levels as uint8";
        assert!(error.contains(found) && error.contains(expected), "{error}");
    }
    for (value, text) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf")] {
        let error = error_of(&file([0.0, value])).to_string();
        let expected = format!("the value {text} at position 1, expected finite numbers");
        assert!(error.contains(&expected), "{error}");
    }
}

/// Binary images would be black.
#[test]
fn integers_from_0_to_1_are_refused() {
    let error = error_of(&npy("|u1", "(1, 20)", &[0, 1].repeat(10))).to_string();
    assert!(error.contains("no value above 1, expected grey levels from 0, black, to 255, white"), "{error}");
    let black = formats::parse("f".as_ref(), &npy("|u1", "(1, 20)", &[0; 20]), SIZE).unwrap();
    assert_eq!(black.images(), [0; 20]);
}

/// A safetensors file of arrays of one byte per number.
fn tensors(arrays: &[(&str, Dtype, &[usize], &[u8])]) -> Vec<u8> {
    let views = arrays.iter().map(|&(name, dtype, shape, data)| {
        (name.to_owned(), TensorView::new(dtype, shape.to_vec(), data).unwrap())
    });
    serialize(views, None).unwrap()
}

#[test]
fn images_are_named_images_or_alone() {
    let grey = grey();
    let array = |name| (name, Dtype::U8, &[3_usize, 4, 5][..], grey.as_slice());
    let read = |arrays: &[_]| formats::parse("f".as_ref(), &tensors(arrays), SIZE).unwrap();
    assert!(read(&[array("anything")]).notes().is_empty());
    let set = read(&[array("images"), array("latents")]);
    assert_eq!(set.notes(), ["f: the array latents is not read"]);
    let error = error_of(&tensors(&[array("b"), array("a"), array("c")]));
    assert!(matches!(error, Error::SeveralArrays { content: "images", .. }));
    let expected = "the images may be in any of the arrays a, b, c; name one of them `images`";
    assert!(error.to_string().ends_with(expected), "{error}");
    let error = error_of(&tensors(&[("labels", Dtype::U8, &[3], &[0, 1, 2])])).to_string();
    assert!(error.contains("is a file without an array of images"), "{error}");
    assert!(error_of(&tensors(&[])).to_string().contains("without an array of images"));
}

#[test]
fn labels_are_integers_one_for_each_image() {
    let grey = grey();
    let with = |labels: &[(&str, Dtype, &[usize], &[u8])]| {
        tensors(&[&[("images", Dtype::U8, &[3_usize, 4, 5][..], grey.as_slice())], labels].concat())
    };
    let read = |labels: &[_]| formats::parse("f".as_ref(), &with(labels), SIZE).unwrap();
    let wide = [bytes_of(&[3_i64, 0, 255], i64::to_le_bytes), bytes_of(&[3_u64, 0, 255], u64::to_le_bytes)];
    for set in [
        read(&[("y", Dtype::I64, &[3], &wide[0])]),
        read(&[("label", Dtype::U64, &[3], &wide[1])]),
        read(&[("labels", Dtype::U16, &[3], &[3, 0, 0, 0, 255, 0])]),
    ] {
        assert_eq!((set.labels(), set.classes()), (Some([3_u8, 0, 255].as_slice()), Some(256)));
    }
    let both = read(&[("labels", Dtype::U8, &[3], &[0, 1, 2]), ("y", Dtype::U8, &[3], &[5, 5, 5])]);
    assert_eq!(both.labels(), Some([0, 1, 2].as_slice()));
    assert_eq!(both.notes(), ["f: the array y is not read"]);
    // As in files of labels, -1 stands for no label.
    let some = read(&[("y", Dtype::I8, &[3], &[1, 255, 0])]);
    assert_eq!((some.len(), some.labels()), (2, Some([1, 0].as_slice())));
    assert!(some.notes()[0].contains("1 of 3 images are left out"), "{:?}", some.notes());

    type Labels<'a> = (&'a str, Dtype, &'a [usize], &'a [u8]);
    let cases: [(&[Labels<'_>], &str); 7] = [
        (&[("y", Dtype::F32, &[3], &[0; 12])], "array y has the type float32, expected integers"),
        (&[("y", Dtype::BOOL, &[3], &[0; 3])], "array y has the type BOOL, expected integers"),
        (
            &[("y", Dtype::U8, &[3, 10], &[0; 30])],
            "array y has the shape [3, 10], expected [N], the class of",
        ),
        (&[("y", Dtype::U8, &[2], &[0; 2])], "holds 3 images, but"),
        (&[("y", Dtype::I8, &[3], &[0, 1, 254])], "label -2 at index 2, expected 0 to 255"),
        (&[("y", Dtype::U64, &[3], &[255; 24])], "label 9223372036854775807 at index 0"),
        (
            &[("y", Dtype::U8, &[3], &[0; 3]), ("label", Dtype::U8, &[3], &[0; 3])],
            "the labels may be in any of the arrays label, y; name one of them `labels`",
        ),
    ];
    for (labels, expected) in cases {
        let error = error_of(&with(labels)).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_claimed_size_is_not_allocated() {
    for shape in ["(4000000000, 4, 5)", "(18446744073709551615, 20)", "(9223372036854775807, 1, 4, 5)"] {
        let bytes = npy("<f8", shape, &[0; 160]);
        let (error, largest) = largest_allocation(|| error_of(&bytes));
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
        assert!(largest < 1 << 16, "{largest}");
    }
    let (error, largest) = largest_allocation(|| error_of(&npy("|u1", "(100000000, 20)", &[0; 160])));
    let expected =
        "has 160 bytes, expected 2000000000 bytes for its shape [100000000, 20] and its type uint8";
    assert!(error.to_string().contains(expected) && largest < 1 << 16, "{error} {largest}");
}

#[test]
fn a_broken_safetensors_file_is_an_error() {
    let bytes = std::fs::read(fixture("plain.safetensors")).unwrap();
    for length in 9..bytes.len() {
        let error = error_of(&bytes[..length]);
        assert!(
            matches!(error, Error::Safetensors { .. }) && !sources(&error).is_empty(),
            "{length}: {error}"
        );
    }
    assert!(matches!(error_of(&[&bytes[..], &[0]].concat()), Error::Safetensors { .. }));
}
