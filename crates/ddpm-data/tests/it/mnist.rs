//! The built-in MNIST, compared with published facts about it.

use ddpm_data::{Dataset, HubConfig, Source, Splits};

fn counts(set: &Dataset) -> [usize; 10] {
    let mut counts = [0; 10];
    for &label in set.labels().unwrap() {
        counts[usize::from(label)] += 1;
    }
    counts
}

#[test]
fn sizes_names_and_labels_match_the_published_ones() {
    let splits = Splits::mnist().unwrap();
    let (train, test) = (splits.train(), splits.test().unwrap());
    assert_eq!((train.len(), test.len()), (60_000, 10_000));
    for set in [train, test] {
        assert_eq!((set.rows(), set.cols(), set.image_size()), (28, 28, 784));
        assert_eq!(set.classes(), Some(10));
        assert_eq!(set.images().len(), set.len() * 784);
    }
    assert_eq!((splits.name(), train.name(), test.name()), ("MNIST", "MNIST/train", "MNIST/test"));
    assert_eq!(splits.commit(), None);
    assert_eq!(train.labels().unwrap()[..10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
    assert_eq!(test.labels().unwrap()[..10], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]);
    assert_eq!(counts(train), [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]);
    assert_eq!(counts(test), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]);
}

#[test]
fn mean_and_standard_deviation_match_the_published_ones() {
    let stats = Dataset::mnist_train().unwrap().stats();
    // 0.1307 and 0.3081 for pixels scaled to [0, 1].
    assert!((stats.mean - (2.0 * 0.1307 - 1.0)).abs() < 1e-4, "{stats:?}");
    assert!((stats.std - 2.0 * 0.3081).abs() < 1e-4, "{stats:?}");
}

#[test]
fn digests_match_the_original_files() {
    let test = Dataset::mnist_test().unwrap();
    assert_eq!(test.images_sha256(), "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7");
    assert_eq!(
        test.labels_sha256(),
        Some("ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2")
    );
}

#[test]
fn mnist_is_a_source() {
    let config = HubConfig::new("http://127.0.0.1:9", "unused");
    let splits = "mnist".parse::<Source>().unwrap().load(&config).unwrap();
    assert_eq!(splits.name(), "MNIST");
    assert_eq!(splits.train().len(), 60_000);
}
