//! How long an answer from memory takes, held against the barest server that could give one, and against one that does
//! ask the kernel for everything that opnix must know of a peer, but neither judges nor records it.
//!
//! `cargo bench --locked` prints, from one run, side by side: latency of one connection at a time, throughput at 64 concurrent
//! clients, and the service's resident memory; on all cores, and on one. Run it as root to have the peer's cgroup checked as in
//! earnest, and the records written as they are for journald.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::Pid;
use opnix::internals::asker;

const UNIT: &str = "opnix-bench.service";
const CREDENTIAL: &str = "key";
const VALUE: [u8; 64] = [b'x'; 64];
/// Which of the other two servers this program is to be, by the socket that it is given.
const BAREST: &str = "OPNIX_BENCH_BAREST";
const ASKING: &str = "OPNIX_BENCH_ASKING";
const ROUNDS: usize = 12;
const ONE_BY_ONE: usize = 1000;
const CLIENTS: usize = 64;
const PER_CLIENT: usize = 50;

fn main() {
    for (variable, asks) in [(BAREST, false), (ASKING, true)] {
        if let Some(path) = env::var_os(variable) {
            barest(Path::new(&path), asks);
        }
    }
    // `cargo test --benches` and `cargo clippy --all-targets` build it; only `cargo bench --locked` is meant to run it.
    if !env::args().any(|argument| argument == "--bench") {
        return;
    }
    let cgroup = join_cgroup();
    // Within a unit of a running systemd, its journal takes them, if that is wanted.
    let is_ours = env::var_os("OPNIX_BENCH_JOURNAL").is_none();
    let records = (cgroup.is_some() && is_ours).then(journal);
    let identified = if cgroup.is_some() { "by pidfd and cgroup" } else { "NOT: run as root for that" };
    println!("an answer of 64 bytes from memory; opnix identifies peers {identified}");
    println!(
        "{ROUNDS} rounds of {ONE_BY_ONE} requests one by one and {} from {CLIENTS} clients at once",
        CLIENTS * PER_CLIENT
    );
    measure("on all cores", cgroup.is_some(), records.as_ref());
    let mut one = CpuSet::new();
    one.set(0).expect("a core");
    // Of this process, its threads and the servers.
    sched_setaffinity(Pid::from_raw(0), &one).expect("to run on one core");
    measure("on one core", cgroup.is_some(), records.as_ref());
    if let Some(cgroup) = cgroup {
        // A cgroup goes only when nobody is in it.
        let _ = fs::write(
            cgroup.ancestors().nth(2).expect("the root").join("cgroup.procs"),
            std::process::id().to_string(),
        );
        let _ = fs::remove_dir(cgroup);
    }
}

fn measure(cores: &str, identify: bool, journal: Option<&UnixDatagram>) {
    let directory = env::temp_dir().join(format!("opnix-bench-{}", std::process::id()));
    fs::create_dir(&directory).expect("a directory for the benchmark");
    let sockets = ["barest", "asking", "opnix"].map(|name| directory.join(name));
    let mut servers = [
        start_barest(BAREST, &sockets[0]),
        start_barest(ASKING, &sockets[1]),
        start_opnix(&directory, &sockets[2], identify),
    ];
    let (ended, records) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (mut times, mut rates) = (<[Vec<f64>; 3]>::default(), <[Vec<f64>; 3]>::default());
    let mut idle = 0.0;
    thread::scope(|scope| {
        if let Some(journal) = journal {
            scope.spawn(|| drain(journal, &ended, &records));
        }
        idle = resident(&servers[2]);
        for round in 0..=ROUNDS {
            // Side by side, so that a noisy neighbour disturbs all; the first round warms up.
            for (server, socket) in sockets.iter().enumerate() {
                let (round_times, rate) = (one_by_one(socket), at_once(socket));
                if round > 0 {
                    times[server].extend(round_times);
                    rates[server].push(rate);
                }
            }
        }
        ended.store(true, Ordering::Relaxed);
    });
    println!(
        "\n{cores:<36}{:>11}{:>11}{:>11}{:>10}{:>10}",
        "barest", "asking", "opnix", "/barest", "/asking"
    );
    let row = |what: &str, unit: &str, [a, b, c]: [f64; 3]| {
        let figures = [a, b, c].map(|figure| format!("{figure:.1} {unit}"));
        let [a_text, b_text, c_text] = figures;
        println!("{what:<36}{a_text:>11}{b_text:>11}{c_text:>11}{:>10.2}{:>10.2}", c / a, c / b);
    };
    row("latency one by one, median", "µs", times.each_mut().map(|times| median(times)));
    row("latency one by one, 99th percentile", "µs", times.each_mut().map(|times| quantile(times, 0.99)));
    row("throughput at 64 clients, median", "k/s", rates.each_mut().map(|rates| median(rates) / 1e3));
    println!("{:<36}{:>30.1} MiB", "resident memory of opnix, idle", idle);
    println!("{:<36}{:>30.1} MiB", "resident memory of opnix, after", resident(&servers[2]));
    println!("{:<36}{:>34}", "records that the journal's socket got", records.into_inner());

    for server in &mut servers {
        // The end of a worker is its keeper's business.
        let _ = kill(Pid::from_raw(server.id() as i32), Signal::SIGTERM);
        let _ = server.wait();
    }
    let _ = fs::remove_dir_all(&directory);
}

/// The socket that opnix writes its records to, in place of journald's: this process and the servers see another /run.
fn journal() -> UnixDatagram {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("mounts of our own");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("mounts of our own");
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).expect("another /run");
    // As systemd sets it when it boots.
    fs::write("/proc/sys/net/unix/max_dgram_qlen", "512").expect("a queue as long as journald's");
    fs::create_dir_all("/run/systemd/journal").expect("the journal's directory");
    let socket = UnixDatagram::bind("/run/systemd/journal/socket").expect("the journal's socket");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a time limit");
    socket
}

/// Reads records as journald would, one after the other.
fn drain(journal: &UnixDatagram, ended: &AtomicBool, records: &AtomicUsize) {
    let mut record = [0; 64 << 10];
    while !ended.load(Ordering::Relaxed) {
        if journal.recv(&mut record).is_ok() {
            records.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Accept, ask the kernel who it is, write, close. When it `asks`, also what else tells who a peer is: the pidfd, its
/// cgroup, and whether it is still there.
fn barest(path: &Path, asks: bool) -> ! {
    let listener = UnixListener::bind(path).expect("a socket to listen on");
    loop {
        let (mut stream, _) = listener.accept().expect("a connection");
        let address = stream.peer_addr().expect("the peer's address");
        let credentials = getsockopt(&stream, sockopt::PeerCredentials).expect("the peer's credentials");
        std::hint::black_box((address, credentials));
        let pin = asks.then(|| {
            let pin = getsockopt(&stream, sockopt::PeerPidfd).expect("the peer's pidfd");
            let mut cgroup = [0; 4096];
            let file = fs::File::open(format!("/proc/{}/cgroup", credentials.pid()));
            let length = file.expect("the peer's cgroup").read(&mut cgroup).expect("its text");
            std::hint::black_box(&cgroup[..length]);
            let mut end = [PollFd::new(pin.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut end, PollTimeout::ZERO), Ok(0), "the peer is there");
            pin
        });
        stream.write_all(&VALUE).expect("a peer that reads");
        drop(stream);
        drop(pin);
    }
}

fn start_barest(variable: &str, socket: &Path) -> Child {
    let mut command = Command::new(env::current_exe().expect("this program"));
    started(command.env(variable, socket), socket)
}

fn start_opnix(directory: &Path, socket: &Path, identify: bool) -> Child {
    let value = String::from_utf8_lossy(&VALUE);
    let vault = format!(
        r#"{{"vaults": [{{"name": "v", "items": [{{"title": "i", "fields": [{{"label": "f", "value": "{value}"}}]}}]}}]}}"#
    );
    let config = format!(
        r#"{{"provider": {{"kind": "local", "path": "vault.json"}},
            "secrets": [{{"name": "{CREDENTIAL}", "reference": "op://v/i/f", "units": ["{UNIT}"]}}]}}"#
    );
    fs::write(directory.join("vault.json"), vault).expect("a vault file");
    fs::set_permissions(directory.join("vault.json"), fs::Permissions::from_mode(0o600)).expect("its mode");
    fs::write(directory.join("secrets.json"), config).expect("a configuration");
    let mut command = Command::new(env!("CARGO_BIN_EXE_opnix"));
    command.arg("serve").arg("--config").arg(directory.join("secrets.json")).arg("--socket").arg(socket);
    if !identify {
        command.arg("--trust-peer-names");
    }
    if !identify {
        return started(command.stderr(Stdio::null()), socket);
    }
    // It writes to the journal if its standard error is the journal, by this variable.
    let stderr = fs::File::create(directory.join("stderr")).expect("a file");
    let file = stderr.metadata().expect("its number");
    command.env("JOURNAL_STREAM", format!("{}:{}", file.dev(), file.ino()));
    started(command.stderr(stderr), socket)
}

fn started(command: &mut Command, socket: &Path) -> Child {
    let child = command.spawn().expect("a server");
    while !socket.exists() {
        thread::sleep(Duration::from_millis(5));
    }
    child
}

/// Puts this process into a cgroup named like the unit, as systemd would; root only.
fn join_cgroup() -> Option<PathBuf> {
    let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
    let root = roots.into_iter().find(|root| root.join("cgroup.procs").exists())?;
    let cgroup = root.join("system.slice").join(UNIT);
    fs::create_dir_all(&cgroup).ok()?;
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).ok()?;
    Some(cgroup)
}

/// Microseconds for each of a row of requests.
fn one_by_one(socket: &Path) -> Vec<f64> {
    let times = (0..ONE_BY_ONE).map(|_| {
        let begun = Instant::now();
        ask(socket);
        begun.elapsed().as_secs_f64() * 1e6
    });
    times.collect()
}

/// Requests per second from many clients at once.
fn at_once(socket: &Path) -> f64 {
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| (0..PER_CLIENT).for_each(|_| ask(socket)));
        }
    });
    (CLIENTS * PER_CLIENT) as f64 / begun.elapsed().as_secs_f64()
}

fn ask(socket: &Path) {
    let answer = asker::ask(socket, UNIT, CREDENTIAL).expect("an answer");
    assert_eq!(answer.as_deref(), Some(&VALUE[..]), "the right one");
}

fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}

/// MiB of resident memory.
/// Of the server and of the process that it made, if it made one: the keeper and the worker. (What they share counts twice.)
fn resident(server: &Child) -> f64 {
    let made = fs::read_to_string(format!("/proc/{0}/task/{0}/children", server.id()));
    let made = made.unwrap_or_default();
    let made = made.split_whitespace().filter_map(|pid| pid.parse().ok());
    made.chain([server.id()]).map(resident_of).sum()
}

fn resident_of(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the server's status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its resident size");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}
