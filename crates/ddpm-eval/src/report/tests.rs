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
    let (train, test) = (data(150, 1, true), data(140, 2, true));
    let net = net(&train);
    let evaluation = Evaluation { test: Some(&test), ..of_all_metrics(&net, &train) };
    let mut stages = Vec::new();
    let mut measure = |pixels: &[u8], labels: &[u8]| {
        let images = GeneratedImages { pixels, labels: Some(labels) };
        evaluation.measure(&images, |stage| stages.push(stage)).unwrap()
    };
    // The metrics of the test images equal the floor.
    let real = measure(test.images(), test.labels().unwrap());
    assert_eq!((real.samples, real.train_images, real.subset_images), (140, 150, 150));
    assert_eq!((real.test_images, real.distinct_samples), (Some(140), 140));
    let not_extrapolated = |set, found| Missing::NotExtrapolated { set, found, least: 512 };
    let limits = [not_extrapolated(ImageSet::Generated, 140), not_extrapolated(ImageSet::Test, 140)];
    assert_eq!(real.missing, limits);
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
    let same = measure(&test.images()[..64].repeat(130), &[0; 130]);
    assert_eq!((same.samples, same.distinct_samples), (130, 1));
    assert!(same.frechet.unwrap().ratio.unwrap() > 2.0);
    assert_eq!(same.diversity.unwrap().generated.overall, Some(0.0));
    assert_eq!(same.manifold.unwrap().generated.recall.mean, 0.0);
    assert_eq!(same.test_images, Some(130), "as many test images as generated images");
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
    assert!(report.frechet.is_none() && report.kernel.unwrap().floor.is_none());
    let diversity = report.diversity.unwrap();
    assert!(diversity.floor.is_none() && diversity.generated.by_class.is_empty());
    assert!(diversity.generated.overall.is_some_and(|value| value > 0.5));
    let memorisation = report.memorisation.unwrap();
    assert!(memorisation.floor.is_none() && memorisation.ratio.is_none());
    assert!(memorisation.generated.distance > 0.0);
    let projection = report.projection.unwrap();
    assert_eq!((projection.train.len(), projection.generated.len()), (60, 20));

    for (pixels, labels, expected) in [
        (&pixels[..0], None, "number of images is 0, expected at least 1"),
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

/// The values that a few images have are those of the metrics by themselves, and each other metric has its reason.
#[test]
fn few_images_have_some_metrics_and_a_reason_for_each_other() {
    let (train, test) = (data(150, 1, true), data(140, 2, true));
    let net = net(&train);
    let (pixels, labels) = bars(130, 3);
    let measure = |count: usize, test| {
        let images = GeneratedImages { pixels: &pixels[..64 * count], labels: Some(&labels[..count]) };
        Evaluation { test, ..of_all_metrics(&net, &train) }.measure(&images, |_| ()).unwrap()
    };
    let too_few = |metric: &str, set, found: usize, least: usize| {
        format!("There is no {metric}, because at least {least} {set} images are needed")
            + match metric.split(' ').next() {
                Some("Fréchet") => ", one more than there are features",
                Some("kernel") => ", for two subsets of two",
                _ => ", one more than k neighbours",
            }
            + &format!("; found {found}.")
    };
    let manifold = "precision, recall, density or coverage";
    let sentences = |report: &Report| report.missing.iter().map(ToString::to_string).collect::<Vec<_>>();
    for count in [1, 2, 3, 4, 128] {
        let report = measure(count, Some(&test));
        assert_eq!(report.test_images, Some(count));
        let mut expected = vec![too_few("Fréchet distance", "generated", count, 129)];
        if count < 4 {
            expected.push(too_few("kernel distance", "generated", count, 4));
            expected.push(too_few(manifold, "generated", count, 4));
        }
        assert_eq!((report.kernel.is_some(), report.manifold.is_some()), (count >= 4, count >= 4));
        let diversity = report.diversity.as_ref().unwrap();
        let without_value = [
            ("", "generated", &diversity.generated),
            (" of test images", "test", diversity.floor.as_ref().unwrap()),
        ];
        for (of, set, found) in without_value {
            // The classes alternate, so of two images, or by chance of more test images, no two are of one class.
            if found.overall.is_none() {
                let reason =
                    format!("because no class has two {set} images and training images that differ.");
                expected.push(format!("The diversity{of} has no value, {reason}"));
            }
        }
        assert_eq!(diversity.generated.overall.is_none(), count < 3, "{count}");
        assert_eq!(sentences(&report), expected, "{count}");
        let accuracy = report.accuracy.unwrap();
        assert_eq!((accuracy.generated.overall, accuracy.floor.unwrap().overall), (1.0, 1.0));
        let nearest = nearest_images(&train, &pixels[..64 * count], &Device::Cpu).unwrap();
        let mean = nearest.iter().map(|image| image.distance).sum::<f64>() / count as f64;
        assert!((report.memorisation.unwrap().generated.distance - mean).abs() < 1e-12);
    }

    // The Fréchet distance of as many images as it needs is that of the fits. The floor needs as many.
    let report = measure(129, Some(&test));
    let fit = |pixels: &[u8]| crate::GaussianFit::new(&net.features(pixels).unwrap()).unwrap();
    let direct = crate::frechet_distance(&fit(&pixels[..64 * 129]), &fit(train.images())).unwrap();
    let found = report.frechet.unwrap();
    assert_eq!(found.generated.distance, direct);
    assert!(found.floor.is_some());
    let few = data(3, 2, true);
    let report = measure(130, Some(&few));
    assert_eq!(report.test_images, Some(3));
    assert!(report.frechet.as_ref().is_some_and(|found| found.floor.is_none() && found.ratio.is_none()));
    assert!(report.kernel.as_ref().unwrap().floor.is_none());
    assert!(report.manifold.as_ref().unwrap().floor.is_none());
    let of_test = |metric: &str, least| {
        too_few(metric, "test", 3, least).replace(", because", " of test images, because")
    };
    let expected = [
        of_test("Fréchet distance", 129),
        "The Fréchet distance is not extrapolated, because that needs at least 512 generated images, four for each \
         feature; found 130."
            .to_owned(),
        of_test("kernel distance", 4),
        of_test(manifold, 4),
    ];
    assert_eq!(sentences(&report)[..4], expected);
}

#[test]
fn too_few_training_images_have_no_frechet_distance() {
    let train = data(128, 1, true);
    let net = net(&train);
    let metrics = [Metric::Frechet];
    let evaluation = Evaluation { metrics: &metrics, ..of_all_metrics(&net, &train) };
    let (pixels, _) = bars(600, 3);
    let images = GeneratedImages { pixels: &pixels, labels: None };
    let report = evaluation.measure(&images, |_| ()).unwrap();
    assert!(report.frechet.is_none() && report.projection.is_some());
    let expected = "There is no Fréchet distance, because at least 129 training images are needed, one more than there \
                    are features; found 128.";
    assert_eq!(report.missing[0].to_string(), expected);
}

#[test]
fn a_reason_is_given_for_what_needs_labels() {
    let (labelled, unlabelled) = (data(60, 1, true), data(60, 1, false));
    let (with_classes, without) = (net(&labelled), net(&unlabelled));
    let metrics = [Metric::Accuracy, Metric::Diversity];
    let (pixels, labels) = bars(20, 3);
    let missing = |net: &FeatureNet, train: &Dataset, test: Option<&Dataset>, labels: Option<&[u8]>| {
        let evaluation = Evaluation { metrics: &metrics, test, ..of_all_metrics(net, train) };
        let images = GeneratedImages { pixels: &pixels, labels };
        evaluation.measure(&images, |_| ()).unwrap().missing
    };
    use ImageSet::{Generated, Test};
    let found = missing(&with_classes, &labelled, Some(&labelled), None);
    assert_eq!(found, [Missing::NoLabels { set: Generated }, Missing::NotByClass]);
    assert_eq!(
        missing(&with_classes, &labelled, Some(&unlabelled), Some(&labels)),
        [Missing::NoLabels { set: Test }, Missing::NoTestDiversity]
    );
    assert_eq!(missing(&without, &labelled, None, Some(&labels)), [Missing::NoClassifier]);
    assert_eq!(missing(&with_classes, &labelled, Some(&labelled), Some(&labels)), []);
    // Without classes in the data there are none to measure the diversity in.
    assert_eq!(missing(&without, &unlabelled, None, None), [Missing::NoClassifier]);
}
