//! Data sets and their splits.

use ddpm_data::{Dataset, Error, Images, Labels, Splits, to_model_scale};

fn set(pixels: &[u8], labels: Option<&[u8]>) -> Dataset {
    let images = Images::new("images", 1, 2, pixels.to_vec()).unwrap();
    let labels = labels.map(|values| Labels { file: "labels".into(), values: values.to_vec() });
    Dataset::new("set", images, labels).unwrap()
}

#[test]
fn mean_and_standard_deviation_are_exact() {
    let stats = set(&[0, 255, 0, 255], None).stats();
    assert_eq!((stats.mean, stats.std), (0.0, 1.0));
    let stats = set(&[51; 6], None).stats();
    assert_eq!(stats.std, 0.0);
    assert!((stats.mean - (51.0 / 127.5 - 1.0)).abs() < 1e-15);

    // Compared with the two-pass definition, with all 256 levels.
    let pixels: Vec<u8> = (0..=255).chain(90..=255).collect();
    let x: Vec<f64> = pixels.iter().map(|&p| f64::from(p) / 127.5 - 1.0).collect();
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
    let stats = set(&pixels, None).stats();
    assert!((stats.mean - mean).abs() < 1e-13 && (stats.std - variance.sqrt()).abs() < 1e-13);
}

#[test]
fn batches_are_gathered_in_the_order_of_the_indices() {
    let set = set(&[0, 1, 2, 3, 4, 5], Some(&[7, 8, 9]));
    let mut images = vec![9.0; 100];
    set.gather_images(&[2, 0, 2], &mut images).unwrap();
    assert_eq!(images, [4, 5, 0, 1, 4, 5].map(to_model_scale));
    let mut labels = vec![1];
    set.gather_labels(&[2, 0, 2], &mut labels).unwrap();
    assert_eq!(labels, [9, 7, 9]);
    assert_eq!(set.image(1), Some([2, 3].as_slice()));
    assert_eq!(set.image(3), None);
}

#[test]
fn indices_out_of_range_are_refused() {
    let set = set(&[0, 1, 2, 3], Some(&[0, 1]));
    for index in [2, u32::MAX] {
        let error = set.gather_images(&[0, index], &mut Vec::new()).unwrap_err();
        assert!(matches!(error, Error::OutOfRange { .. }), "{error}");
        assert_eq!(error.to_string(), format!("index into set is {index}, expected 0 to 1"));
        assert!(set.gather_labels(&[index], &mut Vec::new()).is_err());
    }
}

#[test]
fn unlabelled_data_sets_have_no_classes() {
    let set = set(&[0, 1], None);
    assert_eq!((set.labels(), set.classes(), set.labels_sha256()), (None, None, None));
    assert!(matches!(set.gather_labels(&[0], &mut Vec::new()), Err(Error::NoLabels { .. })));
    assert!(matches!(set.clone().with_classes(2), Err(Error::NoLabels { .. })));
    let splits = Splits::new("splits", set, None).unwrap();
    assert_eq!(splits.train().classes(), None);
    assert!(matches!(splits.with_classes(2), Err(Error::NoLabels { name }) if name == "splits"));
}

#[test]
fn classes_are_counted_over_both_splits() {
    let (few, many) = (set(&[0; 4], Some(&[0, 1])), set(&[0; 4], Some(&[2, 5])));
    for (train, test) in [(&few, &many), (&many, &few)] {
        let splits = Splits::new("splits", train.clone(), Some(test.clone())).unwrap();
        assert_eq!(splits.train().classes(), Some(6));
        assert_eq!(splits.test().unwrap().classes(), Some(6));
        let splits = splits.with_classes(10).unwrap();
        assert_eq!(splits.test().unwrap().classes(), Some(10));
        assert!(matches!(splits.with_classes(5), Err(Error::LabelOutOfRange { label: 5, max: 4, .. })));
    }
}

#[test]
fn a_labelled_train_set_may_have_an_unlabelled_test_set() {
    let splits = Splits::new("c", set(&[0; 4], Some(&[0, 1])), Some(set(&[0; 4], None))).unwrap();
    let splits = splits.with_classes(3).unwrap();
    assert_eq!(splits.train().classes(), Some(3));
    assert_eq!(splits.test().unwrap().classes(), None);
}

#[test]
fn splits_of_different_sizes_are_refused() {
    let test = Images::new("other", 2, 1, vec![0, 1]).unwrap();
    let test = Dataset::new("test", test, None).unwrap();
    let error = Splits::new("c", set(&[0, 1], None), Some(test)).unwrap_err();
    assert!(matches!(error, Error::SplitSize { found: [2, 1], expected: [1, 2], .. }));
    assert!(error.to_string().starts_with("other: images of 2x1, expected 1x2"), "{error}");
}

#[test]
fn different_data_sets_have_different_digests() {
    let one = set(&[0, 1], Some(&[1]));
    assert_eq!(one.images_sha256(), set(&[0, 1], None).images_sha256());
    assert_ne!(one.images_sha256(), set(&[0, 2], None).images_sha256());
    assert_ne!(one.labels_sha256(), set(&[0, 1], Some(&[2])).labels_sha256());
    // The same bytes in another shape.
    let tall = Dataset::new("tall", Images::new("x", 2, 1, vec![0, 1]).unwrap(), None).unwrap();
    assert_ne!(one.images_sha256(), tall.images_sha256());
}
