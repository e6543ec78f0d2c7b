//! Damaged files give an error or images of the right size, and never a panic.

use std::path::Path;

use ddpm_data::idx;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::idx::gzip;

const ROWS: usize = 6;
const COLS: usize = 4;

fn pixels() -> Vec<u8> {
    (0..240).collect()
}

fn files() -> [Vec<u8>; 2] {
    let raw = idx::encode_images(ROWS, COLS, &pixels()).unwrap();
    [gzip(&raw), raw]
}

/// A random number below `limit`.
fn below(rng: &mut ChaCha8Rng, limit: usize) -> usize {
    usize::try_from(rng.next_u64().rem_euclid(limit as u64)).unwrap()
}

#[test]
fn every_truncation_is_an_error() {
    for file in files() {
        for len in 0..file.len() {
            assert!(idx::parse_images(Path::new("x"), &file[..len]).is_err(), "{len}");
        }
    }
}

#[test]
fn one_flipped_bit_is_an_error_or_keeps_the_size() {
    for file in files() {
        let mut survived = 0;
        for bit in 0..8 * file.len() {
            let mut bytes = file.clone();
            bytes[bit.div_euclid(8)] ^= 1 << bit.rem_euclid(8);
            if let Ok(images) = idx::parse_images(Path::new("x"), &bytes) {
                survived += 1;
                assert_eq!((images.count(), images.rows(), images.cols()), (10, ROWS, COLS), "bit {bit}");
            }
            assert!(idx::parse_labels(Path::new("x"), &bytes).is_err(), "bit {bit}");
        }
        assert!(survived > 0);
    }
}

#[test]
fn random_damage_gives_an_error_or_consistent_images() {
    let mut rng = ChaCha8Rng::seed_from_u64(20);
    let mut survived = 0;
    for round in 0..20_000 {
        let mut bytes = files()[below(&mut rng, 2)].clone();
        for _ in 0..=below(&mut rng, 4) {
            let at = below(&mut rng, bytes.len());
            match below(&mut rng, 4) {
                0 => bytes.truncate(at + 1),
                1 => bytes[at] = 0xff,
                2 => bytes.insert(at, 0),
                _ => bytes[at] ^= 1 << below(&mut rng, 8),
            }
        }
        if let Ok(images) = idx::parse_images(Path::new("x"), &bytes) {
            survived += 1;
            let len = images.count() * images.rows() * images.cols();
            assert_eq!(images.pixels().len(), len, "{round}");
            if bytes.starts_with(&[0x1f, 0x8b]) {
                // The gzip checksum detects each change of the content.
                assert_eq!(images.pixels(), pixels(), "{round}");
            } else {
                assert_eq!(16 + len, bytes.len(), "{round}");
            }
        }
    }
    // Changed pixels in the uncompressed file are not an error.
    assert!(survived > 100, "{survived}");
}
