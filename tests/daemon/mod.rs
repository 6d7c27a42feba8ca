//! The real program as a service, without systemd: units are believed by their names.

#![allow(dead_code, clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use opnix::internals::asker;
use serde_json::{Value, json};

pub const UNIT: &str = "test.service";
/// Far longer than anything takes.
const LIMIT: Duration = Duration::from_secs(60);

pub struct Daemon {
    directory: PathBuf,
    process: Child,
}

/// 1Password's official core, as `tests/run` installs it.
pub fn library() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/core/libop_uniffi_core.so");
    assert!(path.exists(), "{} is missing: tests/run puts it there", path.display());
    path
}

impl Daemon {
    /// Serves these secrets, by name and reference, of the service account with this token.
    pub fn start(token: &str, secrets: &[(&str, &str)]) -> Self {
        let provider = json!({"kind": "service_account", "library": library()});
        Self::with("20s", &provider, token, secrets)
    }

    pub fn with(deadline: &str, provider: &Value, token: &str, secrets: &[(&str, &str)]) -> Self {
        Self::in_environment(&[], deadline, provider, token, secrets)
    }

    pub fn in_environment(
        environment: &[(&str, &Path)],
        deadline: &str,
        provider: &Value,
        token: &str,
        secrets: &[(&str, &str)],
    ) -> Self {
        let secrets: Vec<Value> = secrets
            .iter()
            .map(|(name, reference)| {
                let kind = if name.starts_with("file-") { "file" } else { "field" };
                json!({"name": name, "reference": reference, "kind": kind, "units": [UNIT]})
            })
            .collect();
        let config = json!({"provider": provider, "deadline": deadline, "secrets": secrets});
        Self::configured(environment, &config, token)
    }

    pub fn configured(environment: &[(&str, &Path)], config: &Value, token: &str) -> Self {
        let directory = new_directory("daemon");
        fs::write(directory.join("secrets.json"), config.to_string()).unwrap();
        let this = |name: &str| directory.join(name);
        write_token(&this("token"), token);
        let process = Command::new(env!("CARGO_BIN_EXE_opnix"))
            .args(["serve", "--trust-peer-names", "--config"])
            .arg(this("secrets.json"))
            .arg("--socket")
            .arg(this("socket"))
            .arg("--control")
            .arg(this("control"))
            .arg("--token-file")
            .arg(this("token"))
            .envs(environment.iter().copied())
            .stderr(Stdio::from(fs::File::create(this("log")).unwrap()))
            .spawn()
            .unwrap();
        let daemon = Self { directory, process };
        let end = Instant::now() + LIMIT;
        while !daemon.log().contains("listening on") {
            assert!(Instant::now() < end, "no service: {}", daemon.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        daemon
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    pub fn configuration(&self) -> PathBuf {
        self.directory.join("secrets.json")
    }

    pub fn control(&self) -> PathBuf {
        self.directory.join("control")
    }

    /// What a command of the command line says to this service, and its exit code.
    pub fn command(&self, arguments: &[&str]) -> (String, i32) {
        let command = Command::new(env!("CARGO_BIN_EXE_opnix"))
            .args(arguments)
            .arg("--control")
            .arg(self.control())
            .output()
            .unwrap();
        let said = [command.stdout, command.stderr].concat();
        (String::from_utf8(said).unwrap(), command.status.code().unwrap())
    }

    /// The main process, to which signals are sent.
    pub fn keeper(&self) -> u32 {
        self.process.id()
    }

    /// The worker, which does everything: the child of the keeper.
    pub fn pid(&self) -> u32 {
        children(self.keeper())[0]
    }

    /// The processes that the service has started, by whichever of its threads; not before they are what they are to be: who
    /// stops one earlier stops the service, which waits for that.
    pub fn children(&self) -> Vec<u32> {
        let is_fetch = |pid: &u32| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            arguments.split(|byte| *byte == 0).nth(1) == Some(b"fetch")
        };
        children(self.pid()).into_iter().filter(is_fetch).collect()
    }

    pub fn replace_token(&self, token: &str) {
        write_token(&self.directory.join("token"), token);
    }

    /// Counts with the next reload.
    pub fn configure(&self, config: &Value) {
        fs::write(self.directory.join("secrets.json"), config.to_string()).unwrap();
    }

    /// Ends the service as systemd does, and returns its log.
    pub fn stop(mut self) -> String {
        signal(self.keeper(), Signal::SIGTERM);
        self.process.wait().unwrap();
        self.log()
    }

    /// Returns when the reload is done.
    pub fn reload(&self) {
        let before = self.log().matches("reloaded the configuration").count();
        signal(self.keeper(), Signal::SIGHUP);
        let end = Instant::now() + LIMIT;
        while self.log().matches("reloaded the configuration").count() == before {
            assert!(Instant::now() < end, "no reload: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The value, or `None` where the unit would not start.
    pub fn ask(&self, credential: &str) -> Option<String> {
        self.ask_bytes(credential).map(|value| String::from_utf8(value).unwrap())
    }

    pub fn ask_bytes(&self, credential: &str) -> Option<Vec<u8>> {
        let answer = asker::ask(&self.socket(), UNIT, credential).unwrap();
        assert_ne!(answer.as_deref(), Some(&b""[..]), "an empty secret");
        answer
    }

    /// The value, or why a unit does not get it.
    pub fn answer(&self, credential: &str) -> Result<String, String> {
        let before = self.log().lines().count();
        if let Some(value) = self.ask(credential) {
            return Ok(value);
        }
        // The answer does not wait for its record. Others may be refused at the same time.
        let refused = format!("refused credential \"{credential}\"");
        let end = Instant::now() + LIMIT;
        loop {
            let log = self.log();
            if let Some(record) = log.lines().skip(before).find(|line| line.contains(&refused)) {
                return Err(record.split_once(": ").unwrap_or_default().1.to_owned());
            }
            assert!(Instant::now() < end, "no record of the refusal: {log}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Why a unit does not get this credential.
    #[track_caller]
    pub fn refusal(&self, credential: &str) -> String {
        self.answer(credential).expect_err("a refusal")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap()
    }

    /// Waits for these words: no answer waits for its record.
    #[track_caller]
    pub fn says(&self, words: &str) {
        let end = Instant::now() + LIMIT;
        while !self.log().contains(words) {
            assert!(Instant::now() < end, "it does not say {words:?}: {}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// A directory of this test's own.
pub fn new_directory(name: &str) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let directory =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}-{number}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// The processes that this one has started, by whichever of its threads.
fn children(pid: u32) -> Vec<u32> {
    // It may be gone by now.
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    lists.collect::<Vec<_>>().join(" ").split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The worker first: without its keeper it would finish what it has in hand.
        for worker in children(self.keeper()) {
            signal(worker, Signal::SIGKILL);
        }
        // The keeper looks after what waited, and ends.
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// It may be gone by now.
pub fn signal(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
}

fn write_token(path: &Path, token: &str) {
    let new = path.with_extension("new");
    fs::write(&new, format!("{token}\n")).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(new, path).unwrap();
}
