//! The check of a plan, and the number by which a saved run knows its plan.

use std::collections::HashSet;

use super::{Clip, Operation, Plan, Register, Term};
use crate::{Error, Result};

/// What was found and what was expected, if an operation cannot be carried out.
type Checked = std::result::Result<(), (String, &'static str)>;

/// What has happened before an operation.
#[derive(Default)]
struct Progress {
    evaluations: usize,
    evaluations_of_step: usize,
    has_kept: bool,
    noise_indices: HashSet<usize>,
}

impl Plan {
    /// Checks that the plan can be carried out: it has steps, each with an evaluation of the network; sums have at least one
    /// term, finite factors, registers that are set before they are read, and at most one noise, with an index of its own;
    /// the options of [`Clip`] are in range. A run checks its plan when it starts. The plans of
    /// [`Sampler::plan`](crate::Sampler::plan) are valid.
    ///
    /// # Errors
    ///
    /// If it cannot. The error names the operation.
    pub fn check(&self) -> Result<()> {
        match self.clip {
            Clip::Range(range) if !(range > 0.0 && range.is_finite()) => {
                return Err(Error::out_of_range("the range of clipping", range, "a positive number"));
            }
            Clip::Dynamic { ratio, .. } if !(0.0..=1.0).contains(&ratio) => {
                return Err(Error::out_of_range("the ratio of dynamic thresholding", ratio, "0 to 1"));
            }
            Clip::Dynamic { max, .. } if !(max >= 1.0 && max.is_finite()) => {
                return Err(Error::out_of_range("the maximum of dynamic thresholding", max, "1 or more"));
            }
            _ => {}
        }
        if self.steps == 0 {
            return Err(Error::out_of_range("the number of steps of a plan", 0, "1 or more"));
        }
        let mut progress = Progress::default();
        for (position, operation) in self.operations.iter().enumerate() {
            self.check_operation(operation, &mut progress).map_err(|(found, expected)| {
                Error::out_of_range(format!("operation {position} of the plan"), found, expected)
            })?;
        }
        Ok(())
    }

    fn check_operation(&self, operation: &Operation, before: &mut Progress) -> Checked {
        match operation {
            Operation::Evaluate { x_start, eps, .. } => {
                let sums = [Some(x_start), Some(eps).filter(|_| self.depths[1] > 0)];
                for &(factor, register) in sums.into_iter().flatten().flatten() {
                    if !matches!(register, Register::X | Register::Output) || !factor.is_finite() {
                        let found = format!("a prediction with {factor} times {register:?}");
                        return Err((found, "finite factors of X and Output"));
                    }
                }
                if sums.into_iter().flatten().any(Vec::is_empty) {
                    return Err(("a prediction without terms".to_owned(), "at least one term"));
                }
                before.evaluations += 1;
                before.evaluations_of_step += 1;
            }
            Operation::Update(terms) => self.check_update(terms, before)?,
            Operation::Keep => before.has_kept = true,
            Operation::EndStep { .. } if before.evaluations_of_step == 0 => {
                let found = "the end of a step without an evaluation of the network";
                return Err((found.to_owned(), "at least one evaluation in each step"));
            }
            Operation::EndStep { signal, noise, .. } if !(signal.is_finite() && noise.is_finite()) => {
                return Err((format!("the end of a step at {signal} x₀ + {noise} ε"), "finite factors"));
            }
            Operation::EndStep { .. } => before.evaluations_of_step = 0,
        }
        Ok(())
    }

    fn check_update(&self, terms: &[Term], before: &mut Progress) -> Checked {
        let mut noises = 0;
        for &(factor, register) in terms {
            let (is_set, expected) = match register {
                Register::X => (true, ""),
                Register::Kept => (before.has_kept, "a Keep before it"),
                Register::XStart(age) | Register::Eps(age) => {
                    (age < before.evaluations, "an evaluation of the network before it")
                }
                Register::Output => (false, "an update without Output, which predictions use"),
                Register::Noise(index) => {
                    noises += 1;
                    (before.noise_indices.insert(index), "a noise index that occurs once")
                }
                Register::LearnedNoise { index, low, high } => {
                    noises += 1;
                    if !(0.0 < low && low <= high && high.is_finite()) {
                        let found = format!("noise of a variance from {low} to {high}");
                        return Err((found, "two positive numbers in ascending order"));
                    }
                    let is_predicted = self.learned_variance && before.evaluations > 0;
                    let is_new = before.noise_indices.insert(index);
                    (is_predicted && is_new, "a learned variance, and a noise index that occurs once")
                }
            };
            if !is_set {
                return Err((format!("an update with {register:?}"), expected));
            }
            if !factor.is_finite() {
                return Err((format!("an update with {factor} times {register:?}"), "a finite factor"));
            }
        }
        match (terms.len(), noises) {
            (0, _) => Err(("an update without terms".to_owned(), "at least one term")),
            (_, 0 | 1) => Ok(()),
            _ => Err((format!("an update with {noises} noises"), "at most one")),
        }
    }

    /// A number that two plans share only if they have the same table.
    #[cfg(feature = "candle")]
    pub(crate) fn id(&self) -> i64 {
        // FNV-1a. Factors count in single precision, because f64 functions differ between platforms in the last bit.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut add = |text: String| {
            for byte in text.bytes() {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        #[allow(clippy::cast_possible_truncation, reason = "single precision")]
        let single = |terms: &[Term]| -> Vec<(f32, String)> {
            let register = |register| match register {
                Register::LearnedNoise { index, low, high } => {
                    format!("{index} {:?} {:?}", low as f32, high as f32)
                }
                other => format!("{other:?}"),
            };
            terms.iter().map(|&(factor, term)| (factor as f32, register(term))).collect()
        };
        add(format!("{:?} {}", self.clip, self.learned_variance));
        for operation in &*self.operations {
            #[allow(clippy::cast_possible_truncation, reason = "single precision")]
            add(match operation {
                Operation::Evaluate { timestep, x_start, eps } => {
                    format!("evaluate {:?} {:?} {:?}", timestep.t() as f32, single(x_start), single(eps))
                }
                Operation::Update(terms) => format!("update {:?}", single(terms)),
                Operation::Keep => "keep".to_owned(),
                Operation::EndStep { .. } => "end".to_owned(),
            });
        }
        hash.cast_signed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NoiseSchedule, NoiseScheduleConfig, PredictionType, Timestep};

    /// A plan of one step, changed by `change` between the evaluation and the end.
    fn refused(learned_variance: bool, change: impl FnOnce(&mut Plan)) -> String {
        let mut config = NoiseScheduleConfig::mnist20();
        if learned_variance {
            config.variance_type = crate::ReverseVariance::LearnedRange;
        }
        let mut plan = Plan::new(&NoiseSchedule::new(&config).unwrap());
        let timestep = Timestep::new(3.0, 0.5);
        plan.evaluate(timestep);
        change(&mut plan);
        plan.end_step(timestep, 1.0);
        plan.check().unwrap_err().to_string()
    }

    #[test]
    fn a_plan_that_cannot_be_carried_out_is_refused_by_its_operation() {
        use Register::{Eps, Kept, LearnedNoise, Noise, Output, X, XStart};
        let learned = |low, high| LearnedNoise { index: 1, low, high };
        for (terms, expected) in [
            (vec![], "operation 1 of the plan is an update without terms"),
            (vec![(1.0, XStart(1))], "an update with XStart(1), expected an evaluation"),
            (vec![(1.0, Eps(7))], "an update with Eps(7)"),
            (vec![(1.0, Kept)], "an update with Kept, expected a Keep"),
            (vec![(1.0, Output)], "an update with Output"),
            (vec![(f64::NAN, X)], "NaN times X"),
            (vec![(f64::INFINITY, XStart(0))], "inf times XStart(0)"),
            (vec![(1.0, Noise(1)), (1.0, Noise(2))], "2 noises, expected at most one"),
            (vec![(1.0, Noise(1)), (1.0, Noise(1))], "Noise(1), expected a noise index that occurs once"),
            (vec![(1.0, learned(0.1, 0.2))], "expected a learned variance"),
        ] {
            let message = refused(false, |plan| plan.update(terms));
            assert!(message.contains(expected), "{message}");
        }
        for (low, high) in [(0.0, 1.0), (0.2, 0.1), (0.1, f64::INFINITY), (f64::NAN, 1.0)] {
            let message = refused(true, |plan| plan.update([(1.0, learned(low, high))]));
            assert!(message.contains("a variance from"), "{message}");
        }
        let timestep = Timestep::new(3.0, 0.5);
        let message = refused(false, |plan| plan.evaluate_as(timestep, vec![], vec![]));
        assert!(message.contains("a prediction without terms"), "{message}");
        let x_start = vec![(1.0, XStart(0))];
        let message = refused(false, |plan| plan.evaluate_as(timestep, x_start, vec![]));
        assert!(message.contains("a prediction with 1 times XStart(0)"), "{message}");
        let message = refused(false, |plan| {
            plan.end_step(timestep, 0.7);
            plan.update([(1.0, X)]);
        });
        assert!(
            message.contains("operation 3 of the plan is the end of a step without an eval"),
            "{message}"
        );
        let message = refused(false, |plan| plan.end_step(timestep, -1.0));
        assert!(message.contains("expected finite factors"), "{message}");
    }

    #[test]
    fn empty_plans_and_clipping_out_of_range_are_refused() {
        let empty = Plan::without_schedule(PredictionType::Sample);
        assert!(empty.check().unwrap_err().to_string().contains("steps of a plan is 0"));
        let dynamic = |ratio, max| Clip::Dynamic { ratio, max };
        for clip in [0.0, -1.0, f64::NAN, f64::INFINITY].map(Clip::Range).into_iter().chain([
            dynamic(1.1, 1.0),
            dynamic(f64::NAN, 1.0),
            dynamic(0.5, 0.9),
            dynamic(0.5, f64::NAN),
        ]) {
            assert!(empty.clone().clipped(clip).check().unwrap_err().to_string().contains("of "), "{clip:?}");
        }
    }
}
