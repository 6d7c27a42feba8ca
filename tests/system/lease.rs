//! A file that nobody can open for now: how a test makes whatever reads the file slow, with no hook in the product.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::boot::SANE_PATH;

/// The kernel tells the holder with SIGIO that somebody wants the file: that must neither end it nor make it let
/// go. It lets go when its standard input ends, so also when the test process dies.
/// A lease is refused while anybody still has the file open, hence the few attempts.
const HOLDER: &str = "
import fcntl, os, signal, sys, time
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = os.open(sys.argv[1], os.O_RDONLY)
for attempt in range(100):
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        break
    except BlockingIOError:
        time.sleep(0.02)
else:
    sys.exit('somebody keeps ' + sys.argv[1] + ' open')
print('held', flush=True)
sys.stdin.read()
";

/// While it lives, every open() of the file blocks in the kernel, for at most
/// `/proc/sys/fs/lease-break-time` (45 s). Opens with O_NONBLOCK fail with EWOULDBLOCK instead.
pub struct Lease {
    holder: Child,
    inode: u64,
}

impl Lease {
    pub fn take(path: &Path) -> Lease {
        let shown = path.display();
        let file = fs::metadata(path).unwrap_or_else(|fault| panic!("no lease on {shown}: {fault}"));
        let mut holder = Command::new("python3")
            .args(["-c", HOLDER])
            .arg(path)
            .env("PATH", SANE_PATH)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|fault| panic!("no lease on {shown}: python3: {fault}"));
        let mut said = String::new();
        if let Some(stdout) = holder.stdout.take() {
            let _ = BufReader::new(stdout).read_line(&mut said);
        }
        assert!(said == "held\n", "no lease on {shown}: see above");
        Lease { holder, inode: file.ino() }
    }

    /// Whether somebody stands before the file now.
    pub fn is_awaited(&self) -> bool {
        let inode = format!(":{} ", self.inode);
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        locks.lines().any(|lock| lock.contains("LEASE") && lock.contains("BREAK") && lock.contains(&inode))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        // Reaped, it has closed the file: from here on readers pass.
        let _ = self.holder.wait();
    }
}
