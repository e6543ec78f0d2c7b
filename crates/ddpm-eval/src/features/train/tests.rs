//! Training on small synthetic data sets.

use ddpm_data::{Images, Labels};

use super::*;

const SIDE: usize = 8;

/// Images with a bright bar at one of three heights, noise, and dots that make the four flips differ.
fn bars(count: usize, labelled: bool) -> Dataset {
    let pixel = |i: usize| {
        let (image, at) = (i.div_euclid(SIDE * SIDE), i.rem_euclid(SIDE * SIDE));
        let (row, col) = (at.div_euclid(SIDE), at % SIDE);
        let grey = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0] & 31;
        let bright = row.div_euclid(3) == image % 3 || (col == 0 && [0, 1, 4].contains(&row));
        if bright { 220 + grey } else { grey }
    };
    let images = Images::new("bars", SIDE, SIDE, (0..count * SIDE * SIDE).map(pixel).collect()).unwrap();
    let labels = (0..count).map(|image| u8::try_from(image % 3).unwrap()).collect();
    let labels = labelled.then(|| Labels { file: "labels".into(), values: labels });
    Dataset::new("bars", images, labels).unwrap()
}

fn training(epochs: u32) -> FeatureTraining {
    FeatureTraining { epochs, batch_size: 24, ..FeatureTraining::recipe(1) }
}

fn train(data: &Dataset, training: &FeatureTraining) -> FeatureNet {
    train_features(data, training, &Device::Cpu, |_| ()).unwrap()
}

#[test]
fn classes_are_learnt() {
    let net = train(&bars(96, true), &training(15));
    assert_eq!(net.num_classes(), Some(3));
    let accuracy = net.accuracy(&bars(48, true)).unwrap();
    assert_eq!(accuracy.overall, 1.0);
}

#[test]
fn flips_are_learnt_without_labels() {
    let data = bars(96, false);
    let net = train(&data, &training(40));
    assert_eq!((net.num_classes(), net.config().task), (None, Task::Flips));
    let accuracy = net.accuracy(&data).unwrap();
    assert_eq!(accuracy.by_class.len(), 4);
    assert!(accuracy.overall > 0.95, "chance is 0.25, found {}", accuracy.overall);
}

#[test]
fn the_loss_falls_and_progress_is_reported() {
    let (mut steps, mut losses) = (Vec::new(), Vec::new());
    train_features(&bars(96, true), &training(10), &Device::Cpu, |progress| {
        assert_eq!(progress.total, 40);
        steps.push(progress.step);
        losses.extend(progress.epoch_loss);
    })
    .unwrap();
    assert!(steps.into_iter().eq(1..=40));
    assert_eq!(losses.len(), 10);
    assert!(losses[9] < 0.5 * losses[0], "{losses:?}");
}

#[test]
fn a_seed_gives_one_net_on_any_number_of_threads() {
    let data = bars(48, true);
    let on = |threads, seed| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let training = FeatureTraining { seed, ..training(2) };
        pool.install(|| train(&data, &training).digest().to_owned())
    };
    assert_eq!(on(1, 1), on(3, 1));
    assert_ne!(on(1, 1), on(1, 2));
}

/// The gradients of the chunks of a batch sum to the gradient of the batch.
#[test]
fn gradients_of_chunks_sum_to_the_gradient_of_the_batch() {
    let data = bars(40, true);
    let config = FeatureConfig::for_data(&data);
    let rng = CounterRng::new(3);
    let vars = initial_weights(&config, rng, &Device::Cpu).unwrap();
    let net = TrainableNet::new(&config, &vars, &Device::Cpu).unwrap();
    let indices: Vec<u32> = (0..40).collect();
    let batch = Batch::new(&data, &config, &indices, 0, rng);
    let (loss, gradients) = net.gradients(&batch).unwrap();

    let x = Tensor::from_slice(&batch.pixels, (40, SIDE * SIDE), &Device::Cpu).unwrap();
    let targets = Tensor::new(batch.targets.as_slice(), &Device::Cpu).unwrap();
    let full = cross_entropy(&net.layers.forward(&x, &net.weights).unwrap().1, &targets).unwrap();
    let scalar = |tensor: &Tensor| tensor.to_scalar::<f32>().unwrap();
    assert!((scalar(&loss) - scalar(&full)).abs() < 1e-5);
    let expected = full.backward().unwrap();
    for (name, var) in &vars {
        let values = |gradients: &GradStore| -> Vec<f32> {
            gradients.get(var).unwrap().flatten_all().unwrap().to_vec1().unwrap()
        };
        let (found, expected) = (values(&gradients), values(&expected));
        let largest = expected.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        assert!(largest > 1e-4, "{name} has no gradient");
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5 + 1e-4 * largest, "{name}: {found} {expected}");
        }
    }
}

/// One step for each image size, and the shape of the features.
#[test]
fn image_sizes_from_1_by_1_to_64_by_64_are_supported() {
    for (rows, cols, classes) in [(1, 1, 2), (1, 64, 62), (64, 1, 0), (64, 64, 5), (13, 29, 1)] {
        let count = 62;
        let pixels = (0..rows * cols * count).map(|i| u8::try_from(i * 7 % 256).unwrap()).collect();
        let images = Images::new("images", rows, cols, pixels).unwrap();
        let labels = (classes > 0).then(|| Labels {
            file: "labels".into(),
            values: (0..count).map(|i| u8::try_from(i % classes).unwrap()).collect(),
        });
        let data = Dataset::new("set", images, labels).unwrap();
        let net = train(&data, &FeatureTraining { batch_size: 1000, ..training(1) });
        assert_eq!(net.num_classes(), (classes > 1).then_some(classes));
        assert_eq!(net.features(data.images()).unwrap().dims(), [count, 128]);
        assert!(net.accuracy(&data).unwrap().overall.is_finite());
    }
}

#[test]
fn data_out_of_range_is_refused() {
    let data = |rows, cols, label| {
        let images = Images::new("images", rows, cols, vec![0; rows * cols]).unwrap();
        let labels = Labels { file: "labels".into(), values: vec![label] };
        Dataset::new("set", images, Some(labels)).unwrap()
    };
    for (data, expected) in [
        (data(65, 4, 1), "images: rows is 65, expected 1 to 64"),
        (data(4, 4, 62), "images: num_classes is 63, expected 2 to 62"),
    ] {
        let error = train_features(&data, &training(1), &Device::Cpu, |_| ()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn an_image_is_flipped_then_shifted() {
    let image = [10, 20, 30, 40, 50, 60]; // two rows of three
    let augmented = |flip, shift| {
        let mut out = [1.0; 6];
        augment(&image, 3, flip, shift, &mut out);
        out.map(|x| (x * 255.0).round())
    };
    assert_eq!(augmented(0, [0, 0]), [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]);
    assert_eq!(augmented(1, [0, 0]), [30.0, 20.0, 10.0, 60.0, 50.0, 40.0]);
    assert_eq!(augmented(2, [0, 0]), [40.0, 50.0, 60.0, 10.0, 20.0, 30.0]);
    assert_eq!(augmented(3, [0, 0]), [60.0, 50.0, 40.0, 30.0, 20.0, 10.0]);
    assert_eq!(augmented(0, [1, -1]), [0.0, 0.0, 0.0, 20.0, 30.0, 0.0]);
    assert_eq!(augmented(1, [-1, 2]), [0.0, 0.0, 60.0, 0.0, 0.0, 0.0]);
}

#[test]
fn all_flips_agree_with_the_flips_of_training() {
    let data = bars(2, false);
    let (pixels, flips) = all_flips(&data);
    assert_eq!(flips, [0, 1, 2, 3, 0, 1, 2, 3]);
    for (i, (found, &flip)) in pixels.chunks(SIDE * SIDE).zip(&flips).enumerate() {
        let mut expected = [0.0; SIDE * SIDE];
        augment(data.image(i.div_euclid(4)).unwrap(), SIDE, u32::from(flip), [0, 0], &mut expected);
        assert!(found.iter().zip(expected).all(|(&found, expected)| f32::from(found) / 255.0 == expected));
    }
}

#[test]
fn shifts_of_28_pixels_range_from_minus_2_to_2() {
    let mut seen = std::collections::BTreeSet::new();
    let images = Images::new("dot", 28, 28, {
        let mut pixels = vec![0; 784];
        pixels[14 * 28 + 14] = 255;
        pixels
    });
    let data = Dataset::new("dot", images.unwrap(), None).unwrap();
    let config = FeatureConfig { task: Task::Classes { num_classes: 2 }, ..FeatureConfig::for_data(&data) };
    for step in 0..500 {
        let batch = Batch::new(&data, &config, &[0], step, CounterRng::new(1));
        let at = batch.pixels.iter().position(|&x| x == 1.0).unwrap();
        seen.insert((at.div_euclid(28), at % 28));
    }
    let all = (12..=16).flat_map(|row| (12..=16).map(move |col| (row, col)));
    assert!(seen.into_iter().eq(all));
}
