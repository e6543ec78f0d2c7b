//! Processes that train one network together.

use std::{fmt::Debug, ops::Range};

use crate::{Error, Result};

/// The error of a [`ProcessGroup`].
pub type GroupError = Box<dyn std::error::Error + Send + Sync>;

/// Processes that train one network together, as one of them sees them. With the feature `mpi`, `Mpi` is one; the tests use
/// threads.
///
/// All processes call the same methods in the same order, with values of the same length.
pub trait ProcessGroup: Debug {
    /// The number of this process, from 0. Process 0 writes the run folder.
    fn rank(&self) -> usize;

    /// The number of processes, at least 1.
    fn world_size(&self) -> usize;

    /// Replaces the values by their sum over all processes. Each sum adds the values in the order of the ranks,
    /// ((v₀ + v₁) + v₂) + …, so all processes get the same bits, and get them again in a second run.
    ///
    /// # Errors
    ///
    /// If the exchange fails.
    fn all_reduce(&self, values: &mut [f32]) -> std::result::Result<(), GroupError>;

    /// Replaces the bytes by those of process 0, whose number need not be known to the others.
    ///
    /// # Errors
    ///
    /// If the exchange fails.
    fn broadcast(&self, bytes: &mut Vec<u8>) -> std::result::Result<(), GroupError>;
}

/// The group of a trainer; `None` is a process that trains alone.
pub(crate) type Group<'a> = Option<&'a dyn ProcessGroup>;

/// The number of processes.
pub(crate) fn world_size(group: Group<'_>) -> usize {
    group.map_or(1, ProcessGroup::world_size)
}

/// Whether this process writes the run folder.
pub(crate) fn is_first(group: Group<'_>) -> bool {
    group.is_none_or(|group| group.rank() == 0)
}

/// The part of `count` images that this process takes. The parts of all processes are equal or differ by one image.
pub(crate) fn share(group: Group<'_>, count: usize) -> Range<usize> {
    group.map_or(0..count, |group| part_of_rank(count, group.rank(), group.world_size()))
}

/// The part of `count` things for a process. The parts of all processes are equal or differ by one thing.
pub(crate) fn part_of_rank(count: usize, rank: usize, world_size: usize) -> Range<usize> {
    let start = |rank: usize| (count * rank).div_euclid(world_size);
    start(rank)..start(rank + 1)
}

/// The sum of the values over all processes.
pub(crate) fn all_reduce(group: Group<'_>, values: &mut [f32]) -> Result<()> {
    group.map_or(Ok(()), |group| group.all_reduce(values)).map_err(Error::Group)
}

/// Whether the flag is set in any process.
pub(crate) fn any(group: Group<'_>, flag: bool) -> Result<bool> {
    let mut count = [f32::from(u8::from(flag))];
    all_reduce(group, &mut count)?;
    Ok(count[0] > 0.0)
}
