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

/// Whether a file may end before these bytes: the line end of a text, or the end of an image, whose decoders draw what is
/// there.
fn may_end(target: &Target, rest: &[u8]) -> bool {
    rest == b"\n" || target.name == "image" && rest.len() < 30
}

#[test]
fn every_prefix_of_a_seed_is_an_error_that_names_the_file() {
    let (mut errors, mut read) = (0, 0);
    for target in TARGETS {
        for seed in (target.seeds)() {
            for length in spaced(seed.len()) {
                match (target.run)(&seed[..length]) {
                    Ok(()) => {
                        assert!(may_end(target, &seed[length..]), "{}: {length} bytes", target.name);
                        read += 1;
                    }
                    Err(error) => {
                        let named = target.file.is_none_or(|file| error.contains(file));
                        assert!(named, "{}: {error}", target.name);
                        errors += 1;
                    }
                }
            }
        }
    }
    println!(
        "torture | truncation | {} prefixes of the tiny files of {} parsers | {errors} typed errors, which name the file if \
         the parser has its path; {read} complete without their last bytes: a line end, the end of a PNG or a JPEG",
        errors + read,
        TARGETS.len()
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
