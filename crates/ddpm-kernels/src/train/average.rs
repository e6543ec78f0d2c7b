//! Averages of the weights that are updated apart from the optimizer step.

use std::iter::zip;

use rayon::prelude::*;

use super::Training;
use crate::{Network, StatePart, Weights, panel::PANEL};

/// The number of rows of a task: 64 KiB of each list.
const TASK: usize = 1024;

impl Training {
    /// The network. Its [`Network::pack`] makes the weights that [`Training::average`] takes.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Moves an average a of the weights towards the current weights w, in one pass over memory:
    ///
    /// ```text
    /// a ← a + rate · (w − a)
    /// ```
    ///
    /// With a rate of 1, an average of zeros becomes the weights. The result has the same bits on any number of threads.
    ///
    /// # Panics
    ///
    /// If the average belongs to another network.
    pub fn average(&self, average: &mut Weights, rate: f32) {
        let weights = &self.state[StatePart::Weights as usize];
        let lengths = |weights: &Weights| weights.0.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths(average), lengths(weights), "the average belongs to another network");
        rayon::scope(|_| {
            for (average, weights) in zip(&mut average.0, &weights.0) {
                let tasks = average.par_chunks_mut(TASK).zip(weights.par_chunks(TASK));
                tasks.for_each(|(average, weights)| {
                    for (a, w) in zip(average, weights) {
                        for i in 0..PANEL {
                            a.0[i] += rate * (w.0[i] - a.0[i]);
                        }
                    }
                });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Inputs, Program};

    /// Training of a network whose larger matrix is more than a task.
    fn training(numbers: impl Fn(usize) -> f32) -> Training {
        let mut program = Program::new(Inputs { rows: 6, cols: 5, patch: 6, time: 3, classes: 1 });
        let image = program.shape(Program::IMAGE);
        let h = program.linear("in", &[Program::IMAGE, Program::TIME], crate::Shape::flat(600), 1.0, None);
        program.linear("out", &[h], image, 1.0, None);
        let weights: Vec<Vec<f32>> =
            program.parameters().iter().map(|p| (0..p.len()).map(&numbers).collect()).collect();
        let training = Training::new(Network::new(&program, vec![0.0; 3]), &weights, 1);
        assert!(training.state[0].0.iter().any(|rows| rows.len() > TASK));
        training
    }

    #[test]
    fn an_average_follows_the_weights_as_in_f64_on_any_number_of_threads() {
        let number = |salt: f32| move |i: usize| ((i as f32 + salt) * 0.7).sin();
        let mut training = training(number(0.0));
        let shapes = training.part(StatePart::Weights);
        let zeros: Vec<Vec<f32>> = shapes.iter().map(|values| vec![0.0; values.len()]).collect();
        let mut average = training.network().pack(&zeros);
        let mut expected = vec![0.0; zeros.concat().len()];
        for (step, rate) in (1_u8..).zip([1.0, 0.75, 0.3, 0.01]) {
            let weights: Vec<Vec<f32>> = shapes
                .iter()
                .map(|values| (0..values.len()).map(number(f32::from(step))).collect())
                .collect();
            training.set_part(StatePart::Weights, &weights);
            let mut others = [1, 2, 3].map(|threads| {
                let mut average = average.clone();
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| training.average(&mut average, rate));
                average
            });
            training.average(&mut average, rate);
            assert!(others.iter_mut().all(|other| *other == average));
            for (a, w) in zip(&mut expected, weights.concat()) {
                *a += f64::from(rate) * (f64::from(w) - *a);
            }
            let found = training.network().unpack(&average).concat();
            assert!(zip(&found, &expected).all(|(&a, &b)| (f64::from(a) - b).abs() < 3e-7), "step {step}");
            assert!(step > 1 || found == weights.concat(), "a rate of 1 copies the weights");
            assert_eq!(training.part(StatePart::Weights), weights);
        }
    }

    #[test]
    #[should_panic(expected = "another network")]
    fn an_average_of_another_network_panics() {
        training(|_| 0.0).average(&mut Weights(Vec::new()), 0.5);
    }
}
