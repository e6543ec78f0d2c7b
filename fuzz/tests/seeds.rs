//! Each target on its seeds, on every prefix of them, and with every bit flipped.

use ddpm_fuzz::TARGETS;

/// A longer seed is cut and flipped at evenly spaced places.
const PLACES: usize = 2000;

#[test]
fn no_prefix_and_no_flipped_bit_of_a_seed_makes_a_parser_panic() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty() && seeds.iter().all(|seed| !seed.is_empty()), "{}", target.name);
        for seed in seeds {
            (target.run)(&seed);
            for length in (0..seed.len()).step_by(seed.len().div_ceil(PLACES)) {
                (target.run)(&seed[..length]);
            }
            let bits = seed.len() * 8;
            for bit in (0..bits).step_by(bits.div_ceil(PLACES)) {
                let mut flipped = seed.clone();
                flipped[bit.div_euclid(8)] ^= 1 << bit.rem_euclid(8);
                (target.run)(&flipped);
            }
        }
    }
}
