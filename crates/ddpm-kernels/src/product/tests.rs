//! Compares products with their definition, in every instruction set.

#![allow(clippy::integer_division, reason = "whole panels")]

use pulp::Scalar;

use super::*;
use crate::StatePart;

fn rows(count: usize, seed: usize) -> Vec<Row> {
    let number = |i: usize| ((i * seed + 7) % 1009) as f32 / 504.0 - 1.0;
    (0..count).map(|row| Row(std::array::from_fn(|lane| number(row * PANEL + lane)))).collect()
}

/// Instruction sets of this processor; each must give the same bits.
#[derive(Clone, Copy)]
enum Set {
    Scalar,
    Avx2,
    Best,
}

impl Set {
    const ALL: [Self; 3] = [Self::Scalar, Self::Avx2, Self::Best];

    fn run<W: WithSimd>(self, work: W) {
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
fn chain(start: f32, terms: impl Iterator<Item = (f32, f32)>) -> f32 {
    terms.fold(start, |sum, (a, b)| a.mul_add(b, sum))
}

#[test]
fn a_product_is_its_chain_bit_for_bit_in_every_instruction_set() {
    let (inputs, panels) = (DEPTH + 2 * PANEL, GROUP + 1);
    let stride = inputs + 1;
    let weight = rows(panels * stride, 13);
    let mut elements = 0;
    for batch in [1, 2, 5, 6, 7, 12, 13, 25, 40] {
        let (x, start) = (rows(inputs / PANEL * batch, 29), rows(panels * batch, 31));
        for set in Set::ALL {
            for group in [1, GROUP] {
                let mut out = start[..group * batch].to_vec();
                let next = Next { rows: &weight, first: 0, stride: PANEL };
                set.run(Product {
                    weight: &weight[..group * stride],
                    stride,
                    x: &x,
                    batch,
                    out: &mut out,
                    next,
                });
                for (i, (found, start)) in out.iter().zip(&start).enumerate() {
                    let (panel, image) = (i / batch, i % batch);
                    for lane in [0, 7, 15] {
                        let expected = chain(
                            start.0[lane],
                            (0..inputs).map(|k| {
                                let x = x[k / PANEL * batch + image].0[k % PANEL];
                                (weight[panel * stride + k].0[lane], x)
                            }),
                        );
                        assert_eq!(found.0[lane].to_bits(), expected.to_bits(), "{batch} {i} {lane}");
                        elements += 1;
                    }
                }
            }
        }
    }
    println!(
        "torture | instruction sets | {elements} elements of matrix products, one number at a time, with AVX2 and with the \
         best instructions of this processor | the same bits as one chain of fused multiply-adds"
    );
}

#[test]
fn the_gradient_of_a_weight_is_its_chain_in_every_instruction_set() {
    // After this step, the first moment equals the gradient.
    let step = AdamwEma {
        first: [0.0, 1.0],
        second: [0.0, 1.0],
        eps: 1.0,
        keep: 1.0,
        rate: 0.5,
        second_scale: 1.0,
        ema: [0.5, 0.5],
    };
    for batch in [1, 9, IMAGES + 3] {
        let (upstream, x, start) = (rows(batch, 13), rows(3 * batch, 29), rows(3 * PANEL, 31));
        let mut of_scalars = None;
        for set in Set::ALL {
            let mut all: [Vec<Row>; 4] = std::array::from_fn(|_| start.clone());
            let state = all.each_mut().map(Vec::as_mut_slice);
            set.run(WeightGradient { upstream: &upstream, x: &x, step, state });
            for (k, row) in all[StatePart::First as usize].iter().enumerate() {
                let x = |image: usize| x[k / PANEL * batch + image].0[k % PANEL];
                let expected = chain(0.0, (0..batch).map(|image| (upstream[image].0[3], x(image))));
                assert_eq!(row.0[3].to_bits(), expected.to_bits(), "{batch} {k}");
            }
            assert!(*of_scalars.get_or_insert_with(|| all.clone()) == all);
        }
    }
}
