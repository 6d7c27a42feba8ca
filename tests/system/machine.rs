//! The test machine as a test sees it: a Linux with a real systemd, to which one talks as its administrator.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use crate::boot::{Container, Kind};
use crate::command::{Output, Running};
use crate::lease::Lease;

pub struct Machine {
    container: Container,
    systemd: u32,
    commands: AtomicUsize,
    /// A unit file was written since systemd last read them.
    stale: AtomicBool,
    /// Where the journal stood when the present test began.
    cursor: Mutex<String>,
}

impl Machine {
    /// To be called on the main thread: see `Container`.
    pub fn boot() -> Result<Machine, String> {
        Self::boot_with(&installer(), None, Kind::Usual)
    }

    /// A second machine, whose disk outlives it.
    pub fn boot_from(disk: &Path) -> Machine {
        Self::boot_with(&installer(), Some(disk), Kind::Usual).unwrap_or_else(|why| panic!("{why}"))
    }

    /// The same, with these files laid over its root instead of an installed opnix.
    pub fn boot_host(files: &Path, disk: &Path) -> Machine {
        Self::boot_with(files, Some(disk), Kind::Usual).unwrap_or_else(|why| panic!("{why}"))
    }

    /// A second machine, which is special.
    pub fn boot_as(kind: Kind) -> Machine {
        Self::boot_with(&installer(), None, kind).unwrap_or_else(|why| panic!("{why}"))
    }

    fn boot_with(opnix: &Path, disk: Option<&Path>, kind: Kind) -> Result<Machine, String> {
        let root = root();
        let root = root.canonicalize().map_err(|fault| format!("{}: {fault}", root.display()))?;
        let container = Container::boot(&root, Path::new(env!("CARGO_BIN_EXE_opnix")), opnix, disk, kind)?;
        let mut machine = Machine {
            container,
            systemd: 0,
            commands: AtomicUsize::new(0),
            stale: AtomicBool::new(false),
            cursor: Mutex::default(),
        };
        let version = machine.systemctl(&["--version"]).ok();
        machine.systemd = version
            .split_whitespace()
            .nth(1)
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| format!("no version in {version:?}"))?;
        machine.run(&["journalctl", "--update-catalog"]).ok();
        Ok(machine)
    }

    pub fn systemd_version(&self) -> u32 {
        self.systemd
    }

    /// Begins a test: what the journal holds by now belongs to the tests before it.
    pub fn begin(&self) {
        self.run(&["journalctl", "--sync"]).ok();
        let last = self.run(&["journalctl", "-n1", "-ojson"]).ok();
        let last: Value = serde_json::from_str(&last).expect("the journal is not empty after a boot");
        let cursor = last["__CURSOR"].as_str().expect("each record has a cursor");
        *self.cursor.lock().expect("nobody panics while holding this") = cursor.to_owned();
    }

    /// As root, outside any unit, with a clean environment. What it leaves running is killed when it ends.
    pub fn run(&self, command: &[&str]) -> Output {
        self.start(command, None).wait()
    }

    pub fn sh(&self, script: &str) -> Output {
        self.run(&["sh", "-euc", script])
    }

    pub fn systemctl(&self, arguments: &[&str]) -> Output {
        self.run(&[&["systemctl"], arguments].concat())
    }

    /// In the background, until it ends or is dropped.
    pub fn spawn(&self, command: &[&str]) -> Running {
        self.start(command, None)
    }

    fn start(&self, command: &[&str], input: Option<&[u8]>) -> Running {
        if self.stale.swap(false, Ordering::Relaxed) {
            self.systemctl(&["daemon-reload"]).ok();
        }
        Running::start(&self.container, self.commands.fetch_add(1, Ordering::Relaxed), command, input)
    }

    /// Replaces the file as a whole; makes the directories above it. `mode` as in chmod: "0600".
    pub fn write(&self, path: &str, bytes: impl AsRef<[u8]>, mode: &str) {
        self.start(&["install", "-D", "-m", mode, "/dev/stdin", path], Some(bytes.as_ref())).wait().ok();
    }

    /// A port on the machine's own loopback, served from here: a socket belongs to the network that it was made in.
    pub fn listen(&self) -> TcpListener {
        self.listen_on(0)
    }

    /// The same, on a port that is known before.
    pub fn listen_on(&self, port: u16) -> TcpListener {
        let network = File::open(format!("/proc/{}/ns/net", self.container.leader)).expect("its network");
        let inside = std::thread::spawn(move || {
            setns(network, CloneFlags::CLONE_NEWNET).expect("root may enter it");
            TcpListener::bind(("127.0.0.1", port)).expect("a free port")
        });
        inside.join().expect("it does not panic")
    }

    /// The container's file as the host reaches it. An *absolute* symlink on the way leads to the host's own
    /// files: say `/run`, not `/var/run`.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.container.leader))
    }

    /// What runs in a unit now, as the host numbers it.
    pub fn processes(&self, unit: &str) -> Vec<u32> {
        let list = self.container.cgroup.join("payload/system.slice").join(unit).join("cgroup.procs");
        let list = std::fs::read_to_string(list).unwrap_or_default();
        list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Writes a unit file (or a drop-in: "x.service.d/10.conf"). systemd reads it before the next command.
    pub fn unit(&self, name: &str, text: &str) {
        self.write(&format!("/run/systemd/system/{name}"), text, "0644");
        self.stale.store(true, Ordering::Relaxed);
    }

    /// One property of a unit: `show("x.service", "Result")`.
    pub fn show(&self, unit: &str, property: &str) -> String {
        self.systemctl(&["show", "--value", "--property", property, unit]).ok()
    }

    /// Looks again and again until it is so. The test ends here when it does not come true in time.
    #[track_caller]
    pub fn wait(&self, what: &str, mut so: impl FnMut() -> bool, limit: Duration) {
        let start = Instant::now();
        while !so() {
            assert!(
                start.elapsed() < limit,
                "waited {limit:?} in vain for: {what}; jobs: {}",
                self.systemctl(&["list-jobs", "--no-legend"]).text()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The present test's records in which each of these holds: `journal(&["_SYSTEMD_UNIT=x.service", …])`.
    pub fn journal(&self, matches: &[&str]) -> Vec<Value> {
        let text = self.journalctl("json");
        let records = text.lines().map(|line| serde_json::from_str(line).expect("journalctl writes JSON"));
        records.filter(|record| matches.iter().all(|wanted| matches_field(record, wanted))).collect()
    }

    /// All that the journal got during the present test, for people.
    pub fn journal_text(&self) -> String {
        self.journalctl("short-precise")
    }

    /// It is never asked to match: given a cursor, journalctl 252 leaves out the first record that matches.
    fn journalctl(&self, format: &str) -> String {
        // Without this, what was logged a moment ago may still be on its way. Without --all, long fields are cut.
        self.run(&["journalctl", "--sync"]).ok();
        let cursor = self.cursor.lock().expect("nobody panics while holding this").clone();
        self.run(&["journalctl", "--quiet", "--all", "--output", format, "--after-cursor", &cursor]).ok()
    }

    /// Lets nobody open this regular file while the lease lives. On a tmpfs (`/run`); not through a symlink.
    pub fn hold(&self, path: &str) -> Lease {
        Lease::take(&self.path(path))
    }
}

/// What machines boot: this host's own root, or the one named by `OPNIX_TEST_ROOT` (see tests/roots).
pub fn root() -> PathBuf {
    std::env::var_os("OPNIX_TEST_ROOT").map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

/// What lays opnix out as a package does.
fn installer() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/install")
}

/// `FIELD=value`. A field that a record has several times is an array.
fn matches_field(record: &Value, wanted: &str) -> bool {
    let (field, value) = wanted.split_once('=').expect("a match is FIELD=value");
    match &record[field] {
        Value::Array(values) => values.iter().any(|one| one == value),
        one => one == value,
    }
}
