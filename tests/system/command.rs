//! One command in the machine, and what came of it.

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::boot::{Container, SANE_PATH, remove_cgroup};

/// No command of a test takes this long. One that does hangs, and would hang the whole suite.
const LIMIT_SECONDS: &str = "120";

/// Joins the cgroup `$1` before it enters the container: inside, the process then has a cgroup line of its own
/// (`0::/test-7`, no unit's) as everybody has, and all that it starts can be killed at once.
const ENTER: &str = r#"
mkdir -p "$1" && echo $$ >"$1/cgroup.procs" || exit 125
limit=$2 leader=$3; shift 3
exec timeout --kill-after=5 "$limit" nsenter --all --target "$leader" "$@"
"#;

/// A command at work. Dropped, it is killed with all its offspring.
pub struct Running {
    child: Option<Child>,
    cgroup: PathBuf,
    shown: String,
}

impl Running {
    pub fn start(container: &Container, number: usize, command: &[&str], input: Option<&[u8]>) -> Running {
        let cgroup = container.cgroup.join(format!("payload/test-{number}"));
        let shown = command.join(" ");
        let mut child = Command::new("sh")
            .args(["-c", ENTER, "enter"])
            .arg(&cgroup)
            .args([LIMIT_SECONDS, &container.leader.to_string()])
            .args(command)
            .env_clear()
            .envs([("PATH", SANE_PATH), ("LANG", "C.UTF-8"), ("HOME", "/root"), ("TERM", "dumb")])
            .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|fault| panic!("cannot start `{shown}`: {fault}"));
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            stdin
                .write_all(input)
                .unwrap_or_else(|fault| panic!("`{shown}` did not read its input: {fault}"));
        }
        Running { child: Some(child), cgroup, shown }
    }

    pub fn is_done(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))))
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Output {
        let shown = self.shown.clone();
        let done = self.child.take().map(Child::wait_with_output);
        let done = done.and_then(Result::ok).unwrap_or_else(|| panic!("lost track of `{shown}`"));
        Output {
            shown,
            code: done.status.code(),
            stdout: done.stdout,
            stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        remove_cgroup(&self.cgroup);
        if let Some(child) = &mut self.child {
            let _ = child.wait();
        }
    }
}

#[must_use = "a command may have failed: ask with ok() or fails()"]
pub struct Output {
    shown: String,
    /// None: ended by a signal. 124: it took too long and was ended by us.
    pub code: Option<i32>,
    /// As it came: secrets may hold any byte.
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Output {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// Its standard output, without the line end. The test ends here when the command failed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.code == Some(0), "this should have succeeded:\n{self}");
        self.text()
    }

    /// The test ends here when the command succeeded.
    #[track_caller]
    pub fn fails(self) {
        assert!(self.code != Some(0), "this should have failed:\n{self}");
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Output { shown, code, stderr, .. } = self;
        write!(f, "$ {shown}\nexit code: {code:?}\nstdout:\n{}\nstderr:\n{stderr}", self.text())
    }
}
