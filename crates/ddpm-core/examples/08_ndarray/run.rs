// The loop that carries out a plan on arrays of ndarray. docs/other-libraries.md includes this file.

use std::collections::VecDeque;

use ddpm_core::{BoxError, Clip, Operation, Plan, Register, Term, Timestep};
use ndarray::ArrayD;

/// An array of any number of dimensions.
pub(crate) type Array = ArrayD<f32>;

/// Carries out a plan on `x_t`, and returns the images at its end. `noise(index)` returns standard normal values of the
/// shape of `x_t`. Learned variances and dynamic thresholding are left out.
pub(crate) fn run(
    plan: &Plan,
    mut x_t: Array,
    mut network: impl FnMut(&Array, Timestep) -> Result<Array, BoxError>,
    mut noise: impl FnMut(usize) -> Result<Array, BoxError>,
) -> Result<Array, BoxError> {
    plan.check()?;
    let mut kept = None;
    let (mut x_starts, mut eps) = (VecDeque::new(), VecDeque::new());
    for operation in plan.operations() {
        match operation {
            Operation::Evaluate { timestep, x_start, eps: eps_terms } => {
                let output = network(&x_t, *timestep)?;
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
                        Register::Kept => kept.clone(),
                        Register::XStart(age) => x_starts.get(age).cloned(),
                        Register::Eps(age) => eps.get(age).cloned(),
                        Register::Noise(index) => return noise(index),
                        _ => None,
                    }
                    .ok_or_else(|| unsupported(&register))
                })?;
            }
            Operation::Keep => kept = Some(x_t.clone()),
            Operation::EndStep { .. } => {}
            other => return Err(unsupported(other)),
        }
    }
    Ok(x_t)
}

/// Σ factor · array.
#[allow(clippy::cast_possible_truncation, reason = "each factor is rounded once")]
fn sum(
    terms: &[Term],
    mut array: impl FnMut(Register) -> Result<Array, BoxError>,
) -> Result<Array, BoxError> {
    let mut sum: Option<Array> = None;
    for &(factor, register) in terms {
        let array = array(register)?;
        match &mut sum {
            Some(sum) => sum.scaled_add(factor as f32, &array),
            None => sum = Some(array * factor as f32),
        }
    }
    sum.ok_or_else(|| "a sum of the plan has no terms".into())
}

#[allow(clippy::cast_possible_truncation, reason = "single precision")]
fn clipped(x_start: Array, clip: Clip) -> Result<Array, BoxError> {
    match clip {
        Clip::None => Ok(x_start),
        Clip::Range(range) => Ok(x_start.mapv_into(|x| x.clamp(-range as f32, range as f32))),
        other => Err(unsupported(&other)),
    }
}

fn unsupported(found: &impl std::fmt::Debug) -> BoxError {
    format!("the plan has {found:?}, which this loop does not implement").into()
}
