//! Small files that expand to gigabytes.

use std::{fs, io::Write, time::Instant};

use ddpm_data::idx::header_of_images;
use flate2::{Compression, write::GzEncoder};

use crate::{ddpm, folder, reports, text};

/// This content and 1 GiB of zeros, compressed, in members of 1 MiB.
fn bomb(start: &[u8]) -> Vec<u8> {
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    [gzip(start), gzip(&vec![0; 1 << 20]).repeat(1 << 10)].concat()
}

#[test]
fn a_gz_bomb_is_refused_without_its_memory() {
    let bombs = [
        ("nothing but zeros", Vec::new(), "expected an IDX file of images"),
        ("after a header of one image", header_of_images(1, 28, 28).unwrap(), "expected 800"),
        ("after a header of 4 GiB", header_of_images(1 << 16, 256, 256).unwrap(), "expected at most"),
    ];
    for (what, start, message) in bombs {
        let folder = folder();
        let images = folder.path().join("data/train-images-idx3-ubyte");
        fs::remove_file(&images).unwrap();
        fs::write(images.with_extension("gz"), bomb(&start)).unwrap();
        let started = Instant::now();
        let output = ddpm(folder.path(), &["data", "--data", "data"], "report").output().unwrap();
        let (seconds, stderr) = (started.elapsed().as_secs_f64(), text(&output));
        assert_eq!(output.status.code(), Some(1), "{what}: {stderr}");
        assert!(
            stderr.contains("train-images-idx3-ubyte.gz") && stderr.contains(message),
            "{what}: {stderr}"
        );
        let peak = reports(&stderr).last().unwrap().peak;
        assert!(peak < 64 << 10, "{what}: {peak} kB");
        println!(
            "torture | gz bomb | 1 GiB of zeros, {what} | refused in {seconds:.2} s, peak {} MB",
            peak >> 10
        );
    }
}
