//! The parts of the training state.

use ddpm_kernels::StatePart;

use crate::post_hoc_ema::SIGMA_RELS;

/// A part of the training state: one number for each weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The average of the weights by a power function; the index is that of its relative length in [`SIGMA_RELS`].
    PowerAverage(usize),
    /// A part that changes at each step.
    Step(StatePart),
}

impl Part {
    /// The parts of a run with this number of averages by power functions, in the alphabetical order of their names.
    pub(crate) fn all(power_averages: usize) -> Vec<Self> {
        (0..power_averages).map(Self::PowerAverage).chain(StatePart::ALL.map(Self::Step)).collect()
    }

    /// The name in a file of this part of a parameter's state.
    pub(crate) fn tensor_name(self, parameter: &str) -> String {
        match self {
            Self::PowerAverage(index) => format!("ema-{:.2}/{parameter}", SIGMA_RELS[index]),
            Self::Step(StatePart::Ema) => format!("ema/{parameter}"),
            Self::Step(StatePart::First) => format!("first/{parameter}"),
            Self::Step(StatePart::Second) => format!("second/{parameter}"),
            Self::Step(StatePart::Weights) => format!("weights/{parameter}"),
        }
    }
}
