//! The keeper: the unit's main process, which outlives the worker, so that no connection closes when the worker dies.
//!
//! `opnix serve` makes a second process that shares nothing with the first but the table of open descriptors, before it
//! has a thread or a secret. The second, the worker, does everything. The first, the keeper, touches no secret and parses
//! nothing: it passes the worker's words on to systemd, which believes only the main process, passes signals on to the
//! worker, and waits. However the worker ends, its connections are still open in the common table: the keeper gives
//! them to systemd's descriptor store, where the next instance finds them, and then ends in the same way. Without
//! systemd it refuses them.

use std::collections::HashSet;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::process;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{self, SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, getpeername, getsockname, recv,
    send, sendmsg, socket, socketpair,
};
use nix::sys::stat::fstat;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, getppid};

use super::answer::{self, Refusing};
use crate::kernel::{self, Twin};
use crate::moment::Moment;
use crate::peer::{asks_for_a_unit, is_named};
use crate::systemd::store;

/// What the worker is told when the keeper is gone.
pub const KEEPER_GONE: Signal = Signal::SIGUSR2;
/// Signals for the service as a whole: the keeper passes them on, in this order if they come together.
const PASSED_ON: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGTERM];
/// Signals that are left as they are: those that do not end a process, and those that report a fault of the process
/// itself, which would end it although they are blocked.
const NOT_OURS: [Signal; 12] = [
    Signal::SIGCONT,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGURG,
    Signal::SIGWINCH,
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGSYS,
];
/// How long the worker has to end after the signal to stop: more than it takes, unless it hangs.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// The longest message to systemd, in bytes.
const MESSAGE_MAX: usize = 4096;
/// How long peers have to read their refusal where no instance follows us. Together with [`STOP_LIMIT`] this is less
/// than `TimeoutStopSec=` of `systemd/opnix.service`.
const REFUSAL_LIMIT: Duration = Duration::from_secs(5);
/// How long to wait before something that the kernel had no memory for is tried again.
const PAUSE: Duration = Duration::from_millis(20);
/// How many times a message to systemd that the kernel has no memory for is tried.
const TRIES: u32 = 50;

/// Which of the two processes this one is.
pub enum Role {
    Worker(Channel),
    Keeper(Keeper),
}

/// The worker's end of the channel between the two.
#[derive(Debug)]
pub struct Channel {
    end: OwnedFd,
    keeper: Pid,
}

/// What the keeper tells the worker.
pub enum Heard {
    /// A signal for the service as a whole has come.
    Signal(Signal),
    /// systemd has the descriptor that came with this message.
    Stored(String),
}

pub struct Keeper {
    worker: Pid,
    channel: OwnedFd,
    signals: SignalFd,
    /// Where systemd listens, if it started us and holds a descriptor store.
    notify: Option<(OwnedFd, UnixAddr)>,
    /// The addresses of the sockets that units connect to, which are also the local addresses of their connections.
    listening: Vec<UnixAddr>,
    /// The addresses of the control sockets, which a unit may ask by mistake.
    control: Vec<UnixAddr>,
}

/// Makes the second process. `listening` are the sockets that units connect to, `control` those of administrators;
/// `backed` says whether systemd started us and stores descriptors.
pub fn divide(listening: &[UnixListener], control: &[UnixListener], backed: bool) -> io::Result<Role> {
    let names = |sockets: &[UnixListener]| {
        sockets.iter().map(|socket| getsockname(socket.as_raw_fd())).collect::<Result<_, _>>()
    };
    let (listening, control) = (names(listening)?, names(control)?);
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let mut handled = SigSet::all();
    NOT_OURS.into_iter().for_each(|signal| handled.remove(signal));
    handled.thread_block()?;
    let signals = SignalFd::with_flags(&handled, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let notify = if backed { notify_socket()? } else { None };
    let keeper = getpid();
    match kernel::clone_with_shared_descriptors()? {
        Twin::Child => {
            // Not dropped, because that would close the descriptors, which are the keeper's.
            std::mem::forget((ours, signals, notify));
            // The signals that are passed on stay blocked here: the keeper says in which order they came.
            PASSED_ON.into_iter().collect::<SigSet>().thread_set_mask()?;
            // systemd sends this one to all processes of the unit. The child that asks 1Password starts with it
            // unblocked, and is to end with us, not before: we may need its answer to end well.
            kernel::ignore(Signal::SIGTERM)?;
            // Until `lifetime` listens for it, which then looks whether the keeper lives.
            kernel::ignore(KEEPER_GONE)?;
            prctl::set_pdeathsig(KEEPER_GONE)?;
            if getppid() != keeper {
                return Err(io::Error::other("the keeper ended while it made the worker"));
            }
            be_killed_first();
            Ok(Role::Worker(Channel { end: theirs, keeper }))
        }
        Twin::Parent(worker) => {
            std::mem::forget(theirs);
            Ok(Role::Keeper(Keeper { worker, channel: ours, signals, notify, listening, control }))
        }
    }
}

/// Where `$NOTIFY_SOCKET` says that systemd listens.
fn notify_socket() -> io::Result<Option<(OwnedFd, UnixAddr)>> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(None) };
    let address = match name.as_encoded_bytes() {
        [b'@', name @ ..] => UnixAddr::new_abstract(name)?,
        _ => UnixAddr::new(name.as_os_str())?,
    };
    let end = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    Ok(Some((end, address)))
}

/// When memory runs out, the kernel is to kill the worker, whose end loses nothing, and not the keeper, whose score
/// `OOMScoreAdjust=` of the unit lowers.
fn be_killed_first() {
    // Not possible where there is no /proc; the two then have the same score.
    let _ = std::fs::write("/proc/self/oom_score_adj", "100");
}

impl Channel {
    /// Has the keeper pass a message on to systemd, with a descriptor that is the keeper's from here on.
    pub fn pass_on(&self, message: &str, descriptor: Option<OwnedFd>) -> io::Result<()> {
        let number = descriptor.as_ref().map_or(-1, AsRawFd::as_raw_fd).to_ne_bytes();
        let parts = [IoSlice::new(&number), IoSlice::new(message.as_bytes())];
        loop {
            match sendmsg::<()>(self.end.as_raw_fd(), &parts, &[], MsgFlags::MSG_NOSIGNAL, None) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(Errno::ENOMEM | Errno::ENOBUFS | Errno::EAGAIN) => std::thread::sleep(PAUSE),
                Err(errno) => return Err(errno.into()),
            }
        }
        // The keeper has the number now: closing the descriptor here would take it from the keeper.
        std::mem::forget(descriptor);
        Ok(())
    }

    /// The same without a descriptor and without waiting: the message is dropped when the keeper is behind.
    pub fn mention(&self, message: &[u8]) {
        let number = (-1_i32).to_ne_bytes();
        let parts = [IoSlice::new(&number), IoSlice::new(message)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let _ = sendmsg::<()>(self.end.as_raw_fd(), &parts, &[], flags, None);
    }

    /// This end, watched by the runtime, to learn of signals. (tokio has no type for sockets of kind SOCK_SEQPACKET.)
    pub fn watched(&self) -> io::Result<tokio::net::UnixDatagram> {
        let watched = std::os::unix::net::UnixDatagram::from(self.end.try_clone()?);
        watched.set_nonblocking(true)?;
        tokio::net::UnixDatagram::from_std(watched)
    }

    pub fn keeper_lives(&self) -> bool {
        getppid() == self.keeper
    }

    /// What the keeper says next; [`Errno::EAGAIN`] if it has said nothing.
    pub fn heard(&self) -> nix::Result<Heard> {
        let mut buffer = [0; MESSAGE_MAX];
        let length = recv(self.end.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
        match buffer[..length] {
            [signal] => Signal::try_from(i32::from(signal)).map(Heard::Signal),
            ref message => Ok(Heard::Stored(String::from_utf8_lossy(message).into_owned())),
        }
    }
}

impl Keeper {
    /// Waits until the worker ends, looks after what it left, and ends this process as the worker ended.
    pub fn keep(self) -> ! {
        // Neither dumped nor swapped, like the worker, although there is no secret in here: it must not wait for the
        // disk.
        let _ = crate::process::protect();
        let (end, stopping) = self.watch();
        self.pass_messages_on();
        let left = self.left_behind();
        // What was begun must be refused in any case, so the others go first, in case systemd has too little room for
        // all.
        let (begun, others): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|connection| answer::may_be_begun(&kernel::look_at(*connection)));
        let left: Vec<RawFd> = others.into_iter().chain(begun).collect();
        // Where no instance follows, systemd's store goes with the unit.
        if self.notify.is_none() || stopping {
            self.refuse(left);
        } else {
            let not_taken = left.into_iter().filter(|connection| !self.store(*connection)).collect();
            self.refuse(not_taken);
        }
        match end {
            WaitStatus::Signaled(_, signal, _) => end_by(signal),
            WaitStatus::Exited(_, code) => process::exit(code),
            _ => process::exit(1),
        }
    }

    /// Returns when the worker has ended with all of its threads, so that nobody but us uses the descriptors. Says also
    /// whether it was told to stop and no instance follows.
    fn watch(&self) -> (WaitStatus, bool) {
        // For each of `PASSED_ON`, whether it is still to be passed on.
        let mut pending = [false; PASSED_ON.len()];
        let (mut stopping, mut restarting) = (None::<Instant>, false);
        loop {
            let limit = stopping.map(|since| STOP_LIMIT.saturating_sub(since.elapsed()));
            self.wait(pending.contains(&true), limit);
            self.pass_messages_on();
            while let Ok(Some(info)) = self.signals.read_signal() {
                let signal = Signal::try_from(info.ssi_signo as i32);
                let passed_on = |passed: &Signal| signal == Ok(*passed);
                if let Some(at) = PASSED_ON.iter().position(passed_on) {
                    pending[at] = true;
                } else if signal == Ok(Signal::SIGCHLD) {
                    let end = waitpid(self.worker, Some(WaitPidFlag::WNOHANG));
                    if let Ok(end @ (WaitStatus::Exited(..) | WaitStatus::Signaled(..))) = end {
                        return (end, stopping.is_some() && !restarting);
                    }
                } else {
                    // Whatever would end us ends the worker, and we look after what it leaves. One of these signals is
                    // SIGABRT, which systemd's watchdog sends when it waits in vain for the worker's heartbeat.
                    let _ = signal::kill(self.worker, Signal::SIGKILL);
                }
            }
            for (signal, pending) in PASSED_ON.into_iter().zip(&mut pending).filter(|(_, pending)| **pending)
            {
                match signal {
                    Signal::SIGUSR1 => restarting = true,
                    Signal::SIGTERM | Signal::SIGINT => stopping = stopping.or_else(|| Some(Instant::now())),
                    _ => {}
                }
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                *pending = send(self.channel.as_raw_fd(), &[signal as i32 as u8], flags).is_err();
                if *pending {
                    // No later signal may overtake it.
                    break;
                }
            }
            if stopping.is_some_and(|since| since.elapsed() >= STOP_LIMIT) {
                // It hangs. We still have time to look after what it leaves; later, systemd would kill us both.
                let _ = signal::kill(self.worker, Signal::SIGKILL);
            }
        }
    }

    /// Waits for the worker or a signal, and, if there is a signal to pass on, for room for it.
    fn wait(&self, to_pass_on: bool, limit: Option<Duration>) {
        let wanted = if to_pass_on { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        let mut ends =
            [PollFd::new(self.channel.as_fd(), wanted), PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let limit = limit.map_or(PollTimeout::NONE, |limit| {
            PollTimeout::try_from(limit.max(PAUSE)).unwrap_or(PollTimeout::MAX)
        });
        // No signal interrupts this: they are blocked. What an error means shows in the calls after it.
        let _ = poll(&mut ends, limit);
    }

    /// Passes on what the worker has said so far, in its order.
    fn pass_messages_on(&self) {
        let mut buffer = [0; MESSAGE_MAX];
        while let Ok(length) = recv(self.channel.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            let Some((number, message)) = buffer[..length].split_first_chunk() else { return };
            let number = RawFd::from_ne_bytes(*number);
            let descriptor = (number >= 0).then(|| kernel::own(number));
            let told =
                self.tell_systemd(message, descriptor.as_ref().map(|descriptor| descriptor.as_raw_fd()));
            if told && descriptor.is_some() {
                // If there is no room for it, the worker only takes a stored connection for one that is not stored.
                let _ =
                    send(self.channel.as_raw_fd(), message, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
            }
        }
    }

    /// Says whether systemd has it. What is in systemd's queue it will have, whatever becomes of us.
    fn tell_systemd(&self, message: &[u8], descriptor: Option<RawFd>) -> bool {
        let Some((end, address)) = &self.notify else { return false };
        let descriptors: Vec<RawFd> = descriptor.into_iter().collect();
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let rights = if descriptors.is_empty() { &[][..] } else { &rights[..] };
        for _ in 0..TRIES {
            let parts = [IoSlice::new(message)];
            match sendmsg(end.as_raw_fd(), &parts, rights, MsgFlags::MSG_NOSIGNAL, Some(address)) {
                Err(Errno::ENOMEM | Errno::ENOBUFS | Errno::EAGAIN | Errno::ETOOMANYREFS) => {
                    std::thread::sleep(PAUSE);
                }
                told => return told.is_ok(),
            }
        }
        false
    }

    /// The connections of units that are still open, each once, although it may have several descriptors.
    fn left_behind(&self) -> Vec<RawFd> {
        let mut seen = HashSet::new();
        let is_connection = |number: &RawFd| {
            let Ok(name) = getsockname::<UnixAddr>(*number) else { return false };
            // A listening socket has the same address, but no peer.
            let has_peer = || getpeername::<UnixAddr>(*number).is_ok();
            self.listening.contains(&name) && has_peer()
                || self.control.contains(&name) && is_named(&kernel::look_at(*number))
        };
        let inode = |number: RawFd| fstat(kernel::look_at(number)).map(|file| file.st_ino);
        (0..descriptor_limit())
            .filter(is_connection)
            .filter(|number| inode(*number).map_or(true, |inode| seen.insert(inode)))
            .collect()
    }

    fn close_listeners(&self) {
        if self.notify.is_some() {
            return;
        }
        for number in 0..descriptor_limit() {
            let name = getsockname::<UnixAddr>(number);
            let is_ours =
                name.is_ok_and(|name| self.listening.contains(&name) || self.control.contains(&name));
            if is_ours && getpeername::<UnixAddr>(number) == Err(Errno::ENOTCONN) {
                drop(kernel::own(number));
            }
        }
    }

    /// Says whether systemd has it now.
    fn store(&self, connection: RawFd) -> bool {
        // The worker knew since when it waits. But systemd knows, whatever the name, which of them it has already; the others
        // came just now.
        let message = store::message(&store::name_of(&kernel::look_at(connection), Moment::now()));
        self.tell_systemd(message.as_bytes(), Some(connection))
    }

    /// Refuses the connections that no instance will answer. (Not those that are held: they would take this for a
    /// secret.)
    fn refuse(&self, connections: Vec<RawFd>) {
        // Whoever listens there next is not to find our sockets in the way.
        self.close_listeners();
        let units =
            connections.into_iter().filter(|connection| asks_for_a_unit(&kernel::look_at(*connection)));
        let mut left: Vec<(RawFd, Refusing)> =
            units.map(|connection| (connection, Refusing::default())).collect();
        let end = Instant::now() + REFUSAL_LIMIT;
        while !left.is_empty() && Instant::now() < end {
            left.retain_mut(|(connection, refusing)| !refusing.go_on(kernel::look_at(*connection)));
            std::thread::sleep(PAUSE);
        }
    }
}

/// No descriptor has this number or a higher one.
fn descriptor_limit() -> RawFd {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1 << 16, 0));
    limit.min(1 << 20) as RawFd
}

/// Ends this process as the worker ended, so that systemd reports what happened.
fn end_by(signal: Signal) -> ! {
    let _ = SigSet::all().thread_unblock();
    // The first one may find a handler of Rust's runtime, which only removes itself; then the second one ends us.
    let _ = signal::raise(signal);
    let _ = signal::raise(signal);
    process::exit(128 + signal as i32)
}
