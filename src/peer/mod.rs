//! Who is asking. The name in the peer's address is a claim; the kernel's word on the peer makes it a [`Peer`].

mod cgroup;
mod claim;
mod directories;
mod process;
mod unidentified;

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};

pub use self::cgroup::Legacy;
use self::cgroup::{ManagerCgroup, unified_path};
use self::claim::spell;
pub use self::claim::{Claim, asks_for_a_unit, claim_of, is_named, is_of_a_unit};
use self::directories::Directories;
use self::process::{CGROUP_MAX, Pin, is_shortage, read_cgroup};
pub use self::unidentified::Unidentified;
use crate::names::{CredentialName, UnitName};

/// A claim that holds. Only [`identify`] makes one.
#[derive(Debug)]
pub struct Peer {
    pub unit: UnitName,
    pub credential: CredentialName,
    pub pid: i32,
    /// Held until the answer is out, so that the PID on record means this process and no other.
    _pin: Option<Pin>,
}

/// Who holds the other end of a connection.
#[derive(Debug)]
pub enum Identity {
    /// The service manager, for this unit.
    Unit(Peer),
    Pretender(Pretender),
    Stranger(Stranger),
}

/// A peer whose address has the form that systemd uses to ask for a unit, but whose claim does not hold.
#[derive(Debug)]
pub struct Pretender {
    /// If it could be read.
    pub claim: Option<Claim>,
    pub why: Unidentified,
    /// The unit in whose cgroup it sits, or what else is known of where it is.
    pub group: String,
    /// It sits for certain in another unit of the same manager: no start of a unit waits for its answer.
    pub foreign: bool,
}

/// A peer whose address has another form. It is not a service manager that starts a unit, and may take anything for a
/// secret: a refusal, or even the bare end of the connection.
#[derive(Debug)]
pub struct Stranger {
    pub uid: u32,
    /// Root, or our own user in user mode: one that could be a client which takes what it reads for a secret.
    pub trusted: bool,
    /// As for a [`Pretender`].
    pub group: String,
    /// What it calls itself.
    pub address: String,
}

/// Whose word counts.
#[derive(Debug)]
pub enum Trust {
    /// System units only.
    System(Manager),
    /// Units of one user's manager only.
    User(Manager),
    /// The claim itself: for development, where no systemd is at hand. Proves nothing.
    Names,
}

/// The service manager whose units are served: the peer must have its uid, and sit in the unit's cgroup below its own.
#[derive(Debug)]
pub struct Manager {
    uid: u32,
    cgroup: ManagerCgroup,
    /// Where a unit's cgroup can be recognized by its number.
    directories: Option<Directories>,
    /// Why no claim of any peer can hold, if that is so.
    obstacle: Option<Legacy>,
    /// See [`Trust::let_go`].
    last: Mutex<Option<Peer>>,
}

impl Manager {
    fn new(uid: u32, cgroup: ManagerCgroup, slice: &'static str) -> Self {
        let directories = Directories::find(&cgroup, slice);
        Self { uid, cgroup, directories, obstacle: Legacy::here(), last: Mutex::default() }
    }
}

impl Trust {
    pub fn system() -> Self {
        Self::System(Manager::new(0, ManagerCgroup::of_system(), "system.slice"))
    }

    pub fn user() -> Self {
        let uid = nix::unistd::getuid().as_raw();
        Self::User(Manager::new(uid, ManagerCgroup::of_user(uid), "app.slice"))
    }

    /// Why no claim of any peer can hold, if that is so.
    pub fn obstacle(&self) -> Option<Legacy> {
        self.manager()?.obstacle
    }

    /// The peer has its answer. Its process is held until the next one has: who starts a unit asks for one credential after the
    /// other, and each time the kernel would make anew what we hold a process by (docs/performance.md).
    pub fn let_go(&self, peer: Peer) {
        if let Some(manager) = self.manager() {
            *manager.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(peer);
        }
    }

    fn manager(&self) -> Option<&Manager> {
        match self {
            Self::System(manager) | Self::User(manager) => Some(manager),
            Self::Names => None,
        }
    }
}

/// Says who holds the other end of `stream`, which has this `address`. An error says nothing about the peer: the kernel is
/// short of something, and is to be asked again.
pub fn identify(stream: &UnixStream, address: &SocketAddr, trust: &Trust) -> Result<Identity, Errno> {
    match (claim_of(address), address.as_abstract_name()) {
        (Some(claim), _) => {
            let mut group = None;
            match verify(stream, &claim, trust, &mut group) {
                Ok((pid, pin)) => {
                    let Claim { unit, credential } = claim;
                    Ok(Identity::Unit(Peer { unit, credential, pid, _pin: pin }))
                }
                Err(Unidentified::Kernel(errno)) if is_shortage(errno) => Err(errno),
                Err(why) => {
                    let manager = trust.manager().map(|manager| &manager.cgroup);
                    let certain = group.as_ref().filter(|cgroup: &&Cgroup| cgroup.certain);
                    let own_unit = certain.and_then(|cgroup| manager?.own_unit(&cgroup.path));
                    let foreign = matches!(why, Unidentified::Forged { .. }) && own_unit.is_some();
                    let group = match (group, &why) {
                        (Some(cgroup), _) => describe(manager, Some(cgroup.path)),
                        (None, Unidentified::Gone) => "a process that has ended".to_owned(),
                        // All that is known is what it says itself.
                        (None, Unidentified::Legacy(_)) => claim.unit.to_string(),
                        (None, _) => locate(stream, trust)?.1,
                    };
                    Ok(Identity::Pretender(Pretender { claim: Some(claim), why, group, foreign }))
                }
            }
        }
        // The form that systemd uses, but with an invalid name: if it is systemd that asks, it knows a refusal from a
        // secret.
        (None, Some(name)) if is_of_a_unit(name) => {
            let why = Unidentified::MalformedAddress;
            let group = locate(stream, trust)?.1;
            Ok(Identity::Pretender(Pretender { claim: None, why, group, foreign: false }))
        }
        _ => {
            let (uid, group) = locate(stream, trust)?;
            let ours = trust.manager().map_or_else(|| nix::unistd::getuid().as_raw(), |manager| manager.uid);
            let trusted = uid == 0 || uid == ours;
            Ok(Identity::Stranger(Stranger { uid, trusted, group, address: spell(address) }))
        }
    }
}

/// The cgroup that was read for a peer, and whether it is certainly that process's own.
struct Cgroup {
    path: String,
    certain: bool,
}

/// Whether the claim holds. `seen` is set to where the peer sits, if the checks get so far.
fn verify(
    stream: &UnixStream,
    claim: &Claim,
    trust: &Trust,
    seen: &mut Option<Cgroup>,
) -> Result<(i32, Option<Pin>), Unidentified> {
    let credentials = getsockopt(stream, sockopt::PeerCredentials).map_err(Unidentified::Kernel)?;
    let Some(manager) = trust.manager() else { return Ok((credentials.pid(), None)) };
    if credentials.uid() != manager.uid {
        return Err(Unidentified::WrongUid { found: credentials.uid(), expected: manager.uid });
    }
    if let Some(obstacle) = manager.obstacle {
        return Err(Unidentified::Legacy(obstacle));
    }
    let (pin, number) = Pin::of(stream)?;
    // This is enough for most units, and takes less time than what follows (docs/performance.md).
    let is_numbered = |number| manager.directories.as_ref().is_some_and(|all| all.have(&claim.unit, number));
    if number.is_some_and(is_numbered) {
        return Ok((credentials.pid(), Some(pin)));
    }
    let mut buffer = [0; CGROUP_MAX];
    let path = unified_path(read_cgroup(credentials.pid(), &mut buffer)?).ok_or(Unidentified::NoCgroup)?;
    // Only now is it known that the process whose cgroup was read is the peer: it has held its PID all along.
    if !pin.still_holds()? {
        return Err(Unidentified::Gone);
    }
    if manager.cgroup.speaks_for(path, &claim.unit) {
        return Ok((credentials.pid(), Some(pin)));
    }
    *seen = Some(Cgroup { path: path.to_owned(), certain: matches!(pin, Pin::Process(_)) });
    let in_user_manager = path.split('/').any(|component| component.starts_with("user@"));
    let cgroup = path.to_owned();
    match trust {
        Trust::System(_) if in_user_manager => Err(Unidentified::UserManager { cgroup }),
        _ => Err(Unidentified::Forged { cgroup }),
    }
}

/// The peer's uid, and where it sits, as far as that can be said: for counts and for people, never to grant anything.
fn locate(stream: &UnixStream, trust: &Trust) -> Result<(u32, String), Errno> {
    let credentials = getsockopt(stream, sockopt::PeerCredentials)?;
    let mut buffer = [0; CGROUP_MAX];
    let path = match read_cgroup(credentials.pid(), &mut buffer) {
        Err(Unidentified::Kernel(errno)) if is_shortage(errno) => return Err(errno),
        read => read.ok().and_then(unified_path).map(str::to_owned),
    };
    Ok((credentials.uid(), describe(trust.manager().map(|manager| &manager.cgroup), path)))
}

fn describe(manager: Option<&ManagerCgroup>, path: Option<String>) -> String {
    match (manager, path) {
        (Some(manager), Some(path)) => manager.group_of(&path).to_owned(),
        (None, Some(path)) => path,
        (_, None) => "a place that is not known".to_owned(),
    }
}

impl Peer {
    pub fn claim(&self) -> Claim {
        Claim { unit: self.unit.clone(), credential: self.credential.clone() }
    }
}
