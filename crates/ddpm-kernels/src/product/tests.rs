//! Compares products with their definition, in every instruction set.

#![allow(clippy::integer_division, reason = "whole panels")]

use super::*;
use crate::sets::{Set, chain, rows};

#[test]
fn a_product_is_its_chain_bit_for_bit_in_every_instruction_set() {
    let (inputs, panels) = (34 * PANEL, GROUP + 1);
    let stride = inputs + 1;
    let weight = rows(panels * stride, 13);
    let mut elements = 0;
    for batch in [1, 2, 5, 6, 7, 12, 13, 25, 40] {
        let (x, start) = (rows(inputs / PANEL * batch, 29), rows(panels * batch, 31));
        for set in Set::ALL {
            for (group, from_zero) in
                [(1, false), (PAIR, true), (GROUP, false), (GROUP, true), (panels, false)]
            {
                let mut out = start[..group * batch].to_vec();
                set.run(Product {
                    weight: &weight,
                    stride,
                    x: &x.chunks(batch).collect::<Vec<_>>(),
                    from_zero,
                    out: &mut out.chunks_mut(batch).collect::<Vec<_>>(),
                });
                for (i, (found, start)) in out.iter().zip(&start).enumerate() {
                    let (panel, image) = (i / batch, i % batch);
                    for lane in [0, 7, 15] {
                        let expected = chain(
                            if from_zero { 0.0 } else { start.0[lane] },
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
