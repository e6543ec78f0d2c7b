//! Philox4x32-10 of Salmon et al. 2011: ten rounds of multiplication and exclusive or over a counter.

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// The upper 32 bits of a product.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "the upper half fits")]
pub(super) fn high(a: u32, b: u32) -> u32 {
    ((u64::from(a) * u64::from(b)) >> 32) as u32
}

/// Four random words at each of `L` counters, for a key. Word by word, so that a compiler can take the counters
/// side by side in a vector.
#[inline(always)]
pub(super) fn philox4x32_10<const L: usize>(mut counter: [[u32; L]; 4], mut key: [u32; 2]) -> [[u32; L]; 4] {
    for _ in 0..10 {
        let [mut c0, mut c1, mut c2, mut c3] = counter;
        for lane in 0..L {
            let (from_0, from_2) = (c0[lane], c2[lane]);
            c0[lane] = high(MULTIPLIER[1], from_2) ^ c1[lane] ^ key[0];
            c1[lane] = MULTIPLIER[1].wrapping_mul(from_2);
            c2[lane] = high(MULTIPLIER[0], from_0) ^ c3[lane] ^ key[1];
            c3[lane] = MULTIPLIER[0].wrapping_mul(from_0);
        }
        counter = [c0, c1, c2, c3];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::philox4x32_10;

    /// The known answers that its authors publish with the Random123 library (`kat_vectors`).
    #[test]
    fn known_answers_of_random123() {
        let ones = u32::MAX;
        for (counter, key, expected) in [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([ones; 4], [ones; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox4x32_10(counter.map(|word| [word]), key), expected.map(|word| [word]));
        }
    }
}
