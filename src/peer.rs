//! Who is asking. The name in the peer's address is a claim; the kernel's word on the peer makes it a [`Peer`].

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};

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

/// The cgroup below which a service manager keeps its units, without a slash at its end: empty for a system manager
/// that sits at the root of the hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagerCgroup(String);

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
}

impl ManagerCgroup {
    fn of_system() -> Self {
        let cgroup = fs::read_to_string("/proc/1/cgroup").unwrap_or_default();
        let root = unified_path(&cgroup).and_then(|path| path.strip_suffix("/init.scope"));
        Self(root.unwrap_or_default().to_owned())
    }

    /// The user's manager above this process; without one, where systemd would put it.
    fn of_user(uid: u32) -> Self {
        let name = format!("/user@{uid}.service");
        let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let above = unified_path(&cgroup).and_then(|path| Some(&path[..path.find(&name)? + name.len()]));
        Self(above.map_or_else(|| format!("/user.slice/user-{uid}.slice{name}"), str::to_owned))
    }
}

/// Makes a peer of whoever holds the other end of `stream`, which has this `address`, or says which check failed, with
/// the claim where it could be read.
pub fn identify(
    stream: &UnixStream,
    address: Option<&SocketAddr>,
    trust: &Trust,
) -> Result<Peer, (Option<Claim>, Unidentified)> {
    let claim = address.and_then(|address| Claim::parse(address.as_abstract_name()?));
    let claim = claim.ok_or((None, Unidentified::MalformedAddress))?;
    match verify(stream, &claim, trust) {
        Ok((pid, pin)) => Ok(Peer { unit: claim.unit, credential: claim.credential, pid, _pin: pin }),
        Err(why) => Err((Some(claim), why)),
    }
}

fn verify(stream: &UnixStream, claim: &Claim, trust: &Trust) -> Result<(i32, Option<Pin>), Unidentified> {
    let credentials = getsockopt(stream, sockopt::PeerCredentials).map_err(Unidentified::Kernel)?;
    let (expected, manager) = match trust {
        Trust::System { manager } => (0, manager),
        Trust::User { uid, manager } => (*uid, manager),
        Trust::Names => return Ok((credentials.pid(), None)),
    };
    if credentials.uid() != expected {
        return Err(Unidentified::WrongUid { found: credentials.uid(), expected });
    }
    let pin = Pin::of(stream)?;
    let mut buffer = [0; CGROUP_MAX];
    let cgroup = read_cgroup(credentials.pid(), &mut buffer).map_err(|error| match error.raw_os_error() {
        // ESRCH: the process ended between open and read.
        Some(errno) if [Errno::ENOENT as i32, Errno::ESRCH as i32].contains(&errno) => Unidentified::Gone,
        _ => Unidentified::NoCgroup,
    })?;
    let path = unified_path(cgroup).ok_or(Unidentified::NoCgroup)?;
    if manager.is_at(path) || manager.unit_of(path).is_some_and(|unit| unit.is(&claim.unit)) {
        // Only now is it known that the process whose cgroup was read is the peer: it has held its PID all along.
        return if pin.still_holds() { Ok((credentials.pid(), Some(pin))) } else { Err(Unidentified::Gone) };
    }
    let in_user_manager = path.split('/').any(|component| component.starts_with("user@"));
    let cgroup = path.to_owned();
    match trust {
        Trust::System { .. } if in_user_manager => Err(Unidentified::UserManager { cgroup }),
        _ => Err(Unidentified::Forged { cgroup }),
    }
}

/// Reads the file in one go; `fs::read_to_string` takes six system calls, which show in the latency of an answer.
fn read_cgroup(pid: i32, buffer: &mut [u8; CGROUP_MAX]) -> io::Result<&str> {
    let length = File::open(format!("/proc/{pid}/cgroup"))?.read(buffer)?;
    // What fills the buffer may be cut off, and a path cut off is another path.
    let whole = &buffer[..length]
        .strip_suffix(b"\n")
        .filter(|_| length < CGROUP_MAX)
        .ok_or(io::ErrorKind::InvalidData)?;
    std::str::from_utf8(whole).map_err(io::Error::other)
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

    fn still_holds(&self) -> bool {
        match self {
            // A pidfd becomes readable when its process ends.
            Self::Process(process) => {
                poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(0)
            }
            Self::Unavailable => true,
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

/// The path on the line of the unified hierarchy. On hybrid hosts the other lines prove nothing.
fn unified_path(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::")).filter(|path| path.starts_with('/'))
}

/// The unit in which a cgroup lies, and what is below the unit's own cgroup.
struct UnitCgroup<'a> {
    component: &'a str,
    below: &'a str,
}

impl ManagerCgroup {
    /// The manager's own cgroup, where nobody but it and the children are that it has not moved to a unit yet. From there
    /// systemd 260 and later ask when they refresh the credentials of a running unit.
    fn is_at(&self, path: &str) -> bool {
        path.strip_prefix(&self.0) == Some("/init.scope")
    }

    /// As systemd itself finds the unit of a process: below the manager, past all slices, the first component. What
    /// lies deeper is the unit's own making: in `/system.slice/forger.service/postgres.service` it is the forger's.
    fn unit_of<'a>(&self, path: &'a str) -> Option<UnitCgroup<'a>> {
        let mut rest = path.strip_prefix(&self.0)?.strip_prefix('/')?;
        loop {
            let (component, below) = rest.split_once('/').unwrap_or((rest, ""));
            if !component.ends_with(".slice") {
                return Some(UnitCgroup { component, below });
            }
            rest = below;
        }
    }
}

impl UnitCgroup<'_> {
    fn is(&self, unit: &UnitName) -> bool {
        // systemd puts `_` before names that cgroupfs keeps for itself, such as `cpu.service`.
        let name = self.component.strip_prefix('_').unwrap_or(self.component);
        // Below a user's manager are that user's units, which must not pass for the manager itself.
        let own = !name.starts_with("user@") || ["", "init.scope"].contains(&self.below);
        name == unit.as_str() && own
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim(name: &str) -> Option<(String, String)> {
        Claim::parse(name.as_bytes()).map(|claim| (claim.unit.to_string(), claim.credential.to_string()))
    }

    fn is_unit(manager: &str, path: &str, unit: &str) -> bool {
        let unit = unit.parse().unwrap();
        ManagerCgroup(manager.into()).unit_of(path).is_some_and(|found| found.is(&unit))
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
    fn the_unified_line_says_the_cgroup() {
        let hybrid = "12:pids:/x\n1:name=systemd:/\n0::/system.slice/foo.service\n";
        assert_eq!(unified_path(hybrid), Some("/system.slice/foo.service"));
        assert_eq!(unified_path("1:name=systemd:/system.slice/foo.service\n"), None);
        assert_eq!(unified_path("0::\n"), None);
    }

    /// With this process's file in `/proc` covered by one of this content, which takes root: what is made of it.
    /// `None`: this is not root.
    fn cgroup_of(content: &str) -> Option<Option<String>> {
        use nix::mount::{MsFlags, mount};
        use nix::sched::{CloneFlags, unshare};
        if !nix::unistd::geteuid().is_root() {
            eprintln!("NOT SHOWN: it takes root to cover a file in /proc");
            return None;
        }
        let pid = std::process::id() as i32;
        let file = std::env::temp_dir().join(format!("opnix-cgroup-{pid}-{}", content.len()));
        fs::write(&file, content).unwrap();
        // A thread's own mounts go with it.
        let read = std::thread::scope(|scope| {
            let covered = || {
                let none = None::<&str>;
                unshare(CloneFlags::CLONE_NEWNS).unwrap();
                mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
                let target = format!("/proc/{pid}/cgroup");
                mount(Some(&file), target.as_str(), none, MsFlags::MS_BIND, none).unwrap();
                read_cgroup(pid, &mut [0; CGROUP_MAX]).ok().map(str::to_owned)
            };
            scope.spawn(covered).join().unwrap()
        });
        fs::remove_file(file).unwrap();
        Some(read)
    }

    #[test]
    fn a_cgroup_file_that_may_be_cut_off_says_nothing() {
        let unit = "0::/system.slice/victim.service";
        // Other hierarchies come first, and this line is filled up so that the whole has that many bytes.
        let up_to = |length: usize, last: &str| {
            let filling = length - "1:name=systemd:/\n".len() - last.len();
            format!("1:name=systemd:/{}\n{last}", "x".repeat(filling))
        };
        let whole = up_to(CGROUP_MAX - 1, &format!("{unit}\n"));
        let Some(read) = cgroup_of(&whole) else { return };
        assert_eq!(read.as_deref().and_then(unified_path), Some("/system.slice/victim.service"));
        for (cut_off, what) in [
            (up_to(CGROUP_MAX, unit) + "-of-another.service\n", "in the middle of the unit's name"),
            (up_to(CGROUP_MAX, &format!("{unit}\n")) + "0::/elsewhere\n", "after a line"),
            (up_to(CGROUP_MAX, &format!("{unit}\n")), "or perhaps not at all"),
            (up_to(CGROUP_MAX + 1, &format!("{unit}\n")), "before the last line end"),
        ] {
            assert_eq!(cgroup_of(&cut_off), Some(None), "cut off {what}");
        }
        assert_eq!(cgroup_of(unit), Some(None), "without a line end it is not whole either");
    }

    #[test]
    fn a_peer_in_the_managers_own_cgroup_is_the_manager() {
        let is_at = |manager: &str, path| ManagerCgroup(manager.into()).is_at(path);
        assert!(is_at("", "/init.scope"));
        assert!(is_at(
            "/user.slice/user-0.slice/user@0.service",
            "/user.slice/user-0.slice/user@0.service/init.scope"
        ));
        for elsewhere in [
            "/init.scope/x",
            "/system.slice/init.scope",
            "/user.slice/user-0.slice/user@0.service/init.scope",
            "/",
        ] {
            assert!(!is_at("", elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn a_peer_in_the_units_cgroup_is_that_unit() {
        assert!(is_unit("", "/system.slice/foo.service", "foo.service"));
        assert!(is_unit("", "/my.slice/my-sub.slice/slc.service", "slc.service"));
        assert!(is_unit("", "/foo.service", "foo.service"));
        assert!(is_unit("", "/system.slice/foo.service/.control", "foo.service"));
        assert!(is_unit("", "/system.slice/_cpu.service", "cpu.service"));
        assert!(is_unit("/outer/box", "/outer/box/system.slice/foo.service", "foo.service"));
    }

    #[test]
    fn a_peer_elsewhere_is_not() {
        for path in [
            "/",
            "/system.slice",
            "/system.slice/",
            "/system.slice/forger.service",
            "/system.slice/forger.service/foo.service",
            "/system.slice/xfoo.service",
            "/system.slice/foo.service.d",
            "/system.slice/__foo.service",
            "/user.slice/user-0.slice/user@0.service/app.slice/foo.service",
            "/init.scope",
            "system.slice/foo.service",
        ] {
            assert!(!is_unit("", path, "foo.service"), "{path}");
        }
        assert!(!is_unit("/outer", "/system.slice/foo.service", "foo.service"));
        assert!(!is_unit("/outer", "/outerfoo.service", "foo.service"));
    }

    #[test]
    fn a_users_units_pass_for_their_manager_no_more_than_the_manager_for_them() {
        assert!(is_unit("", "/user.slice/user-0.slice/user@0.service", "user@0.service"));
        assert!(is_unit("", "/user.slice/user-0.slice/user@0.service/init.scope", "user@0.service"));
        assert!(!is_unit(
            "",
            "/user.slice/user-0.slice/user@0.service/app.slice/x.service",
            "user@0.service"
        ));
    }

    #[test]
    fn in_user_mode_the_unit_is_below_that_users_manager() {
        let manager = "/user.slice/user-7.slice/user@7.service";
        assert!(is_unit(manager, "/user.slice/user-7.slice/user@7.service/app.slice/x.service", "x.service"));
        assert!(!is_unit(
            manager,
            "/user.slice/user-8.slice/user@8.service/app.slice/x.service",
            "x.service"
        ));
        assert!(!is_unit(manager, "/system.slice/x.service", "x.service"));
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

        #[test]
        fn only_the_first_component_past_the_slices_counts(
            slices in proptest::collection::vec("[a-z]{1,4}\\.slice", 0..3),
            first in "[a-z]{1,4}\\.service", deeper in proptest::collection::vec("[a-z]{1,4}\\.(service|slice)", 0..3),
        ) {
            let components: Vec<String> = slices.into_iter().chain([first.clone()]).chain(deeper.clone()).collect();
            let path = format!("/{}", components.join("/"));
            prop_assert!(is_unit("", &path, &first));
            for other in deeper.iter().filter(|other| **other != first && other.ends_with(".service")) {
                prop_assert!(!is_unit("", &path, other));
            }
        }

        #[test]
        fn reading_a_cgroup_file_never_panics(text in "\\PC{0,80}") {
            if let Some(path) = unified_path(&text) { let _ = ManagerCgroup(String::new()).unit_of(path); }
        }
    }
}
