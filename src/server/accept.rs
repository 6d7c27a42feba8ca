//! The accept loop: takes connections, and answers at once those that can be answered from memory. Its thread waits for
//! nothing but the next connection.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::pthread::pthread_kill;
use nix::sys::socket::{SockFlag, accept4, setsockopt, sockopt};
use nix::sys::time::TimeVal;
use tokio::time::sleep;
use tracing::error;

use super::Service;
use super::keeper::KEEPER_GONE;
use super::request::{self, Request};
use crate::kernel;
use crate::moment::Moment;

/// How long to wait after an error, such as running out of descriptors or memory for another connection.
const PAUSE: Duration = Duration::from_millis(100);
/// How long to wait for a connection before the loop shows that it lives, at most.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// How often a loop that is to end is woken, until it has.
const WAKE: Duration = Duration::from_millis(5);

/// The threads that accept, one for each listener: it sleeps in the call that gives it a connection, which takes less time than to
/// learn first that there is one (docs/performance.md).
pub struct Accepting {
    threads: Vec<(JoinHandle<()>, Arc<AtomicBool>)>,
    ending: Arc<AtomicBool>,
}

impl Accepting {
    /// Each shows at least this often that it lives.
    pub fn begin(
        listeners: Vec<UnixListener>,
        service: &Arc<Service>,
        shows_life: Duration,
    ) -> io::Result<Self> {
        let ending = Arc::new(AtomicBool::new(false));
        let wait = shows_life.min(LONGEST_WAIT);
        let begin = |listener: UnixListener| {
            listener.set_nonblocking(false)?;
            let wait = TimeVal::new(wait.as_secs() as i64, wait.subsec_micros().into());
            setsockopt(&listener, sockopt::ReceiveTimeout, &wait)?;
            let lives = Arc::new(AtomicBool::new(true));
            let (service, ending, shown) = (service.clone(), ending.clone(), lives.clone());
            let accept = move || {
                let mut failing = false;
                while !ending.load(Ordering::Relaxed) {
                    shown.store(true, Ordering::Relaxed);
                    accept_next(&listener, &service, &mut failing);
                }
            };
            Ok((thread::Builder::new().name("accept".into()).spawn(accept)?, lives))
        };
        let threads = listeners.into_iter().map(begin).collect::<io::Result<_>>()?;
        Ok(Self { threads, ending })
    }

    /// Whether each has shown that it lives since this was last asked.
    pub fn live(&self) -> bool {
        let live = self.threads.iter().all(|(_, lives)| lives.load(Ordering::Relaxed));
        if live {
            self.threads.iter().for_each(|(_, lives)| lives.store(false, Ordering::Relaxed));
        }
        live
    }

    /// Returns when none accepts any more.
    pub async fn end(self) {
        self.ending.store(true, Ordering::Relaxed);
        while let Some((thread, _)) = self.threads.iter().find(|(thread, _)| !thread.is_finished()) {
            // Whatever has a handler ends the wait. One that comes just before the wait does not: so another one follows.
            let _ = pthread_kill(thread.as_pthread_t(), KEEPER_GONE);
            sleep(WAKE).await;
        }
    }
}

/// The next connection, if one comes in time.
fn accept_next(listener: &UnixListener, service: &Arc<Service>, failing: &mut bool) {
    let number = match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
        Ok(number) => number,
        Err(Errno::EAGAIN | Errno::ECONNABORTED | Errno::EINTR) => return,
        Err(errno) => {
            // What waits is in the backlog, which survives us.
            if !std::mem::replace(failing, true) {
                error!("cannot accept connections for now, trying again: {errno}");
            }
            return thread::sleep(PAUSE);
        }
    };
    *failing = false;
    let stream = UnixStream::from(kernel::own(number));
    match stream.peer_addr() {
        Ok(address) => {
            let request = Request { stream, since: Moment::now(), found: None, misdirected: false };
            request::handle(request, address, service);
        }
        Err(_) => request::take_up(stream, None, false, service),
    }
}
