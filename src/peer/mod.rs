//! Who is asking. The name in the peer's address is a claim; the kernel's word on the peer makes it a [`Peer`].

mod cgroup;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};

use self::cgroup::{ManagerCgroup, unified_path};
use crate::names::{CredentialName, UnitName};

/// The longest content of `/proc/PID/cgroup` that is looked at, in bytes: far above what its path limits allow.
const CGROUP_MAX: usize = 16 << 10;

/// What the address of the peer says: `\0<hex>/unit/<UNIT>/<CREDENTIAL>`. Anybody can write anything there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub unit: UnitName,
    pub credential: CredentialName,
}

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

/// A peer whose address is of the form that systemd asks from for a unit, but does not hold.
#[derive(Debug)]
pub struct Pretender {
    /// Where it could be read.
    pub claim: Option<Claim>,
    pub why: Unidentified,
    /// The unit in whose cgroup it sits, or what else is known of where it is.
    pub group: String,
    /// It sits for certain in another unit of the same manager: no start of a unit waits for its answer.
    pub foreign: bool,
}

/// A peer whose address is of another form. It is no service manager that starts a unit, and may take anything for a
/// secret: a refusal, and even the bare end of the connection.
#[derive(Debug)]
pub struct Stranger {
    pub uid: u32,
    /// Root, or our own user in user mode: one that could be a client which takes what it reads for a secret.
    pub trusted: bool,
    /// As of a [`Pretender`].
    pub group: String,
    /// What it calls itself.
    pub address: String,
}

/// Whose word counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// System units only: the peer is root and its cgroup is the unit's.
    System { manager: ManagerCgroup },
    /// Units of one user's manager only: the peer is that user and its cgroup is the unit's.
    User { uid: u32, manager: ManagerCgroup },
    /// The claim itself: for development, where no systemd is at hand. Proves nothing.
    Names,
}

/// Why a claim does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unidentified {
    #[error("the peer's address is not one that systemd asks from")]
    MalformedAddress,
    #[error("the peer has uid {found}, not {expected}: it is not the service manager")]
    WrongUid { found: u32, expected: u32 },
    #[error("the peer is gone")]
    Gone,
    #[error("the peer sits in no cgroup that says its unit")]
    NoCgroup,
    #[error("the peer's name is forged: it sits in cgroup {cgroup:?}")]
    Forged { cgroup: String },
    #[error("the peer belongs to a user's service manager: it sits in cgroup {cgroup:?}")]
    UserManager { cgroup: String },
    #[error("the kernel does not say who the peer is: {0}")]
    Kernel(Errno),
}

impl Trust {
    pub fn system() -> Self {
        Self::System { manager: ManagerCgroup::of_system() }
    }

    pub fn user() -> Self {
        let uid = nix::unistd::getuid().as_raw();
        Self::User { uid, manager: ManagerCgroup::of_user(uid) }
    }

    /// The manager whose units are served, and its uid.
    fn manager(&self) -> Option<(u32, &ManagerCgroup)> {
        match self {
            Self::System { manager } => Some((0, manager)),
            Self::User { uid, manager } => Some((*uid, manager)),
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
                    let manager = trust.manager().map(|(_, manager)| manager);
                    let certain = group.as_ref().filter(|place: &&Place| place.certain);
                    let own_unit = certain.and_then(|place| manager?.own_unit(&place.path));
                    let foreign = matches!(why, Unidentified::Forged { .. }) && own_unit.is_some();
                    let group = match (group, &why) {
                        (Some(place), _) => describe(manager, Some(place.path)),
                        (None, Unidentified::Gone) => "a process that has ended".to_owned(),
                        (None, _) => locate(stream, trust)?.1,
                    };
                    Ok(Identity::Pretender(Pretender { claim: Some(claim), why, group, foreign }))
                }
            }
        }
        // Systemd's form with a name that is none: whoever asks knows a refusal from a secret, if it is systemd.
        (None, Some(name)) if is_of_a_unit(name) => {
            let why = Unidentified::MalformedAddress;
            let group = locate(stream, trust)?.1;
            Ok(Identity::Pretender(Pretender { claim: None, why, group, foreign: false }))
        }
        _ => {
            let (uid, group) = locate(stream, trust)?;
            let ours = trust.manager().map_or_else(|| nix::unistd::getuid().as_raw(), |(uid, _)| uid);
            let trusted = uid == 0 || uid == ours;
            Ok(Identity::Stranger(Stranger { uid, trusted, group, address: spell(address) }))
        }
    }
}

/// What a peer with this address claims, whether it holds or not.
pub fn claim_of(address: &SocketAddr) -> Option<Claim> {
    Claim::parse(address.as_abstract_name()?)
}

/// Whether an address is of the form that systemd asks from for a unit.
pub fn is_of_a_unit(abstract_name: &[u8]) -> bool {
    abstract_name.windows(6).any(|part| part == b"/unit/")
}

/// An error that is about us, not about the peer.
fn is_shortage(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS | Errno::EINTR | Errno::EAGAIN
    )
}

/// The cgroup that was read for a peer, and whether it is that very process's for certain.
struct Place {
    path: String,
    certain: bool,
}

/// Whether the claim holds. `seen` is where the peer sits, if it got so far.
fn verify(
    stream: &UnixStream,
    claim: &Claim,
    trust: &Trust,
    seen: &mut Option<Place>,
) -> Result<(i32, Option<Pin>), Unidentified> {
    let credentials = getsockopt(stream, sockopt::PeerCredentials).map_err(Unidentified::Kernel)?;
    let Some((expected, manager)) = trust.manager() else { return Ok((credentials.pid(), None)) };
    if credentials.uid() != expected {
        return Err(Unidentified::WrongUid { found: credentials.uid(), expected });
    }
    let pin = Pin::of(stream)?;
    let mut buffer = [0; CGROUP_MAX];
    let path = unified_path(read_cgroup(credentials.pid(), &mut buffer)?).ok_or(Unidentified::NoCgroup)?;
    // Only now is it known that the process whose cgroup was read is the peer: it has held its PID all along.
    if !pin.still_holds()? {
        return Err(Unidentified::Gone);
    }
    if manager.speaks_for(path, &claim.unit) {
        return Ok((credentials.pid(), Some(pin)));
    }
    *seen = Some(Place { path: path.to_owned(), certain: matches!(pin, Pin::Process(_)) });
    let in_user_manager = path.split('/').any(|component| component.starts_with("user@"));
    let cgroup = path.to_owned();
    match trust {
        Trust::System { .. } if in_user_manager => Err(Unidentified::UserManager { cgroup }),
        _ => Err(Unidentified::Forged { cgroup }),
    }
}

/// The peer's uid, and where it sits, as well as that can be said: for counting and for people, never for a right.
fn locate(stream: &UnixStream, trust: &Trust) -> Result<(u32, String), Errno> {
    let credentials = getsockopt(stream, sockopt::PeerCredentials)?;
    let mut buffer = [0; CGROUP_MAX];
    let path = match read_cgroup(credentials.pid(), &mut buffer) {
        Err(Unidentified::Kernel(errno)) if is_shortage(errno) => return Err(errno),
        read => read.ok().and_then(unified_path).map(str::to_owned),
    };
    Ok((credentials.uid(), describe(trust.manager().map(|(_, manager)| manager), path)))
}

fn describe(manager: Option<&ManagerCgroup>, path: Option<String>) -> String {
    match (manager, path) {
        (Some(manager), Some(path)) => manager.group_of(&path).to_owned(),
        (None, Some(path)) => path,
        (_, None) => "a place that is not known".to_owned(),
    }
}

/// An address as people read it.
fn spell(address: &SocketAddr) -> String {
    match (address.as_abstract_name(), address.as_pathname()) {
        (Some(name), _) => format!("the address \"@{}\"", name.escape_ascii()),
        (None, Some(path)) => format!("the address {path:?}"),
        (None, None) => "no address".to_owned(),
    }
}

/// Reads the file in one go; `fs::read_to_string` takes six system calls, which show in the latency of an answer.
fn read_cgroup(pid: i32, buffer: &mut [u8; CGROUP_MAX]) -> Result<&str, Unidentified> {
    let read = File::open(format!("/proc/{pid}/cgroup")).and_then(|mut file| {
        loop {
            match file.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    });
    let length = read.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        // ESRCH: the process ended between open and read.
        Some(Errno::ENOENT | Errno::ESRCH) => Unidentified::Gone,
        Some(errno) if is_shortage(errno) => Unidentified::Kernel(errno),
        _ => Unidentified::NoCgroup,
    })?;
    whole_text(buffer, length).ok_or(Unidentified::NoCgroup)
}

/// What fills the buffer may be cut off, and a path cut off is another path.
fn whole_text(buffer: &[u8; CGROUP_MAX], length: usize) -> Option<&str> {
    let whole = buffer[..length].strip_suffix(b"\n").filter(|_| length < CGROUP_MAX)?;
    std::str::from_utf8(whole).ok()
}

/// Holds on to the peer's process, so that its PID cannot come to mean another one unnoticed.
#[derive(Debug)]
enum Pin {
    Process(OwnedFd),
    /// Linux before 6.5: a peer that ends while we look, and whose PID goes to a process of the claimed unit at once,
    /// would pass. It cannot read the answer unless it shares its socket, and it is root in any case.
    Unavailable,
}

impl Pin {
    fn of(stream: &UnixStream) -> Result<Self, Unidentified> {
        match getsockopt(stream, sockopt::PeerPidfd) {
            Ok(process) => Ok(Self::Process(process)),
            Err(Errno::ENOPROTOOPT) => Ok(Self::Unavailable),
            // ESRCH from Linux 6.16 on, EINVAL before.
            Err(Errno::ESRCH | Errno::EINVAL | Errno::ENODATA) => Err(Unidentified::Gone),
            Err(errno) => Err(Unidentified::Kernel(errno)),
        }
    }

    fn still_holds(&self) -> Result<bool, Unidentified> {
        let Self::Process(process) = self else { return Ok(true) };
        let mut end = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut end, PollTimeout::ZERO) {
                Ok(0) => return Ok(true),
                // A pidfd becomes readable when its process ends.
                Ok(_) => return Ok(false),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Unidentified::Kernel(errno)),
            }
        }
    }
}

impl From<Peer> for Claim {
    fn from(peer: Peer) -> Self {
        Self { unit: peer.unit, credential: peer.credential }
    }
}

impl Claim {
    /// `name` is the address without its first NUL.
    fn parse(name: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(name).ok()?;
        let (id, rest) = text.split_once("/unit/")?;
        let hex = (1..=16).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit());
        let (unit, credential) = rest.split_once('/').filter(|_| hex)?;
        Some(Self { unit: unit.parse().ok()?, credential: credential.parse().ok()? })
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "credential \"{}\" for unit {}", self.credential, self.unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim(name: &str) -> Option<(String, String)> {
        Claim::parse(name.as_bytes()).map(|claim| (claim.unit.to_string(), claim.credential.to_string()))
    }

    #[test]
    fn the_address_that_systemd_asks_from_is_read() {
        let expected = Some(("opencode@blue.service".into(), "openai-api-key".into()));
        assert_eq!(claim("6b8b4567327b23c6/unit/opencode@blue.service/openai-api-key"), expected);
        assert_eq!(claim("a/unit/esc-a\\x2db@x.service/k").unwrap().0, "esc-a\\x2db@x.service");
    }

    #[test]
    fn any_other_address_is_malformed() {
        let long = "1".repeat(17) + "/unit/a.service/k";
        for bad in [
            "",
            "a",
            "/unit/a.service/k",
            "xyz/unit/a.service/k",
            &long,
            "a/unit/a.service",
            "a/unit/a.service/",
            "a/unit/a.service/k/l",
            "a/unit//k",
            "a/unit/a/k",
            "a/unit/a@.service/k",
            "a/bus/a.service/k",
            "a/unit/a.service/k\0",
        ] {
            assert_eq!(claim(bad), None, "{bad:?}");
        }
        assert_eq!(Claim::parse(b"a/unit/a.service/\xff"), None);
    }

    #[test]
    fn a_cgroup_file_that_may_be_cut_off_says_nothing() {
        let unit = "0::/system.slice/victim.service";
        // Other hierarchies come first, and this line is filled up so that the whole has that many bytes.
        let up_to = |length: usize, last: &str| {
            let filling = length - "1:name=systemd:/\n".len() - last.len();
            format!("1:name=systemd:/{}\n{last}", "x".repeat(filling))
        };
        let read = |content: &str| {
            let mut buffer = [0; CGROUP_MAX];
            let length = content.len().min(CGROUP_MAX);
            buffer[..length].copy_from_slice(&content.as_bytes()[..length]);
            whole_text(&buffer, length).map(str::to_owned)
        };
        let whole = read(&up_to(CGROUP_MAX - 1, &format!("{unit}\n")));
        assert_eq!(whole.as_deref().and_then(unified_path), Some("/system.slice/victim.service"));
        for (cut_off, what) in [
            (up_to(CGROUP_MAX, unit) + "-of-another.service\n", "in the middle of the unit's name"),
            (up_to(CGROUP_MAX, &format!("{unit}\n")) + "0::/elsewhere\n", "after a line"),
            (up_to(CGROUP_MAX, &format!("{unit}\n")), "or perhaps not at all"),
            (up_to(CGROUP_MAX + 1, &format!("{unit}\n")), "before the last line end"),
        ] {
            assert_eq!(read(&cut_off), None, "cut off {what}");
        }
        assert_eq!(read(unit), None, "without a line end it is not whole either");
    }

    proptest! {
        #[test]
        fn parsing_an_address_never_panics(name in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = Claim::parse(&name);
        }

        #[test]
        fn what_systemd_writes_is_read_back(id in any::<u64>(), unit in "[a-zA-Z0-9:_.\\\\-]{1,20}", key in "[!-.0-9;-~]{1,20}") {
            prop_assume!(key != "." && key != "..");
            let name = format!("{id:016x}/unit/{unit}.service/{key}");
            prop_assert_eq!(claim(&name), Some((format!("{unit}.service"), key)));
        }
    }
}
