//! Requests for a list of timesteps.

use crate::{NoiseSchedule, Result, Timesteps};

/// The timesteps of a plan: a request that [`Steps::timesteps`] turns into a list for a schedule.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Steps {
    /// All T timesteps, [`Timesteps::all`].
    #[default]
    All,
    /// This number of timesteps, spaced by the schedule's `timestep_spacing`, [`Timesteps::spaced`]. For
    /// [`Sampler::Lcm`](crate::Sampler::Lcm) and [`Sampler::Tcd`](crate::Sampler::Tcd) it is this number of the timesteps
    /// of the distillation, [`Timesteps::distilled`].
    Spaced(usize),
    /// This number of noise levels, spaced as in Karras et al. 2022, [`Timesteps::karras`].
    Karras(usize),
    /// These timesteps, in strictly descending order, [`Timesteps::explicit`].
    Explicit(Vec<usize>),
    /// These noise levels σ, in strictly descending order, [`Timesteps::from_sigmas`].
    Sigmas(Vec<f64>),
    /// A list of the same schedule.
    List(Timesteps),
}

impl Steps {
    /// The list for a schedule.
    ///
    /// # Errors
    ///
    /// As the constructor of [`Timesteps`] that the variant names, or if a list is of another schedule.
    pub fn timesteps(self, schedule: &NoiseSchedule) -> Result<Timesteps> {
        match self {
            Self::All => Ok(Timesteps::all(schedule)),
            Self::Spaced(n) => Timesteps::spaced(schedule, n),
            Self::Karras(n) => Timesteps::karras(schedule, n),
            Self::Explicit(list) => Timesteps::explicit(schedule, list),
            Self::Sigmas(sigmas) => Timesteps::from_sigmas(schedule, &sigmas),
            Self::List(list) => list.checked(schedule),
        }
    }
}

impl From<Timesteps> for Steps {
    fn from(list: Timesteps) -> Self {
        Self::List(list)
    }
}

impl From<&Timesteps> for Steps {
    fn from(list: &Timesteps) -> Self {
        Self::List(list.clone())
    }
}
