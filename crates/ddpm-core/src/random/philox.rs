//! Philox4x32-10 of Salmon et al. 2011: ten rounds of multiplication and exclusive or over a counter.

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// The upper 32 bits of a product.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the upper half fits")]
pub(super) fn high(a: u32, b: u32) -> u32 {
    ((u64::from(a) * u64::from(b)) >> 32) as u32
}

/// Four random words at a counter, for a key.
#[inline]
pub(super) fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let [c0, c1, c2, c3] = counter;
        counter = [
            high(MULTIPLIER[1], c2) ^ c1 ^ key[0],
            MULTIPLIER[1].wrapping_mul(c2),
            high(MULTIPLIER[0], c0) ^ c3 ^ key[1],
            MULTIPLIER[0].wrapping_mul(c0),
        ];
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
            assert_eq!(philox4x32_10(counter, key), expected);
        }
    }
}
