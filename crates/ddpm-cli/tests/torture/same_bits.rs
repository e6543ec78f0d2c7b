//! The same bits with any number of threads and in any batch.

use std::{fs, path::Path, thread};

use candle_core::{DType, Device, Tensor};
use ddpm_core::{CounterRng, Purpose};
use ddpm_model::{Denoiser, SampleConfig, read_model};

use crate::{ddpm, folder, size, success, train, trained, uninterrupted};

/// The built-in model.
fn denoiser() -> Denoiser {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/models/mnist");
    read_model(&folder, &Device::Cpu).unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

#[test]
fn images_are_the_same_bits_in_any_batch() {
    let (denoiser, count) = (denoiser(), size(1000, 24));
    let config = SampleConfig::ancestral(1, &denoiser).unwrap();
    let images: Vec<u64> = (0..count as u64).collect();
    let sample = |batch: usize| -> Vec<u32> {
        let sample = |part: &[u64]| {
            let classes: Vec<u32> = part.iter().map(|image| u32::try_from(image % 10).unwrap()).collect();
            bits(&denoiser.sample(&config, part, &classes, |_| Ok(())).unwrap())
        };
        images.chunks(batch).flat_map(sample).collect()
    };
    let expected = sample(1000);
    for batch in [1, 7, 64] {
        assert!(sample(batch) == expected, "{batch}");
    }
    println!("torture | batches | {count} images in batches of 1, 7, 64 and 1000 | the same bits");
}

#[test]
fn images_and_weights_are_the_same_bits_with_any_number_of_threads() {
    let (folder, count) = (folder(), size(1000, 24).to_string());
    for threads in ["1", "2", "4"] {
        let args = ["sample", "-n", &count, "--format", "idx", "-o", threads, "--threads", threads];
        success(&mut ddpm(folder.path(), &args, ""));
        success(&mut train(folder.path(), &["--overwrite", "--threads", threads], ""));
        assert!(trained(folder.path()) == uninterrupted().0, "{threads}");
    }
    let images =
        |threads: &str| fs::read(folder.path().join(format!("{threads}-images-idx3-ubyte"))).unwrap();
    assert!(images("2") == images("1") && images("4") == images("1"));
    println!(
        "torture | threads | {count} images, and the weights of a training, with 1, 2 and 4 threads | the same bits"
    );
}

/// The resident memory of this process in kB.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn threads_that_share_a_denoiser_get_the_same_bits_in_bounded_memory() {
    const THREADS: usize = 8;
    const BATCH: u64 = 7;
    let (denoiser, calls) = (denoiser(), size(36_000, 80));
    let indices: Vec<u64> = (0..BATCH).collect();
    let shape = [denoiser.config().pixels()];
    let x_t = CounterRng::new(1)
        .normal(Purpose::SAMPLE_START, &indices, 0, &shape, DType::F32, &Device::Cpu)
        .unwrap();
    let predict = |t: usize| bits(&denoiser.predict(&x_t, t, &[0, 1, 2, 3, 4, 5, 6], 1.5).unwrap());
    let expected: Vec<_> = (0..denoiser.schedule().num_train_timesteps()).map(predict).collect();
    let all = |calls: usize| {
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (expected, predict) = (&expected, &predict);
                scope.spawn(move || {
                    for call in 0..calls.div_euclid(THREADS) {
                        let t = (thread + call) % expected.len();
                        assert!(predict(t) == expected[t], "thread {thread}, call {call}");
                    }
                });
            }
        });
    };
    all(calls.div_euclid(10));
    let before = resident();
    all(calls);
    let growth = resident().saturating_sub(before);
    // Other tests may run at the same time.
    assert!(growth < 64 << 10, "{growth} kB");
    println!(
        "torture | concurrent prediction | {calls} calls by {THREADS} threads on one denoiser, as in an hour with ten a \
         second | the same bits; resident memory {} MB, grown by {growth} kB",
        before >> 10
    );
}
