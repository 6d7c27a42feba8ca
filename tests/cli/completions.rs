//! The shells complete names of the configuration, as real shells do it; and say nothing where it cannot be read.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::root;

const CONFIGURATION: &str = r#"{"secrets": [
    {"name": "api key", "reference": "op://V/I/f", "units": [{"unit": "app.service", "credential": "api-key"}, "web@*.service"]},
    {"name": "x$(touch ran)", "reference": "op://V/I/h", "units": ["mail@one.service", "mail@two.service"]},
    {"name": "y`touch ran`\"'", "reference": "op://V/I/i", "units": ["job@*.service"]},
    {"name": "other", "reference": "op://V/I/g", "units": ["app.service", "db.service"]}]}"#;
/// What is typed before the tabulator, what the completion then has to offer to readline, and what words are on the line in the end.
const TYPED: [(&str, &str, &str); 20] = [
    ("explain ", "[app.service][db.service][mail@one.service][mail@two.service]", "<explain>"),
    ("explain ap", "[app.service]", "<explain><app.service>"),
    ("explain app.service ", "[api-key][other]", "<explain><app.service>"),
    ("explain web@1.service ", "[api\\ key]", "<explain><web@1.service><api key>"),
    ("explain mail@", "[@one.service][@two.service]", "<explain><mail@>"),
    ("explain mail@o", "[@one.service]", "<explain><mail@one.service>"),
    ("explain mail\\@o", "[mail@one.service]", "<explain><mail@one.service>"),
    ("explain \"mail@o", "[mail@one.service]", "<explain><mail@one.service>"),
    ("explain nobody@", "", "<explain><nobody@>"),
    ("explain mail@one.service x", "[x\\$\\(touch\\ ran\\)]", "<explain><mail@one.service><x$(touch ran)>"),
    ("explain --config /x app.service a", "[api-key]", "<explain><--config></x><app.service><api-key>"),
    ("explain --config=/x mail@t", "[@two.service]", "<explain><--config=/x><mail@two.service>"),
    ("explain --co", "[--config][--control]", "<explain><--con>"),
    ("refresh other a", "[api\\ key]", "<refresh><other><api key>"),
    ("refresh \"a", "[api key]", "<refresh><api key>"),
    ("refresh 'y", "[y`touch ran`\"'\\']", "<refresh><y`touch ran`\"'>"),
    ("refresh \"y", "[y\\`touch ran\\`\\\"']", "<refresh><y`touch ran`\"'>"),
    ("refresh \"x", "[x\\$(touch ran)]", "<refresh><x$(touch ran)>"),
    ("status --json d", "[db.service]", "<status><--json><db.service>"),
    ("sche", "[schema]", "<schema>"),
];

/// A directory with a program `opnix` that has this file for its configuration.
fn place(name: &str, configuration: Option<&str>) -> PathBuf {
    let place =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("completions-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).unwrap();
    let file = place.join("secrets.json");
    configuration.into_iter().for_each(|text| fs::write(&file, text).unwrap());
    let program = place.join("opnix");
    let script =
        format!("#!/bin/sh\nexec {} \"$@\" --config {}\n", env!("CARGO_BIN_EXE_opnix"), file.display());
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    place
}

fn run(place: &Path, shell: &str, arguments: &[&str]) -> String {
    let path = format!("{}:{}", place.display(), std::env::var("PATH").unwrap());
    let output = Command::new(shell).args(arguments).env("PATH", path).output().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

/// Bash with a terminal: it alone splits a line as readline does. It writes a line for each prompt, what is offered for each
/// tabulator, and what it then reads of the line.
struct Bash {
    process: Child,
    written: PathBuf,
    lines: usize,
}

impl Bash {
    fn start(place: &Path) -> Self {
        let (written, rc, empty) = (place.join("written"), place.join("rc"), place.join("empty"));
        fs::create_dir_all(&empty).unwrap();
        let script = format!(
            "source {}\n\
             logged() {{ _opnix_with_names \"$@\"; {{ [ ${{#COMPREPLY[@]}} = 0 ] || printf '[%s]' \"${{COMPREPLY[@]}}\"; echo; }} >>{w}; }}\n\
             complete -F logged -o bashdefault -o default opnix\n\
             show() {{ {{ shift; printf '<%s>' \"$@\"; echo; }} >>{w}; }}\n\
             PS1='> '; HISTFILE=; PROMPT_COMMAND='echo prompt >>{w}'\n",
            root().join("docs/completions/opnix.bash").display(),
            w = written.display()
        );
        fs::write(&rc, script).unwrap();
        fs::write(&written, "").unwrap();
        let process = Command::new("script")
            .args(["-qc", &format!("bash --noprofile --rcfile {} -i", rc.display()), "/dev/null"])
            .current_dir(empty)
            .env("PATH", format!("{}:{}", place.display(), std::env::var("PATH").unwrap()))
            .envs([("TERM", "dumb"), ("INPUTRC", "/dev/null"), ("SHELL", "/bin/sh")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut bash = Self { process, written, lines: 0 };
        assert_eq!(bash.line(), "prompt");
        bash
    }

    /// The next one that it writes.
    fn line(&mut self) -> String {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let text = fs::read_to_string(&self.written).unwrap();
            if let Some(line) = text.split_inclusive('\n').nth(self.lines)
                && let Some(line) = line.strip_suffix('\n')
            {
                self.lines += 1;
                return line.to_owned();
            }
            assert!(Instant::now() < end, "bash wrote no more than {text}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn keys(&mut self, keys: &str) {
        self.process.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    fn completes(&mut self, typed: &str) -> (String, String) {
        self.keys(&format!("opnix {typed}\t"));
        let offered = self.line();
        // To the beginning of the line.
        self.keys("\u{1}show \n");
        let read = self.line();
        assert_eq!(self.line(), "prompt");
        (offered, read)
    }
}

impl Drop for Bash {
    fn drop(&mut self) {
        let _ = self.process.stdin.take();
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn in_fish(place: &Path, typed: &str) -> Vec<String> {
    let script = format!(
        "source {}; complete -C 'opnix {typed}'",
        root().join("docs/completions/opnix.fish").display()
    );
    run(place, "fish", &["--no-config", "-c", &script]).lines().map(str::to_owned).collect()
}

#[test]
fn names_of_the_configuration_are_completed() {
    let place = place("good", Some(CONFIGURATION));
    let mut bash = Bash::start(&place);
    for (typed, offered, read) in TYPED {
        assert_eq!(bash.completes(typed), (offered.to_owned(), read.to_owned()), "{typed:?}");
    }
    // Nothing of a name is run.
    assert!(!place.join("empty/ran").exists());
    let units = ["app.service", "db.service", "mail@one.service", "mail@two.service"];
    assert_eq!(in_fish(&place, "explain "), units);
    assert_eq!(in_fish(&place, "explain app.service "), ["api-key", "other"]);
    assert_eq!(in_fish(&place, "refresh "), ["api key", "other", "x$(touch ran)", "y`touch ran`\"'"]);
    fs::remove_dir_all(place).unwrap();
}

#[test]
fn without_a_configuration_that_can_be_read_nothing_is_said() {
    for (name, configuration) in
        [("none", None), ("cut", Some("{")), ("faulty", Some(r#"{"secrets": [{"name": "a"}]}"#))]
    {
        let place = place(name, configuration);
        let mut bash = Bash::start(&place);
        for typed in ["explain ", "explain app.service ", "refresh ", "status "] {
            assert_eq!(bash.completes(typed).0, "", "{name}: {typed:?}");
        }
        fs::remove_dir_all(place).unwrap();
    }
    // Nobody ever writes into this one.
    let place = place("fifo", None);
    assert!(Command::new("mkfifo").arg(place.join("secrets.json")).status().unwrap().success());
    let began = Instant::now();
    assert_eq!(Bash::start(&place).completes("explain ").0, "");
    assert!(began.elapsed().as_secs() < 5);
    fs::remove_dir_all(place).unwrap();
}
