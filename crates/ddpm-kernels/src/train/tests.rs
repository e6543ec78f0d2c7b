//! Compares the gradient with central differences of the loss, without a tensor library.

use super::*;
use crate::{Inputs, gradient::GRADIENT};

/// A program with every kind of operation, conditions, patches that extend past both edges, and widths that are not
/// multiples of sixteen.
fn program() -> Program {
    let mut p = Program::new(Inputs { rows: 3, cols: 4, patch: 2, time: 3, classes: 4 });
    let e = p.linear("time", &[Program::TIME], Shape::flat(6), 1.0, None);
    let condition = p.class("class", e);
    p.silu();
    let patches = p.shape(Program::IMAGE).patches;
    let about = p.linear("about", &[condition], Shape::flat(5), 1.0, None);
    let local = p.local("local", &[Program::IMAGE], Shape { patches, width: 5 }, Some(about));
    p.silu();
    let h = p.linear("input", &[local, condition], Shape::flat(18), 1.0, None);
    p.silu();
    let h = p.linear("inner", &[h], Shape::flat(18), 0.0, Some(h));
    let h = p.linear("expand", &[h], Shape { patches, width: 5 }, 1.0, None);
    p.local("output", &[h, Program::IMAGE], p.shape(Program::IMAGE), None);
    p
}

fn number(i: usize) -> f32 {
    (i * 37 % 101) as f32 / 101.0 - 0.5
}

fn weights(program: &Program) -> Vec<Vec<f32>> {
    let numbers = |p: &crate::Parameter| (0..p.len()).map(|i| number(i + p.len())).collect();
    program.parameters().iter().map(numbers).collect()
}

/// Training of [`program`] with batches of three images.
fn training(program: &Program, weights: &[Vec<f32>]) -> Training {
    let times = (0..12).map(|i| (i as f32).sin()).collect();
    Training::new(Network::new(program, times), weights, 3)
}

const BATCH: Batch<'_> = Batch { t: &[0, 3, 1], classes: &[2, 0, 3], weights: &[0.5, 1.0, 2.0] };

fn x(image: usize, pixel: usize) -> f32 {
    number(7 * image + pixel)
}

fn target(image: usize, pixel: usize) -> f32 {
    number(5 * image + 3 * pixel + 1)
}

#[test]
fn the_gradient_agrees_with_central_differences() {
    let program = program();
    let weights = weights(&program);
    let run = |weights: &[Vec<f32>]| {
        let mut training = training(&program, weights);
        let loss = training.step(&BATCH, x, target, GRADIENT);
        (loss, training.part(StatePart::First))
    };
    let (_, gradients) = run(&weights);
    for (at, (parameter, gradient)) in zip(program.parameters(), &gradients).enumerate() {
        let largest = gradient.iter().fold(0.0_f32, |largest, g| largest.max(g.abs()));
        assert!(largest > 0.0, "{} has no gradient", parameter.name);
        for (i, &gradient) in gradient.iter().enumerate() {
            let loss = |step: f32| {
                let mut weights = weights.clone();
                weights[at][i] += step;
                run(&weights).0
            };
            // Central differences of fourth order; the loss has a rounding error of about 1e-6 of its terms.
            let across = |step: f32| (loss(step) - loss(-step)) / f64::from(2.0 * step);
            let numeric = (4.0 * across(0.02) - across(0.04)) / 3.0;
            let error = (f64::from(gradient) - numeric).abs();
            assert!(error < 1e-3 * f64::from(largest), "{}[{i}]: {gradient} {numeric}", parameter.name);
        }
    }
}

/// With the gradient in memory, a step gives the same bits as the fused step, and the norm of the gradient. Clipping is the
/// step of a shorter gradient.
#[test]
fn a_step_with_the_norm_is_the_fused_step_unless_the_gradient_is_clipped() {
    let program = program();
    let weights = weights(&program);
    let training = || training(&program, &weights);
    let step = AdamwEma {
        first: [0.9, 0.1],
        second: [0.99, 0.01],
        keep: 0.999,
        eps: 1e-8,
        rate: 0.01,
        ema: [0.9, 0.1],
        ..GRADIENT
    };
    let state = |training: &Training| StatePart::ALL.map(|part| training.part(part));
    let (mut fused, mut unfused) = (training(), training());
    for _ in 0..3 {
        let mut gradient = training();
        for part in StatePart::ALL {
            gradient.set_part(part, &fused.part(part));
        }
        gradient.step(&BATCH, x, target, GRADIENT);
        let squares = gradient.part(StatePart::First).concat().into_iter().map(|g| f64::from(g).powi(2));
        let expected = squares.sum::<f64>().sqrt();
        let loss = fused.step(&BATCH, x, target, step);
        let (same_loss, norm) = unfused.step_with_norm(&BATCH, x, target, step, Some(1e9));
        assert_eq!((loss, state(&fused)), (same_loss, state(&unfused)));
        assert!((norm / expected - 1.0).abs() < 1e-6, "{norm} {expected}");
    }
    // The first moment of the first step is 0.1 times the clipped gradient.
    let mut clipped = training();
    let (_, norm) = clipped.step_with_norm(&BATCH, x, target, step, Some(0.5));
    let squares = clipped.part(StatePart::First).concat().into_iter().map(|m| f64::from(10.0 * m).powi(2));
    assert!(norm > 1.0 && (squares.sum::<f64>().sqrt() - 0.5).abs() < 1e-6, "{norm}");
}

#[test]
fn part_returns_what_set_part_stored() {
    let program = program();
    let lists = |first: f32| -> Vec<Vec<f32>> {
        program.parameters().iter().map(|p| (0..p.len()).map(|i| first + i as f32).collect()).collect()
    };
    let mut training = Training::new(Network::new(&program, vec![0.0; 3]), &lists(0.5), 1);
    assert_eq!(training.part(StatePart::Weights), lists(0.5));
    assert_eq!(training.part(StatePart::Ema), lists(0.5));
    assert!(training.part(StatePart::First).concat().iter().all(|&moment| moment == 0.0));
    for (part, first) in zip(StatePart::ALL, [1.0, 2.0, 3.0, 4.0]) {
        training.set_part(part, &lists(first));
    }
    for (part, first) in zip(StatePart::ALL, [1.0, 2.0, 3.0, 4.0]) {
        assert_eq!(training.part(part), lists(first));
    }
}

#[test]
#[should_panic(expected = "class 4 is out of range")]
fn a_class_out_of_range_panics() {
    let program = program();
    let weights: Vec<Vec<f32>> = program.parameters().iter().map(|p| vec![0.0; p.len()]).collect();
    let mut training = Training::new(Network::new(&program, vec![0.0; 3]), &weights, 1);
    let batch = Batch { t: &[0], classes: &[4], weights: &[1.0] };
    training.step(&batch, |_, _| 0.0, |_, _| 0.0, GRADIENT);
}

#[test]
#[should_panic(expected = "the patches of the slot that is added")]
fn a_condition_of_several_patches_cannot_be_added_to_images() {
    let mut p = Program::new(Inputs { rows: 3, cols: 4, patch: 2, time: 3, classes: 4 });
    let shape = Shape { width: 5, ..p.shape(Program::IMAGE) };
    let condition = p.linear("about", &[Program::TIME], shape, 1.0, None);
    p.local("local", &[Program::IMAGE], shape, Some(condition));
    drop(Network::new(&p, vec![0.0; 3]));
}
