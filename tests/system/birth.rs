//! Stops a process of the machine before it has done anything of its own, so that strace can see all of it.
//!
//! strace cannot do this by itself: it would count (and kill) the process that makes the one in question.

use std::fs::OpenOptions;
use std::path::Path;

use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// `waiting` stands before the pipe `gate`, and then becomes opnix. Lets it pass, and returns with the process that is
/// to answer stopped: `waiting` itself, after its exec, or, when it has a keeper, the first process that it makes.
pub fn hold(waiting: u32, gate: &Path, has_keeper: bool) -> u32 {
    // Of its own, because a tracer is a thread: waiting for all that this one traces takes no other's child away.
    let follow = || follow(waiting, gate, has_keeper);
    let held = std::thread::scope(|scope| scope.spawn(follow).join().expect("it does not panic"));
    held.unwrap_or_else(|why| panic!("process {waiting} was not seen to begin: {why}"))
}

/// Whether a process with this in /proc/PID/wchan waits for the other end of a pipe.
pub fn is_before_a_gate(place: &str) -> bool {
    matches!(place, "wait_for_partner" | "fifo_open")
}

fn follow(waiting: u32, gate: &Path, has_keeper: bool) -> Result<u32, String> {
    let first = Pid::from_raw(i32::try_from(waiting).map_err(|fault| fault.to_string())?);
    let options = Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE;
    let failed = |fault: nix::Error| fault.to_string();
    ptrace::seize(first, options).map_err(failed)?;
    OpenOptions::new().write(true).open(gate).map_err(|fault| format!("{}: {fault}", gate.display()))?;
    let stop = |pid: Pid| {
        // It stops with its first step into its own program.
        kill(pid, Signal::SIGSTOP).map_err(failed)?;
        ptrace::detach(pid, None).map_err(failed)
    };
    let ours = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    loop {
        match waitpid(first, Some(ours)).map_err(failed)? {
            WaitStatus::PtraceEvent(pid, _, event) => {
                let is = |wanted: Event| event == wanted as i32;
                if is(Event::PTRACE_EVENT_EXEC) && !has_keeper {
                    stop(first)?;
                    return Ok(waiting);
                }
                let is_birth = is(Event::PTRACE_EVENT_FORK)
                    || is(Event::PTRACE_EVENT_VFORK)
                    || is(Event::PTRACE_EVENT_CLONE);
                if is_birth {
                    let child = ptrace::getevent(pid).map_err(failed)?;
                    let child = Pid::from_raw(i32::try_from(child).map_err(|fault| fault.to_string())?);
                    // It is traced from its birth, and stops by itself.
                    waitpid(child, Some(ours)).map_err(failed)?;
                    stop(child)?;
                    ptrace::detach(pid, None).map_err(failed)?;
                    return u32::try_from(child.as_raw()).map_err(|fault| fault.to_string());
                }
                ptrace::cont(pid, None).map_err(failed)?;
            }
            WaitStatus::Stopped(pid, signal) => ptrace::cont(pid, Some(signal)).map_err(failed)?,
            WaitStatus::Exited(_, code) => return Err(format!("it ended with {code}")),
            WaitStatus::Signaled(_, signal, _) => return Err(format!("{signal} ended it")),
            _ => {}
        }
    }
}
