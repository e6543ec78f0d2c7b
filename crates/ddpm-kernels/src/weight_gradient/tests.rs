//! Compares gradients with their definition, in every instruction set.

#![allow(clippy::integer_division, reason = "whole panels")]

use super::*;
use crate::{
    StatePart,
    sets::{Set, chain, rows},
};

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
    for batch in [1, 9, ROWS, ROWS + 3] {
        let (upstream, x, start) = (rows(PAIR * batch, 13), rows(3 * batch, 29), rows(3 * PANEL, 31));
        let mut of_scalars = None;
        for set in Set::ALL {
            let mut all: [[Vec<Row>; 4]; PAIR] =
                std::array::from_fn(|_| std::array::from_fn(|_| start.clone()));
            set.run(WeightGradient {
                upstream: &upstream.chunks(batch).collect::<Vec<_>>(),
                x: &x.chunks(batch).collect::<Vec<_>>(),
                step,
                state: &mut all.each_mut().map(|state| state.each_mut().map(Vec::as_mut_slice)),
            });
            for (panel, state) in all.iter().enumerate() {
                for (k, row) in state[StatePart::First as usize].iter().enumerate() {
                    let x = |image: usize| x[k / PANEL * batch + image].0[k % PANEL];
                    let of_image = |image: usize| (upstream[panel * batch + image].0[3], x(image));
                    let expected = chain(0.0, (0..batch).map(of_image));
                    assert_eq!(row.0[3].to_bits(), expected.to_bits(), "{batch} {panel} {k}");
                }
            }
            assert!(*of_scalars.get_or_insert_with(|| all.clone()) == all);
        }
    }
}
