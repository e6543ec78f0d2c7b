use ddpm_data::{Images, Labels};

use super::*;
use crate::{FeatureTraining, train_features};

const SIDE: usize = 8;

/// Bars at one of two heights under noise that depends on `seed`.
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

#[test]
fn images_of_the_same_kind_are_near_the_floor_and_copies_and_noise_are_not() {
    let (train, test) = (data(60, 1, true), data(40, 2, true));
    let net = net(&train);
    let evaluation = Evaluation {
        net: &net,
        train: &train,
        test: Some(&test),
        classes: None,
        metrics: &Metric::ALL,
        seed: 1,
        device: &Device::Cpu,
    };
    let mut parts = Vec::new();
    let mut measure = |pixels: &[u8], labels: &[u8]| {
        let images = GeneratedImages { pixels, labels: Some(labels) };
        evaluation.measure(&images, |part| parts.push(part)).unwrap()
    };
    // The test images themselves have the figures of the floor.
    let real = measure(test.images(), test.labels().unwrap());
    assert_eq!((real.samples, real.train_images, real.subset_images), (40, 60, 60));
    assert_eq!(real.test_images, Some(40));
    let frechet = real.frechet.clone().unwrap();
    assert_eq!((frechet.ratio, frechet.floor.as_ref()), (Some(1.0), Some(&frechet.generated)));
    let manifold = real.manifold.unwrap();
    assert_eq!(manifold.floor, Some(manifold.generated));
    assert_eq!(real.accuracy.clone().unwrap().generated.overall, 1.0);
    let memorisation = real.memorisation.unwrap();
    assert_eq!((memorisation.ratio, memorisation.generated.closest.len()), (Some(1.0), CLOSEST));
    let diversity = real.diversity.unwrap();
    assert_eq!(diversity.floor, Some(diversity.generated));

    // Training images, copied, each under the other's label.
    let labels: Vec<u8> = train.labels().unwrap().iter().map(|label| 1 - label).collect();
    let copied = measure(train.images(), &labels);
    assert!(copied.frechet.unwrap().generated.distance < 1e-6);
    assert_eq!(copied.accuracy.unwrap().generated.by_class, [Some(0.0), Some(0.0)]);
    let memorisation = copied.memorisation.unwrap();
    assert_eq!((memorisation.generated.distance, memorisation.ratio), (0.0, Some(0.0)));
    assert_eq!(copied.manifold.unwrap().generated.precision.mean, 1.0);

    // One and the same image.
    let same = measure(&test.images()[..64].repeat(20), &[0; 20]);
    assert!(same.frechet.unwrap().ratio.unwrap() > 2.0);
    assert_eq!(same.diversity.unwrap().generated.overall, Some(0.0));
    assert_eq!(same.manifold.unwrap().generated.recall.mean, 0.0);
    assert_eq!(same.test_images, Some(20), "as many as are generated");
    assert_eq!((parts[0], *parts.last().unwrap()), ("features of generated images", "memorisation"));
}

#[test]
fn classes_left_out_leave_out_real_images() {
    let (train, test) = (data(60, 1, true), data(40, 2, true));
    let net = net(&train);
    let metrics = [Metric::Diversity];
    let evaluation = Evaluation {
        net: &net,
        train: &train,
        test: Some(&test),
        classes: Some(&[1]),
        metrics: &metrics,
        seed: 1,
        device: &Device::Cpu,
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
fn without_labels_and_test_images_the_rest_is_measured() {
    let train = data(60, 1, false);
    let net = net(&train);
    let evaluation = Evaluation {
        net: &net,
        train: &train,
        test: None,
        classes: None,
        metrics: &Metric::ALL,
        seed: 1,
        device: &Device::Cpu,
    };
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
    let view = report.view.unwrap();
    assert_eq!((view.train.len(), view.generated.len()), (60, 20));

    let few = GeneratedImages { pixels: &pixels[..64 * 9], labels: None };
    let failed = evaluation.measure(&few, |_| ());
    assert!(matches!(failed, Err(Error::TooFewRows { found: 9, least: LEAST })));
    let failed = evaluation.measure(&GeneratedImages { pixels: &pixels, labels: Some(&[0]) }, |_| ());
    assert!(matches!(failed, Err(Error::Counts { found: 1, expected: 20 })));
}
