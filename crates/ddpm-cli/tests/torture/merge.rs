//! `merge` of many parts, and of large ones.

use std::{fs, path::Path};

use ddpm_data::idx::{encode_images, encode_labels};
use ddpm_files::sha256_hex;
use serde_json::json;

use crate::{ddpm, reports, size, success};

/// The side of an image in pixels.
const PIXELS: usize = 16;

/// Writes the parts of a job as `sample --shard` does, all with the same images.
fn write_parts(folder: &Path, parts: usize, images: usize) {
    fs::create_dir(folder).unwrap();
    let labels: Vec<u8> = (0..images).map(|image| u8::from(image % 2 == 1)).collect();
    let files = [
        ("images-idx3-ubyte", encode_images(PIXELS, PIXELS, &vec![7; images * PIXELS * PIXELS]).unwrap()),
        ("labels-idx1-ubyte", encode_labels(&labels).unwrap()),
    ]
    .map(|(end, bytes)| (end, sha256_hex(&bytes), bytes));
    for part in 0..parts {
        let mut written = serde_json::Map::new();
        for (end, digest, bytes) in &files {
            fs::write(folder.join(format!("{part}-{end}")), bytes).unwrap();
            written.insert(end.split('-').next().unwrap().to_owned(), digest.clone().into());
        }
        let (all, shard) = ((parts * images).to_string(), format!("{}/{parts}", part + 1));
        let recipe = json!({
            "version": "0", "model_sha256": "", "images": [part * images, (part + 1) * images - 1], "classes": [0, 1],
            "steps": 1, "arguments": ["--num-images", all, "--shard", shard, "--format", "idx"], "written": written,
        });
        fs::write(folder.join(format!("{part}-recipe.json")), recipe.to_string()).unwrap();
    }
}

/// The largest memory of `merge` in kB.
fn peak(parts: usize, images: usize, format: &str) -> usize {
    let folder = tempfile::tempdir().unwrap();
    write_parts(&folder.path().join("parts"), parts, images);
    let arguments = ["merge", "parts", "--format", format, "-o", "merged", "-q"];
    let stderr = success(&mut ddpm(folder.path(), &arguments, "report"));
    let name = if format == "idx" { "merged-images-idx3-ubyte" } else { "merged" };
    let merged = fs::metadata(folder.path().join(name)).unwrap().len();
    assert!(merged >= (parts * images * PIXELS * PIXELS) as u64);
    reports(&stderr).last().unwrap().peak
}

#[test]
fn memory_does_not_grow_with_the_images_and_hardly_with_the_parts() {
    let (many, large) = (size(20_000, 2_000), size(500_000, 50_000));
    for format in ["idx", "safetensors"] {
        let few = peak(4, 10, format);
        let [parts, images] = [peak(many, 10, format), peak(4, large, format)];
        // The arrays of the large parts have 256 bytes an image: 51 MB or more.
        assert!(images < few + (4 << 10), "{format}: {images} kB, {few} kB with few images");
        // The name of each part is kept.
        assert!(parts < few + (4 << 10) + many, "{format}: {parts} kB, {few} kB with few parts");
        #[allow(clippy::print_stdout, reason = "a row of the table of `cargo xtask torture`")]
        {
            println!(
                "torture | many parts | `merge` to {format}: {many} parts of 10 images, and 4 parts of {large}, of \
                 {PIXELS}×{PIXELS} pixels | peak {} and {} MB; {} MB for 4 parts of 10",
                parts >> 10,
                images >> 10,
                few >> 10
            );
        }
    }
}
