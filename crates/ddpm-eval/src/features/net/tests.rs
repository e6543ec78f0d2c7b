//! The frozen net against PyTorch and on MNIST, and its errors.

use ddpm_data::{Images, Labels};
use safetensors::SafeTensors;
use serde_json::Value;

use super::*;
use crate::features::{Convolution, folder::freeze};

const FIXTURE: &[u8] =
    include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/features.safetensors"));

/// A net with arbitrary weights, without training.
pub(in crate::features) fn untrained(rows: usize, cols: usize, task: Task) -> FeatureNet {
    let convolutions = vec![Convolution { channels: 4, kernel: 3, stride: 2 }];
    let config = FeatureConfig { rows, cols, task, convolutions, features: 6 };
    let weight = |shape: Vec<usize>| {
        let values = (0..shape.iter().product::<usize>()).map(|i| (i as f32 * 0.7).sin()).collect();
        Tensor::from_vec::<_, f32>(values, shape, &Device::Cpu).unwrap()
    };
    let weights = config.parameters().into_iter().map(|(name, shape)| (name, weight(shape))).collect();
    freeze(&config, &weights, &Device::Cpu).unwrap()
}

fn pixels(count: usize) -> Vec<u8> {
    (0..count as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0]).collect()
}

fn data(rows: usize, cols: usize, count: usize, labels: Option<Vec<u8>>) -> Dataset {
    let images = Images::new("images", rows, cols, pixels(rows * cols * count)).unwrap();
    let labels = labels.map(|values| Labels { file: "labels".into(), values });
    Dataset::new("set", images, labels).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// `fixtures/generate/features.py` computes the same nets with the convolutions and linear layers of PyTorch.
#[test]
fn features_and_logits_agree_with_pytorch() {
    let (_, metadata) = SafeTensors::read_metadata(FIXTURE).unwrap();
    let generator = metadata.metadata().as_ref().unwrap()["generator"].clone();
    let generator: Value = serde_json::from_str(&generator).unwrap();
    let file = SafeTensors::deserialize(FIXTURE).unwrap();
    let nets = generator["nets"].as_object().unwrap();
    assert_eq!(nets.len(), 5);
    for (name, net) in nets {
        let number = |key: &str| usize::try_from(net[key].as_u64().unwrap()).unwrap();
        let config = FeatureConfig {
            rows: number("rows"),
            cols: number("cols"),
            task: Task::Classes { num_classes: number("answers") },
            convolutions: serde_json::from_value(net["convolutions"].clone()).unwrap(),
            features: number("features"),
        };
        config.validate(std::path::Path::new("fixture")).unwrap();
        let tensor = |key: &str| {
            let view = file.tensor(&format!("{name}/{key}")).unwrap();
            Tensor::from_raw_buffer(view.data(), DType::F32, view.shape(), &Device::Cpu).unwrap()
        };
        let weights =
            config.parameters().into_iter().map(|(name, _)| (name.clone(), tensor(&name))).collect();
        let net = FeatureNet::new(config, &weights, Vec::new(), String::new(), &Device::Cpu).unwrap();
        let found = net.forward(file.tensor(&format!("{name}/images")).unwrap().data()).unwrap();
        for (found, key) in [(found.features, "found/features"), (found.logits.unwrap(), "found/logits")] {
            let expected = tensor(key);
            assert_eq!(found.dims(), expected.dims());
            let (found, expected) = (values(&found), values(&expected));
            let largest = expected.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
            assert!(largest > 0.1, "{name} {key}: {largest} is too small for a test");
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-4, "{name} {key}: {found} {expected}");
            }
        }
    }
}

/// On the 10,000 test images, which the net was not trained on. The model card states the accuracy.
#[test]
fn the_builtin_net_classifies_994_of_1000_test_images_correctly() {
    let net = FeatureNet::builtin(&Device::Cpu).unwrap();
    let accuracy = net.accuracy(&Dataset::mnist_test().unwrap()).unwrap();
    assert!(accuracy.overall >= 0.994, "{}", accuracy.overall);
    assert!(accuracy.by_class.iter().all(|part| part.is_some_and(|part| part > 0.985)), "{accuracy:?}");
    let card = include_str!("../../../assets/mnist-features/README.md");
    assert!(card.contains(net.digest()), "the card does not name the net {}", net.digest());
    assert!(card.contains(&format!("| accuracy on the test images | {:.4} |", accuracy.overall)), "{card}");
}

#[test]
fn the_output_for_an_image_does_not_depend_on_the_batch() {
    let net = untrained(5, 8, Task::Classes { num_classes: 3 });
    let pixels = pixels(40 * 77);
    let all = net.forward(&pixels).unwrap();
    let (features, logits) = (values(&all.features), values(all.logits.as_ref().unwrap()));
    assert_eq!((all.features.dims(), features.len(), logits.len()), (&[77, 6][..], 77 * 6, 77 * 3));
    for image in [0, 3, 4, 76] {
        let alone = net.forward(&pixels[image * 40..][..40]).unwrap();
        assert_eq!(values(&alone.features), features[image * 6..][..6]);
        assert_eq!(values(&alone.logits.unwrap()), logits[image * 3..][..3]);
    }
    let classes = net.classes(&pixels).unwrap();
    for (class, logits) in classes.iter().zip(logits.chunks(3)) {
        assert!(logits.iter().all(|&logit| logit <= logits[usize::from(*class)]));
    }
}

#[test]
fn no_images_give_empty_tensors() {
    let net = untrained(5, 8, Task::Classes { num_classes: 3 });
    let nothing = net.forward(&[]).unwrap();
    assert_eq!((nothing.features.dims(), nothing.logits.unwrap().dims()), (&[0, 6][..], &[0, 3][..]));
    assert!(net.classes(&[]).unwrap().is_empty());
}

#[test]
fn a_net_trained_without_labels_predicts_no_classes() {
    let net = untrained(5, 8, Task::Flips);
    assert_eq!(net.num_classes(), None);
    let found = net.forward(&pixels(80)).unwrap();
    assert!(found.logits.is_none() && found.classes().unwrap().is_none());
    assert!(matches!(net.classes(&pixels(80)), Err(Error::NoClassifier { .. })));
}

#[test]
fn images_of_another_size_are_refused() {
    let net = untrained(5, 8, Task::Classes { num_classes: 3 });
    let error = net.features(&pixels(41)).unwrap_err().to_string();
    assert_eq!(error, "number of pixels is 41, expected a multiple of 40, the image size of the feature net");
    let error = net.ensure_fits(&data(8, 5, 3, None)).unwrap_err().to_string();
    assert_eq!(error, "image size of set is 8×5, expected 5×8 as in the feature net");
    let error = net.accuracy(&data(5, 8, 2, Some(vec![0, 1]))).unwrap_err().to_string();
    assert_eq!(error, "number of classes of set is 2, expected 3 as in the feature net");
    assert!(net.ensure_fits(&data(5, 8, 2, None)).is_ok());
    assert!(matches!(
        net.accuracy(&data(5, 8, 2, None)),
        Err(Error::Data(ddpm_data::Error::NoLabels { .. }))
    ));
}
