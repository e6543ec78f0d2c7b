//! Each target on its seeds, on every prefix of them, and with every bit flipped.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use ddpm_fuzz::{TARGETS, Target};

/// A longer seed is cut and flipped at this number of evenly spaced places, or everywhere with `DDPM_TORTURE=full`.
fn places() -> usize {
    if std::env::var("DDPM_TORTURE").is_ok_and(|size| size == "full") { usize::MAX } else { 2000 }
}

/// Evenly spaced numbers below `count`.
fn spaced(count: usize) -> impl Iterator<Item = usize> {
    (0..count).step_by(count.div_ceil(places()).max(1))
}

#[test]
fn every_seed_is_read() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty() && seeds.iter().all(|seed| !seed.is_empty()), "{}", target.name);
    }
}

/// Whether a file may end after these bytes: before the line end of a text, or inside an image, whose decoders draw what is
/// there.
fn may_end(target: &Target, rest: &[u8]) -> bool {
    rest == b"\n" || target.name == "image"
}

#[test]
fn every_prefix_of_a_seed_is_an_error_that_names_the_file() {
    let (mut prefixes, mut parsers) = (0, 0);
    for target in TARGETS {
        parsers += 1;
        for seed in (target.seeds)() {
            for length in spaced(seed.len()) {
                let result = (target.run)(&seed[..length]);
                if may_end(target, &seed[length..]) {
                    continue;
                }
                let error = result.unwrap_err();
                assert!(target.file.is_none_or(|file| error.contains(file)), "{}: {error}", target.name);
                prefixes += 1;
            }
        }
    }
    println!(
        "torture | truncation | every prefix of the tiny files of {parsers} parsers | {prefixes} of {prefixes} a typed \
         error, which names the file if the parser has its path"
    );
}

#[test]
fn no_flipped_bit_of_a_seed_makes_a_parser_panic() {
    let (mut errors, mut read) = (0, 0);
    for target in TARGETS {
        for seed in (target.seeds)() {
            for bit in spaced(seed.len() * 8) {
                let mut flipped = seed.clone();
                flipped[bit.div_euclid(8)] ^= 1 << bit.rem_euclid(8);
                match (target.run)(&flipped) {
                    Ok(()) => read += 1,
                    Err(_) => errors += 1,
                }
            }
        }
    }
    println!(
        "torture | bit flips of untrusted files | the bits of the tiny files of {} parsers | {} of {} without a panic: \
         {errors} typed errors, {read} read as another file",
        TARGETS.len(),
        errors + read,
        errors + read
    );
}
