//! Local SGD: processes take steps of their own and synchronise now and then (DiLoCo, Douillard et al. 2023,
//! arXiv 2311.08105).

use std::iter::zip;

use crate::{
    Result, TrainConfig,
    engine::Engine,
    group::{Group, all_reduce, world_size},
    part::Part,
};

/// The outer optimizer of a run with `sync_every`.
#[derive(Debug)]
pub(crate) struct LocalSgd {
    learning_rate: f32,
    momentum: f32,
    /// The weights after the last synchronisation.
    start: Vec<f32>,
}

impl LocalSgd {
    /// The outer optimizer of a run, if it has one. The engine has the weights of a synchronisation.
    #[allow(clippy::cast_possible_truncation, reason = "rounded once")]
    pub(crate) fn of_run(config: &TrainConfig, engine: &mut Engine) -> Result<Option<Self>> {
        let optimizer = |_| {
            Ok(Self {
                learning_rate: config.outer_learning_rate as f32,
                momentum: config.outer_momentum as f32,
                start: engine.values(Part::WEIGHTS)?,
            })
        };
        config.sync_every.map(optimizer).transpose()
    }

    /// Gives all processes the same state. The moments of the inner optimizer and all averages become the means over the
    /// processes. The common weights w move by the mean change of the processes since the last synchronisation, with
    /// Nesterov's momentum u as PyTorch's SGD has it:
    ///
    /// ```text
    /// Δ = w − mean(weights)      u ← μu + Δ      w ← w − lr · (Δ + μu)
    /// ```
    pub(crate) fn synchronise(
        &mut self,
        engine: &mut Engine,
        parts: &[Part],
        group: Group<'_>,
    ) -> Result<()> {
        let count = world_size(group) as f32;
        for &part in parts.iter().filter(|part| **part != Part::Outer) {
            let mut values = engine.values(part)?;
            all_reduce(group, &mut values)?;
            values.iter_mut().for_each(|value| *value /= count);
            if part == Part::WEIGHTS {
                let mut momentum = engine.values(Part::Outer)?;
                for ((weight, start), momentum) in zip(zip(&mut values, &mut self.start), &mut momentum) {
                    let change = *start - *weight;
                    *momentum = self.momentum * *momentum + change;
                    *start -= self.learning_rate * (change + self.momentum * *momentum);
                    *weight = *start;
                }
                engine.set_values(Part::Outer, &momentum)?;
            }
            engine.set_values(part, &values)?;
        }
        Ok(())
    }
}
