//! The parts of the training state.

use ddpm_kernels::StatePart;

use crate::{TrainConfig, post_hoc_ema::SIGMA_RELS};

/// A part of the training state: one number for each weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// The average of the weights by a power function; the index is that of its relative length in [`SIGMA_RELS`].
    PowerAverage(usize),
    /// A part that changes at each step.
    Step(StatePart),
    /// The momentum of the outer optimizer, which changes when processes synchronise their weights.
    Outer,
}

impl Part {
    /// The moving average of the weights.
    pub(crate) const EMA: Self = Self::Step(StatePart::Ema);
    /// The first moment of the optimizer.
    pub(crate) const FIRST: Self = Self::Step(StatePart::First);
    /// The second moment of the optimizer.
    pub(crate) const SECOND: Self = Self::Step(StatePart::Second);
    /// The weights.
    pub(crate) const WEIGHTS: Self = Self::Step(StatePart::Weights);

    /// The parts of the state of a run.
    pub(crate) fn of_run(config: &TrainConfig) -> Vec<Self> {
        Self::all(config.power_averages(), config.sync_every.is_some())
    }

    /// The parts of a state with this number of averages by power functions.
    pub(crate) fn all(power_averages: usize, has_outer: bool) -> Vec<Self> {
        let averages = (0..power_averages).map(Self::PowerAverage);
        averages.chain(StatePart::ALL.map(Self::Step)).chain(has_outer.then_some(Self::Outer)).collect()
    }

    /// The name in a file of this part of a parameter's state.
    pub(crate) fn tensor_name(self, parameter: &str) -> String {
        match self {
            Self::PowerAverage(index) => format!("ema-{:.2}/{parameter}", SIGMA_RELS[index]),
            Self::Step(StatePart::Ema) => format!("ema/{parameter}"),
            Self::Step(StatePart::First) => format!("first/{parameter}"),
            Self::Step(StatePart::Second) => format!("second/{parameter}"),
            Self::Step(StatePart::Weights) => format!("weights/{parameter}"),
            Self::Outer => format!("outer/{parameter}"),
        }
    }
}
