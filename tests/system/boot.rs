//! A container with a real systemd as PID 1, and its sure end.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// No test depends on what the caller's environment holds, nor on where its tools happen to be found first.
pub const SANE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// A cgroup of this name and the number of a dead process is what a killed run left behind.
const CGROUP_NAME: &str = "opnix-test-";

/// What is special about a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Usual,
    /// The same, fresh, beside that of the other tests.
    Fresh,
    /// Cgroups of version 1 only.
    Legacy,
    /// A container with a user namespace of its own, which may make no further one.
    Unprivileged,
}

pub struct Container {
    process: Child,
    /// The container's PID 1, as the host numbers it.
    pub leader: u32,
    pub cgroup: PathBuf,
}

impl Container {
    /// Boots `root` under an overlay, with what `opnix` installs or is, and returns when systemd has settled. What is in `disk`
    /// stays when the container is gone.
    pub fn boot(
        root: &Path,
        binary: &Path,
        opnix: &Path,
        disk: Option<&Path>,
        kind: Kind,
    ) -> Result<Container, String> {
        sweep();
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
        // Such a machine is a second one, beside that of the other tests.
        let which = if disk.is_some() || kind != Kind::Usual { "second" } else { "machine" };
        let place = scratch.join(which);
        let console = scratch.join(format!("{which}.log"));
        let cgroup = unified_cgroups().join(format!("{CGROUP_NAME}{}-{which}", std::process::id()));
        for directory in [&place, &cgroup] {
            fs::create_dir_all(directory)
                .map_err(|fault| format!("cannot make {}: {fault}", directory.display()))?;
        }
        let disk = disk.unwrap_or(Path::new(""));
        let process = start([&place, root, &cgroup, binary, opnix, disk], kind, &console)
            .map_err(|fault| format!("cannot start the container: {fault}"))?;
        let mut container = Container { process, leader: 0, cgroup };
        let mut booted = container.settle();
        if kind == Kind::Unprivileged {
            booted = booted.and_then(|()| container.forbid_user_namespaces());
        }
        booted.map_err(|fault| {
            let log = fs::read_to_string(&console).unwrap_or_default();
            format!("{fault}\n--- console of the container\n{log}")
        })?;
        Ok(container)
    }

    /// As an administrator does it for a whole machine. The limit is that of the user namespace in which it is written: the
    /// host has its own.
    fn forbid_user_namespaces(&self) -> Result<(), String> {
        let limit = "echo 0 >/proc/sys/user/max_user_namespaces";
        let entered = Command::new("nsenter")
            .args(["--user", "--target", &self.leader.to_string(), "sh", "-c", limit])
            .status();
        match entered {
            Ok(status) if status.success() => Ok(()),
            failed => Err(format!("user namespaces cannot be forbidden: {failed:?}")),
        }
    }

    fn settle(&mut self) -> Result<(), String> {
        let limit = Instant::now() + BOOT_LIMIT;
        let mut state = String::from("no PID 1 yet");
        while Instant::now() < limit {
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(format!("the container ended while it booted: {status}"));
            }
            if let Some(leader) = self.find_leader() {
                self.leader = leader;
                state = self.state();
                if state == "running" || state == "degraded" {
                    return Ok(());
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(format!("the container did not boot within {BOOT_LIMIT:?}; its state: {state}"))
    }

    /// unshare → systemd-nspawn → systemd. Before its last exec the innermost still has systemd-nspawn's name.
    fn find_leader(&self) -> Option<u32> {
        let nspawn = children(self.process.id()).first().copied()?;
        let is_systemd = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "systemd")
        };
        children(nspawn).into_iter().find(is_systemd)
    }

    fn state(&self) -> String {
        let asked = Command::new("nsenter")
            .args(["--all", "--target", &self.leader.to_string(), "systemctl", "is-system-running"])
            .env_clear()
            .env("PATH", SANE_PATH)
            .output();
        asked.map(|output| String::from_utf8_lossy(&output.stdout).trim_end().to_owned()).unwrap_or_default()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Killing is enough: all processes and mounts of the container live in namespaces that end with this one.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let name = self.cgroup.file_name().unwrap_or_default();
        for hierarchy in hierarchies() {
            remove_cgroup(&hierarchy.join(name));
        }
    }
}

/// When we die, by whatever signal, the kernel kills `unshare`, and with it PID 1 of the PID namespace, and with
/// that everything in there; the mount namespace follows.
///
/// The signal is bound to the *thread* that starts the container: it must be the main thread.
fn start(arguments: [&Path; 6], kind: Kind, console: &Path) -> io::Result<Child> {
    let console = File::create(console)?;
    Command::new("setpriv")
        .args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .args(["sh", "-c", include_str!("boot.sh"), "boot.sh"])
        .args(arguments)
        .arg(if kind == Kind::Legacy { "0" } else { "1" })
        // Of a whole machine's users, so that no file has to change hands.
        .args((kind == Kind::Unprivileged).then_some("--private-users=identity"))
        .env_clear()
        .env("PATH", SANE_PATH)
        // Ctrl-C at the terminal is for us; to systemd-nspawn it would mean a slow, orderly shutdown.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(console.try_clone()?)
        .stderr(console)
        .spawn()
}

fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// Where cgroup2 is mounted: alone, or beside version 1 (a hybrid host).
fn unified_cgroups() -> PathBuf {
    let alone = Path::new("/sys/fs/cgroup");
    if alone.join("cgroup.controllers").exists() { alone.into() } else { alone.join("unified") }
}

/// On a hybrid host systemd-nspawn makes a cgroup of the same name in version 1's `name=systemd`.
fn hierarchies() -> [PathBuf; 2] {
    [unified_cgroups(), PathBuf::from("/sys/fs/cgroup/systemd")]
}

fn sweep() {
    for hierarchy in hierarchies() {
        for entry in fs::read_dir(hierarchy).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let owner = name.to_str().and_then(|name| name.strip_prefix(CGROUP_NAME));
            let owner = owner.and_then(|owner| owner.split('-').next());
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                remove_cgroup(&entry.path());
            }
        }
    }
}

/// Kills what is in a cgroup and removes it with all below it.
pub fn remove_cgroup(cgroup: &Path) {
    let _ = fs::write(cgroup.join("cgroup.kill"), "1");
    // The killed are gone only when the kernel has put them away.
    for _ in 0..100 {
        remove_empty(cgroup);
        if !cgroup.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn remove_empty(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}
