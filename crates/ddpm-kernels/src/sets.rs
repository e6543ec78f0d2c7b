//! What the tests of products share.

use pulp::{Scalar, Simd, WithSimd};

use crate::panel::{PANEL, Row};

pub(crate) fn rows(count: usize, seed: usize) -> Vec<Row> {
    let number = |i: usize| ((i * seed + 7) % 1009) as f32 / 504.0 - 1.0;
    (0..count).map(|row| Row(std::array::from_fn(|lane| number(row * PANEL + lane)))).collect()
}

/// Instruction sets of this processor; each must give the same bits.
#[derive(Clone, Copy)]
pub(crate) enum Set {
    Scalar,
    Avx2,
    Best,
}

impl Set {
    pub(crate) const ALL: [Self; 3] = [Self::Scalar, Self::Avx2, Self::Best];

    pub(crate) fn run<W: WithSimd>(self, work: W) {
        #[cfg(target_arch = "x86_64")]
        if let (Self::Avx2, Some(avx2)) = (self, pulp::x86::V3::try_new()) {
            drop(Simd::vectorize(avx2, work));
            return;
        }
        match self {
            Self::Scalar => drop(Simd::vectorize(Scalar::new(), work)),
            _ => drop(pulp::Arch::new().dispatch(work)),
        }
    }
}

/// The definition of a product's element: one fused multiply-add after another.
pub(crate) fn chain(start: f32, terms: impl Iterator<Item = (f32, f32)>) -> f32 {
    terms.fold(start, |sum, (a, b)| a.mul_add(b, sum))
}
