//! What a process of ours sets up for itself: memory that is not swapped or dumped, a runtime, random numbers.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;

use tokio::runtime::{Builder, Runtime};

/// Keeps this process's memory out of swap and core dumps, and other processes of our user out of it.
/// Returns what could not be done; none of it stops the service, because a secret in memory that is not locked is still
/// the right one.
pub fn protect() -> Vec<String> {
    use nix::sys::{mman, prctl, resource};
    let mut missing = Vec::new();
    if let Err(error) = prctl::set_dumpable(false) {
        missing.push(format!("cannot turn off core dumps: {error}"));
    }
    if let Err(error) = resource::setrlimit(resource::Resource::RLIMIT_CORE, 0, 0) {
        missing.push(format!("cannot set the core size limit to 0: {error}"));
    }
    // ONFAULT: pages are locked when they are first touched, so that locking everything costs no memory.
    let on_fault = mman::MlockAllFlags::from_bits_retain(nix::libc::MCL_ONFAULT);
    let flags = mman::MlockAllFlags::MCL_CURRENT | mman::MlockAllFlags::MCL_FUTURE | on_fault;
    // A finite limit would make a later allocation fail, so memory is locked only where none is set.
    match resource::getrlimit(resource::Resource::RLIMIT_MEMLOCK) {
        Ok((resource::RLIM_INFINITY, _)) => {
            if let Err(error) = mman::mlockall(flags) {
                missing.push(format!("cannot lock memory: {error}"));
            }
        }
        _ => missing.push(
            "memory is not locked: secrets may reach swap (the limit on locked memory must be infinity)"
                .into(),
        ),
    }
    missing
}

/// A runtime on the thread that runs it.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_io().enable_time().build()
}

/// Between 0 and 1; good enough to keep machines that began together from asking together.
pub fn random() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}
