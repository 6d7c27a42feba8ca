//! What a process of ours sets up for itself: memory that is not swapped or dumped, a runtime, random numbers.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;

use nix::libc;
use nix::sys::mman::{MlockAllFlags, mlockall, munlockall};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::sysinfo::sysinfo;
use nix::sys::{prctl, resource};
use nix::unistd::{SysconfVar, sysconf};
use tokio::runtime::{Builder, Runtime};
use tracing::warn;

use crate::kernel;

/// ONFAULT: pages are locked when they are first touched, so that locking everything costs no memory.
const ALL_THAT_IS_TOUCHED: MlockAllFlags = MlockAllFlags::MCL_CURRENT
    .union(MlockAllFlags::MCL_FUTURE)
    .union(MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT));
/// How many bytes are worth to be given back.
const WORTH_GIVING_BACK: u64 = 512 << 10;

/// What it means, and what to do: the unit has the setting, and something took it away.
const NOT_LOCKED: &str = "memory is not locked, so that secrets may be written to swap: nothing to do on a machine without swap, or with an encrypted one; \
     else see that no drop-in takes LimitMEMLOCK=infinity from the unit, and give a container the limit from outside";

/// Keeps this process's memory out of swap and core dumps, and other processes of our user out of it.
/// Returns what could not be done; none of it stops the service, because a secret in memory that is not locked is still
/// the right one.
pub fn protect() -> Vec<String> {
    let mut missing = Vec::new();
    if let Err(error) = prctl::set_dumpable(false) {
        missing.push(format!("cannot turn off core dumps: {error}"));
    }
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        missing.push(format!("cannot set the core size limit to 0: {error}"));
    }
    if !may_lock() {
        missing.push(NOT_LOCKED.into());
    } else if let Err(error) = mlockall(ALL_THAT_IS_TOUCHED) {
        missing.push(format!("cannot lock memory: {error}"));
    }
    missing
}

/// A finite limit would make a later allocation fail, so memory is locked only where none is set.
fn may_lock() -> bool {
    matches!(getrlimit(Resource::RLIMIT_MEMLOCK), Ok((resource::RLIM_INFINITY, _)))
}

/// Gives memory that a peak left free back to the system, from time to time.
#[derive(Default)]
pub struct Leftovers {
    /// How many bytes were unused when that was last done, or fewer: pages in which something is.
    unused: u64,
}

impl Leftovers {
    pub fn give_back(&mut self) {
        let unused = unused();
        self.unused = self.unused.min(unused);
        if unused < self.unused + WORTH_GIVING_BACK {
            return;
        }
        // What is locked cannot be given back. It is unlocked for that moment, but only where the system has nowhere to write it.
        let is_locked = may_lock();
        if !is_locked || has_nowhere_to_swap() {
            let unlocked = is_locked && munlockall().is_ok();
            kernel::trim_heap();
            if unlocked && let Err(error) = mlockall(ALL_THAT_IS_TOUCHED) {
                warn!("memory is not locked any more, and secrets may reach swap: {error}");
            }
        }
        self.unused = self::unused();
    }
}

/// How many bytes of memory this process has for itself, and does not use.
fn unused() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = statm.split(' ').skip(1).map_while(|pages| pages.parse::<u64>().ok());
    let (resident, shared) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
    (resident.saturating_sub(shared) * page.unsigned_abs()).saturating_sub(kernel::used_heap())
}

/// Whether the machine has no swap, or our cgroup may use none (`MemorySwapMax=` in `systemd/opnix.service`).
fn has_nowhere_to_swap() -> bool {
    let machine_has_none = || sysinfo().is_ok_and(|system| system.swap_total() == 0);
    let may_use_none = || {
        let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let ours = cgroups.lines().find_map(|line| line.strip_prefix("0::"))?;
        let limit = fs::read_to_string(format!("/sys/fs/cgroup{ours}/memory.swap.max")).ok()?;
        Some(limit.trim_end() == "0")
    };
    machine_has_none() || may_use_none() == Some(true)
}

/// A runtime on the thread that runs it.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_io().enable_time().build()
}

/// Between 0 and 1; good enough to keep machines that began together from asking together.
pub fn random() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}
