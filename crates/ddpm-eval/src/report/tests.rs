use ddpm_data::{Images, Labels};

use super::*;
use crate::{FeatureTraining, NearestImage, train_features};

const SIDE: usize = 8;

/// Images with a bar at one of two heights, and noise that depends on `seed`.
fn bars(count: usize, seed: u64) -> (Vec<u8>, Vec<u8>) {
    let noise = |i: usize| (i as u64 + 1 + (seed << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0];
    let pixel = |i: usize| {
        let (image, row) = (i.div_euclid(SIDE * SIDE), i.rem_euclid(SIDE * SIDE).div_euclid(SIDE));
        let noise = noise(i) & 31;
        if row.div_euclid(4) == image % 2 { 200 + noise } else { noise }
    };
    let labels = (0..count).map(|image| u8::from(image % 2 == 1));
    ((0..count * SIDE * SIDE).map(pixel).collect(), labels.collect())
}

fn data(count: usize, seed: u64, labelled: bool) -> Dataset {
    let (pixels, values) = bars(count, seed);
    let labels = labelled.then(|| Labels { file: "labels".into(), values });
    Dataset::new("bars", Images::new("bars", SIDE, SIDE, pixels).unwrap(), labels).unwrap()
}

fn net(train: &Dataset) -> FeatureNet {
    let training = FeatureTraining { epochs: 20, ..FeatureTraining::recipe(1) };
    train_features(train, &training, &Device::Cpu, |_| ()).unwrap()
}

/// An evaluation of all metrics, without test images.
fn of_all_metrics<'a>(net: &'a FeatureNet, train: &'a Dataset) -> Evaluation<'a> {
    let (metrics, device) = (&Metric::ALL, &Device::Cpu);
    Evaluation { net, train, test: None, classes: None, metrics, seed: 1, device }
}

#[test]
fn metrics_of_test_images_copies_and_a_constant_image() {
    let (train, test) = (data(60, 1, true), data(40, 2, true));
    let net = net(&train);
    let evaluation = Evaluation { test: Some(&test), ..of_all_metrics(&net, &train) };
    let mut stages = Vec::new();
    let mut measure = |pixels: &[u8], labels: &[u8]| {
        let images = GeneratedImages { pixels, labels: Some(labels) };
        evaluation.measure(&images, |stage| stages.push(stage)).unwrap()
    };
    // The metrics of the test images equal the floor.
    let real = measure(test.images(), test.labels().unwrap());
    assert_eq!((real.samples, real.train_images, real.subset_images), (40, 60, 60));
    assert_eq!(real.test_images, Some(40));
    let frechet = real.frechet.clone().unwrap();
    assert_eq!((frechet.ratio, frechet.floor.as_ref()), (Some(1.0), Some(&frechet.generated)));
    let manifold = real.manifold.unwrap();
    assert_eq!(manifold.floor, Some(manifold.generated));
    assert_eq!(real.accuracy.clone().unwrap().generated.overall, 1.0);
    let memorisation = real.memorisation.unwrap();
    assert_eq!((memorisation.ratio, memorisation.generated.closest.len()), (Some(1.0), NUM_CLOSEST));
    let diversity = real.diversity.unwrap();
    assert_eq!(diversity.floor, Some(diversity.generated));

    // Copies of the training images, with swapped labels.
    let labels: Vec<u8> = train.labels().unwrap().iter().map(|label| 1 - label).collect();
    let copied = measure(train.images(), &labels);
    assert!(copied.frechet.unwrap().generated.distance < 1e-6);
    assert_eq!(copied.accuracy.unwrap().generated.by_class, [Some(0.0), Some(0.0)]);
    let memorisation = copied.memorisation.unwrap();
    assert_eq!((memorisation.generated.distance, memorisation.ratio), (0.0, Some(0.0)));
    assert_eq!(copied.manifold.unwrap().generated.precision.mean, 1.0);

    // Copies of one image.
    let same = measure(&test.images()[..64].repeat(20), &[0; 20]);
    assert!(same.frechet.unwrap().ratio.unwrap() > 2.0);
    assert_eq!(same.diversity.unwrap().generated.overall, Some(0.0));
    assert_eq!(same.manifold.unwrap().generated.recall.mean, 0.0);
    assert_eq!(same.test_images, Some(20), "as many test images as generated images");
    assert_eq!((stages[0], *stages.last().unwrap()), ("features of generated images", "memorisation"));
}

#[test]
fn real_images_of_other_classes_are_left_out() {
    let (train, test) = (data(60, 1, true), data(40, 2, true));
    let net = net(&train);
    let metrics = [Metric::Diversity];
    let evaluation = Evaluation {
        test: Some(&test),
        classes: Some(&[1]),
        metrics: &metrics,
        ..of_all_metrics(&net, &train)
    };
    let images =
        GeneratedImages { pixels: &test.images()[64..].repeat(2)[..64 * 12], labels: Some(&[1; 12]) };
    let report = evaluation.measure(&images, |_| ()).unwrap();
    assert_eq!((report.train_images, report.test_images), (30, Some(12)));
    let by_class = report.diversity.unwrap().floor.unwrap().by_class;
    assert_eq!(by_class.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true]);
    assert!(report.frechet.is_none() && report.accuracy.is_none() && report.memorisation.is_none());
}

#[test]
fn metrics_without_labels_and_test_images() {
    let train = data(60, 1, false);
    let net = net(&train);
    let evaluation = of_all_metrics(&net, &train);
    let (pixels, _) = bars(20, 3);
    let report = evaluation.measure(&GeneratedImages { pixels: &pixels, labels: None }, |_| ()).unwrap();
    assert!(report.accuracy.is_none() && report.test_images.is_none());
    let frechet = report.frechet.unwrap();
    assert!(frechet.floor.is_none() && frechet.ratio.is_none() && frechet.generated.limit.is_none());
    let diversity = report.diversity.unwrap();
    assert!(diversity.floor.is_none() && diversity.generated.by_class.is_empty());
    assert!(diversity.generated.overall.is_some_and(|value| value > 0.5));
    let memorisation = report.memorisation.unwrap();
    assert!(memorisation.floor.is_none() && memorisation.ratio.is_none());
    assert!(memorisation.generated.distance > 0.0);
    let projection = report.projection.unwrap();
    assert_eq!((projection.train.len(), projection.generated.len()), (60, 20));

    for (pixels, labels, expected) in [
        (&pixels[..64 * 9], None, "number of images is 9, expected at least 10"),
        (&pixels, Some(&[0][..]), "number of labels is 1, expected 20, one for each image"),
        (&pixels[1..], None, "number of pixels is 1279, expected a multiple of 64, the image size of bars"),
    ] {
        let error = evaluation.measure(&GeneratedImages { pixels, labels }, |_| ()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_ratio_is_that_of_the_distances_if_it_is_finite() {
    let near = |distance| NearestImage { index: 0, distance };
    let nearest = |images: &[NearestImage]| NearestTraining::new(images, None, 0).unwrap();
    let ratio = |generated: &[NearestImage], floor: &[NearestImage]| {
        MetricResult::of_distances(nearest(generated), Some(nearest(floor)), |found| found.distance).ratio
    };
    let generated = [near(30.0), near(10.0), near(20.0)];
    assert_eq!(nearest(&[near(40.0), near(10.0)]).distance, 25.0);
    assert_eq!(ratio(&generated, &[near(40.0), near(10.0)]), Some(0.8));
    assert_eq!(ratio(&generated, &[near(0.0)]), None);
    assert_eq!(MetricResult::of_distances(nearest(&generated), None, |found| found.distance).ratio, None);
}
