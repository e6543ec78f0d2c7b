//! The loop that carries out a plan.

use std::collections::VecDeque;

use ddpm_core::{Clip, Error, Operation, Plan, Register, Result, Term, Timestep};

/// Carries out a plan on `x_t`, and returns the images after each step. `noise(index)` returns standard normal values.
/// Learned variances and dynamic thresholding are left out.
pub(crate) fn run(
    plan: &Plan,
    mut x_t: Vec<f32>,
    mut network: impl FnMut(&[f32], Timestep) -> Vec<f32>,
    mut noise: impl FnMut(usize) -> Result<Vec<f32>>,
) -> Result<Vec<Vec<f32>>> {
    plan.check()?;
    let (mut steps, mut kept) = (Vec::new(), Vec::new());
    let (mut x_starts, mut eps) = (VecDeque::new(), VecDeque::new());
    for operation in plan.operations() {
        match operation {
            Operation::Evaluate { timestep, x_start, eps: eps_terms } => {
                let output = network(&x_t, *timestep);
                let prediction = |terms: &[Term]| {
                    sum(terms, |register| match register {
                        Register::X => Ok(x_t.clone()),
                        Register::Output => Ok(output.clone()),
                        other => Err(unsupported(&other)),
                    })
                };
                x_starts.push_front(clipped(prediction(x_start)?, plan.clip())?);
                eps.push_front(prediction(eps_terms)?);
                let [x_starts_read, eps_read] = plan.depths();
                x_starts.truncate(x_starts_read);
                eps.truncate(eps_read);
            }
            Operation::Update(terms) => {
                x_t = sum(terms, |register| {
                    match register {
                        Register::X => Some(x_t.clone()),
                        Register::Kept => Some(kept.clone()),
                        Register::XStart(age) => x_starts.get(age).cloned(),
                        Register::Eps(age) => eps.get(age).cloned(),
                        Register::Noise(index) => return noise(index),
                        _ => None,
                    }
                    .ok_or_else(|| unsupported(&register))
                })?;
            }
            Operation::Keep => kept = x_t.clone(),
            Operation::EndStep { .. } => steps.push(x_t.clone()),
            other => return Err(unsupported(other)),
        }
    }
    Ok(steps)
}

/// Σ factor · vector.
#[allow(clippy::cast_possible_truncation, reason = "each factor is rounded once")]
fn sum(terms: &[Term], mut vector: impl FnMut(Register) -> Result<Vec<f32>>) -> Result<Vec<f32>> {
    let mut sum = Vec::new();
    for &(factor, register) in terms {
        let values = vector(register)?;
        sum.resize(values.len(), 0.0);
        std::iter::zip(&mut sum, values).for_each(|(sum, value)| *sum += factor as f32 * value);
    }
    Ok(sum)
}

#[allow(clippy::cast_possible_truncation, reason = "single precision")]
fn clipped(x_start: Vec<f32>, clip: Clip) -> Result<Vec<f32>> {
    match clip {
        Clip::None => Ok(x_start),
        Clip::Range(range) => Ok(x_start.into_iter().map(|x| x.clamp(-range as f32, range as f32)).collect()),
        other => Err(unsupported(&other)),
    }
}

fn unsupported(found: &impl std::fmt::Debug) -> Error {
    Error::out_of_range("an entry of the plan", format!("{found:?}"), "one that this example implements")
}
