//! The throw-away host of the demo: a vault, a configuration, and the service.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::Failure;
use super::manager::{Manager, Outcome};
use crate::systemd::asker;

/// How many requests the time from memory is measured with.
pub const TIMED: usize = 1000;
/// How long the service may take to come up.
const START: Duration = Duration::from_secs(10);
const VAULT: &str = "Infrastructure Secrets";

pub struct Secret {
    pub name: &'static str,
    pub unit: &'static str,
    item: &'static str,
    field: &'static str,
    /// Text before and after the made-up value.
    around: (&'static str, &'static str),
}

/// The secrets of a typical host. The last one is a template. No unit of the machine that it runs on has such a name.
pub const SECRETS: [Secret; 5] = [
    Secret {
        name: "openai-api-key",
        unit: "opnix-demo-opencode.service",
        item: "OpenAI",
        field: "credential",
        around: ("sk-", ""),
    },
    Secret {
        name: "datadog-api-key",
        unit: "opnix-demo-datadog.service",
        item: "Datadog",
        field: "api key",
        around: ("", ""),
    },
    Secret {
        name: "cloudflare-token",
        unit: "opnix-demo-caddy.service",
        item: "Cloudflare",
        field: "token",
        around: ("cf_", ""),
    },
    Secret {
        name: "backblaze-credentials.json",
        unit: "opnix-demo-backup.service",
        item: "Backblaze",
        field: "json",
        around: ("{\"keyID\": \"0\", \"applicationKey\": \"", "\"}"),
    },
    Secret {
        name: "opencode.env",
        unit: "opnix-demo-opencode@web.service",
        item: "OpenAI",
        field: "credential",
        around: ("OPENAI_API_KEY=", "\n"),
    },
];

/// Everything is in one directory, gone when the demo ends.
pub struct Host {
    directory: PathBuf,
    pub socket: PathBuf,
    salt: RandomState,
    service: Service,
}

impl Host {
    pub fn start(manager: &Manager) -> Result<Self, Failure> {
        let salt = RandomState::new();
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
        let parent = runtime.unwrap_or_else(std::env::temp_dir);
        let directory = parent.join(format!("opnix-demo-{:016x}", salt.hash_one("directory")));
        fs::DirBuilder::new().mode(0o700).create(&directory)?;
        let mut host = Self {
            socket: directory.join("creds.sock"),
            service: Service(None, directory.join("log")),
            directory,
            salt,
        };
        host.write("vault.json", &host.vault())?;
        host.write("secrets.json", &host.configuration())?;
        let trust: &[&str] = match manager {
            Manager::System => &[],
            Manager::User => &["--user"],
            Manager::Client => &["--trust-peer-names"],
        };
        host.service = host.serve(&host.socket, "log", trust)?;
        Ok(host)
    }

    /// What the unit of this secret should find.
    pub fn value_of(&self, secret: &Secret) -> String {
        let plain = self.plain(secret);
        if is_template(secret) { format!("{}{plain}{}", secret.around.0, secret.around.1) } else { plain }
    }

    /// The value in the vault.
    fn plain(&self, secret: &Secret) -> String {
        let made_up = format!("demo{:016x}", self.salt.hash_one(secret.item));
        let source = SECRETS.iter().find(|other| other.item == secret.item).unwrap_or(secret);
        format!("{}{made_up}{}", source.around.0, source.around.1)
    }

    fn vault(&self) -> Value {
        let sources = SECRETS.iter().filter(|secret| !is_template(secret));
        let items: Vec<Value> = sources
            .map(|secret| {
                json!({"title": secret.item, "fields": [{"label": secret.field, "value": self.plain(secret)}]})
            })
            .collect();
        json!({"vaults": [{"name": VAULT, "items": items}]})
    }

    fn configuration(&self) -> Value {
        let reference = |secret: &Secret| format!("op://{VAULT}/{}/{}", secret.item, secret.field);
        let (templates, secrets): (Vec<&Secret>, Vec<&Secret>) =
            SECRETS.iter().partition(|secret| is_template(secret));
        let secrets: Vec<Value> = secrets
            .into_iter()
            .map(
                |secret| json!({"name": secret.name, "reference": reference(secret), "units": [secret.unit]}),
            )
            .collect();
        let templates: Vec<Value> = templates
            .into_iter()
            .map(|secret| {
                let text = format!("{}{{{{ {} }}}}{}", secret.around.0, reference(secret), secret.around.1);
                json!({"name": secret.name, "template": text, "units": ["opnix-demo-opencode@*.service"]})
            })
            .collect();
        json!({"provider": {"kind": "local", "path": "vault.json"}, "secrets": secrets, "templates": templates})
    }

    fn write(&self, name: &str, content: &Value) -> io::Result<()> {
        let mut file =
            File::options().write(true).create_new(true).mode(0o600).open(self.directory.join(name))?;
        writeln!(file, "{content:#}")
    }

    fn serve(&self, socket: &Path, log: &str, trust: &[&str]) -> Result<Service, Failure> {
        let log = self.directory.join(log);
        let mut child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .arg("--config")
            .arg(self.directory.join("secrets.json"))
            .arg("--socket")
            .arg(socket)
            .args(trust)
            .stdin(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        let begun = Instant::now();
        // It is not enough that the socket is there: for a moment nobody listens on it.
        while !fs::read_to_string(&log)?.contains("listening on") {
            if let Some(status) = child.try_wait()? {
                return Err(format!("the service ended with {status}:\n{}", fs::read_to_string(&log)?).into());
            }
            if begun.elapsed() > START {
                return Err(format!("the service did not come up within {START:?}").into());
            }
            sleep(Duration::from_millis(5));
        }
        Ok(Service(Some(child), log))
    }

    /// Why the service refused last.
    pub fn last_reason(&self) -> String {
        self.service.last_reason()
    }

    /// Asks in the name of a unit from a process that is not in it, and says how that ended.
    pub fn forge(&self, unit: &str, credential: &str) -> Result<(Outcome, String), Failure> {
        // The service that the demo's client asks believes names, so one that does not is started for this.
        let socket = self.directory.join("checking.sock");
        let trust: &[&str] = if nix::unistd::geteuid().is_root() { &[] } else { &["--user"] };
        let service = self.serve(&socket, "checking.log", trust)?;
        let answer = asker::ask(&socket, unit, credential)?;
        Ok((answer.map_or(Outcome::Refused, Outcome::Started), service.last_reason()))
    }

    /// How long an answer from memory takes, where the demo's own client can ask.
    pub fn time_from_memory(&self, manager: &Manager) -> io::Result<Option<Duration>> {
        if *manager != Manager::Client {
            return Ok(None);
        }
        let mut times = Vec::with_capacity(TIMED);
        for _ in 0..TIMED {
            let begun = Instant::now();
            asker::ask(&self.socket, SECRETS[0].unit, SECRETS[0].name)?;
            times.push(begun.elapsed());
        }
        times.sort();
        Ok(Some(times[TIMED / 2]))
    }
}

fn is_template(secret: &Secret) -> bool {
    secret.name == "opencode.env"
}

impl Drop for Host {
    fn drop(&mut self) {
        self.service.stop();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A running `opnix serve` and its log.
struct Service(Option<Child>, PathBuf);

impl Service {
    /// The answer does not wait for its record, so this does.
    fn last_reason(&self) -> String {
        for _ in 0..400 {
            let log = fs::read_to_string(&self.1).unwrap_or_default();
            let last = log.lines().rev().find_map(|line| line.split_once("refused ")?.1.split_once(": "));
            if let Some((_, reason)) = last {
                return reason.to_owned();
            }
            sleep(Duration::from_millis(5));
        }
        "no reason was logged".into()
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
            let _ = child.wait();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}
