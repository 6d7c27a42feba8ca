//! Calls of the kernel that no library offers safely. Besides the calls of 1Password's library
//! (`providers/ask/service_account/core.rs`) this is the only unsafe code.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::Pid;

/// Which of two processes this one is.
pub enum Twin {
    /// The one that was there before, and the number of the other.
    Parent(Pid),
    Child,
}

/// Makes a copy of this process that shares nothing with it but the table of open descriptors: what one of them opens or
/// closes, the other has open or closed as well, and when one is killed nothing closes.
///
/// To be called while the process has a single thread: the copy would have none of the other threads, but the locks
/// that they hold.
pub fn clone_with_shared_descriptors() -> io::Result<Twin> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("the process has several threads already"));
    }
    let flags = libc::CLONE_FILES | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and with no stack of its own the copy goes on as after fork(2), on its own copy of this
    // stack. The C library's handlers for fork do not run; with a single thread none of its locks is held. In the
    // copy the C library still has the parent's thread number, which matters only to robust and recursive locks that are
    // held across this call, and none is.
    let pid = unsafe {
        match cfg!(target_arch = "s390x") {
            true => libc::syscall(libc::SYS_clone, 0, flags, 0, 0, 0),
            false => libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0),
        }
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Twin::Child),
        pid => Ok(Twin::Parent(Pid::from_raw(pid as libc::pid_t))),
    }
}

/// One heap for all threads: what one of them frees another one uses. What is larger than this lies outside of it, whatever was freed
/// before, and is given back at once. To be called before there are several threads.
pub fn use_one_heap() {
    // SAFETY: it sets two numbers of the allocator's.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 64 << 10);
    }
}

/// How many bytes of the heap are in use.
pub fn used_heap() -> u64 {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it reads the allocator's counts, and takes its own locks.
        let counts = unsafe { libc::mallinfo2() };
        (counts.uordblks + counts.hblkhd) as u64
    }
    #[cfg(not(target_env = "gnu"))]
    0
}

/// Gives pages of the heap that nothing is in back to the system, as far as they are not locked.
pub fn trim_heap() {
    // SAFETY: it touches nothing that is in use, and takes the allocator's own locks.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Ignores a signal, in this process and in those that it starts.
pub fn ignore(ignored: Signal) -> io::Result<()> {
    // SAFETY: to ignore a signal takes no handler that could do what a handler must not.
    unsafe { signal(ignored, SigHandler::SigIgn) }?;
    Ok(())
}

/// A descriptor that systemd passed to this process by its number, that the worker left behind, or that the kernel has just made.
pub fn own(number: RawFd) -> OwnedFd {
    // SAFETY: the caller took the number from systemd's list, where each stands once, or has it from the call that opened it, or
    // asks for a descriptor whose only other user is a process that has ended. A number that is not open only makes each use fail.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// A look at whatever is open under this number, if anything is. For the keeper, when the worker has ended and nobody else
/// opens or closes anything.
pub fn look_at(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: a borrowed descriptor frees nothing; on a number that is not open each use fails with EBADF.
    unsafe { BorrowedFd::borrow_raw(number) }
}
