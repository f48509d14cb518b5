//! Which cores a program may use: where the clients and the API shared them, the number of clients
//! would say how fast the API is.

use std::io::Result;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores of the machine, told apart.
#[derive(Clone, Copy)]
pub(crate) struct Cores {
    all: CpuSet,
}

/// Who uses the cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// The first core, alone.
    One,
    /// All but the first.
    Others,
    /// Every core.
    All,
}

impl Cores {
    /// Those that this process may use.
    pub(crate) fn of_this_process() -> Result<Self> {
        let all = sched_getaffinity(None)?;
        Ok(Cores { all })
    }

    /// Restricts the calling thread, and what it starts from now on. On a machine with one core it
    /// does nothing.
    pub(crate) fn restrict(&self, share: Share) -> Result<()> {
        if self.all.count() < 2 {
            return Ok(());
        }
        let cores = (0..CpuSet::MAX_CPU).filter(|core| self.all.is_set(*core));
        let wanted = cores.enumerate().filter(|(place, _)| match share {
            Share::One => *place == 0,
            Share::Others => *place > 0,
            Share::All => true,
        });
        let mut set = CpuSet::new();
        wanted.for_each(|(_, core)| set.set(core));
        Ok(sched_setaffinity(None, &set)?)
    }
}
