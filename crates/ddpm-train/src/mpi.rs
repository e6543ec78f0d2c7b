//! The processes of an MPI job.

use std::{cell::RefCell, fmt, iter::zip};

use mpi::{
    Count, Threading,
    datatype::{Partition, PartitionMut},
    environment::Universe,
    traits::{Communicator, CommunicatorCollectives, Root},
};

use crate::{Error, GroupError, ProcessGroup, Result, group::part_of_rank};

/// The processes that a launcher such as `mpirun` or `srun` has started.
///
/// A sum is exchanged in two steps: each process gets its part of the values from all others, adds it, and sends the sum to
/// all. So a process sends and receives 2 · (N−1)/N times the values, as a ring would, but in the order of the ranks, which
/// `MPI_Allreduce` does not promise.
///
/// If a process is lost, MPI ends the others, and the launcher says which one it was. Dropping the value waits for all
/// processes.
pub struct Mpi {
    universe: Universe,
    /// The part of the values of this process, as it got it from each process.
    received: RefCell<Vec<f32>>,
}

/// The largest number of bytes of a message.
const PIECE: usize = 1 << 30;

impl Mpi {
    /// Joins the processes of the job. A process that no launcher has started is alone.
    ///
    /// # Errors
    ///
    /// If MPI was started before in this process, or it does not allow threads beside the one that calls it.
    pub fn start() -> Result<Self> {
        let failed = |text: &str| Error::Group(text.into());
        let Some((universe, threading)) = mpi::initialize_with_threading(Threading::Funneled) else {
            return Err(failed("MPI was started before in this process"));
        };
        if threading < Threading::Funneled {
            return Err(failed("this MPI does not allow a process to have threads"));
        }
        Ok(Self { universe, received: RefCell::default() })
    }

    /// Ends all processes of the job with this exit code. A process calls it if it fails, because the others would wait for it.
    pub fn abort(&self, code: i32) -> ! {
        self.universe.world().abort(code)
    }
}

impl fmt::Debug for Mpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mpi({} of {})", self.rank(), self.world_size())
    }
}

impl ProcessGroup for Mpi {
    fn rank(&self) -> usize {
        usize::try_from(self.universe.world().rank()).unwrap_or_default()
    }

    fn world_size(&self) -> usize {
        usize::try_from(self.universe.world().size()).unwrap_or(1)
    }

    fn all_reduce(&self, values: &mut [f32]) -> std::result::Result<(), GroupError> {
        let (world, count) = (self.universe.world(), self.world_size());
        if count == 1 {
            return Ok(());
        }
        let counts = |of_rank: &dyn Fn(usize) -> usize| {
            (0..count).map(|rank| Count::try_from(of_rank(rank))).collect::<std::result::Result<Vec<_>, _>>()
        };
        let part = |rank| part_of_rank(values.len(), rank, count);
        let (starts, lengths) = (counts(&|rank| part(rank).start)?, counts(&|rank| part(rank).len())?);
        let own = part(self.rank()).len();
        let mut received = self.received.borrow_mut();
        received.resize(own * count, 0.0);
        world.all_to_all_varcount_into(
            &Partition::new(&*values, &lengths[..], &starts[..]),
            &mut PartitionMut::new(&mut received[..], counts(&|_| own)?, counts(&|rank| own * rank)?),
        );
        let (sum, others) = received.split_at_mut(own);
        for other in others.chunks(own.max(1)) {
            zip(&mut *sum, other).for_each(|(sum, value)| *sum += value);
        }
        world.all_gather_varcount_into(&*sum, &mut PartitionMut::new(values, &lengths[..], &starts[..]));
        Ok(())
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) -> std::result::Result<(), GroupError> {
        let world = self.universe.world();
        let first = world.process_at_rank(0);
        let mut length = bytes.len() as u64;
        first.broadcast_into(&mut length);
        bytes.resize(usize::try_from(length)?, 0);
        for piece in bytes.chunks_mut(PIECE) {
            first.broadcast_into(piece);
        }
        Ok(())
    }
}
