//! What becomes of a key and its cache, with a stub of systemd-creds (`tests/cli/systemd-creds`).

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::words::tests::{FOREIGN, PASSING, finals};
use super::*;

pub const KEY: &str = "store/opnix.cache-key";
pub const CACHE: &str = "state/cache";
/// What to do with a key: each opens; none ever does.
pub const OPENS: &str = "true";
pub const LOST: &str = "echo '<27>Decryption failed (incorrect key?): No OpenSSL errors.' >&2; exit 1";

/// A machine: directories, and what its TPM answers.
pub struct Machine(pub PathBuf);

impl Machine {
    /// With the key `old`, and what it had sealed.
    pub fn new(name: &str) -> Self {
        let scratch = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tmp");
        let path = scratch.join(format!("setup-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        // As systemd lays it out where the service has a user of its own.
        fs::create_dir_all(path.join("private/state")).unwrap();
        fs::create_dir(path.join("store")).unwrap();
        symlink("private/state", path.join("state")).unwrap();
        let stub = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/systemd-creds");
        symlink(stub, path.join("systemd-creds")).unwrap();
        let machine = Self(path);
        machine.answer(OPENS);
        machine.write(KEY, "old");
        machine.write(CACHE, "of old");
        machine
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }

    pub fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.0.join(name)).ok()
    }

    pub fn answer(&self, script: &str) {
        self.write("answer", script);
    }

    /// Only keys of these names open; the others never do.
    pub fn opens_only(&self, names: &str) {
        self.answer(&format!("case $key in {names}) ;; *) {LOST} ;; esac"));
    }

    pub fn setup(&self, new_key: bool) -> Setup {
        let times = Times {
            patience: Duration::from_secs(3),
            pause: Duration::from_millis(50),
            limit: Duration::from_secs(1),
            quick: Duration::from_secs(1),
            all: Duration::from_secs(10),
        };
        Setup {
            was_in_vain: Default::default(),
            creds: Creds { program: self.0.join("systemd-creds"), until: Instant::now() + times.all },
            times,
            in_use: self.0.join("in-use"),
            arguments: Arguments {
                with_key: "auto".to_owned(),
                reseal: false,
                new_key,
                store: self.0.join("store"),
                state: self.0.join("state"),
            },
        }
    }

    /// What it says, line by line, and last why it fails.
    pub fn runs(&self, setup: Setup) -> (bool, String) {
        let _ = fs::remove_file(self.0.join("calls"));
        let mut lines = Vec::new();
        let ended = setup.run(&mut |line| lines.push(line));
        lines.extend(ended.clone().err());
        (ended.is_ok(), lines.join("\n"))
    }

    #[track_caller]
    pub fn does(&self, says: &[&str]) {
        self.ends(true, says);
    }

    #[track_caller]
    pub fn fails(&self, says: &[&str]) {
        self.ends(false, says);
    }

    #[track_caller]
    fn ends(&self, well: bool, says: &[&str]) {
        let (is_ok, text) = self.runs(self.setup(false));
        assert_eq!(is_ok, well, "{text}");
        for said in says {
            assert!(text.contains(said), "{said}: {text}");
        }
    }

    pub fn drew(&self) -> usize {
        self.read("calls").map_or(0, |calls| calls.lines().filter(|call| call.starts_with("encrypt")).count())
    }

    /// All files of both directories, with their content.
    fn files(&self) -> Vec<(String, String)> {
        let mut files = Vec::new();
        for directory in ["store", "state"] {
            for entry in fs::read_dir(self.0.join(directory)).unwrap() {
                let name = format!("{directory}/{}", entry.unwrap().file_name().to_str().unwrap());
                files.push((name.clone(), self.read(&name).unwrap()));
            }
        }
        files.sort();
        files
    }

    #[track_caller]
    pub fn has(&self, expected: &[(&str, &str)]) {
        let files = self.files();
        let mut expected: Vec<_> =
            expected.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
        expected.sort();
        assert_eq!(files, expected);
    }

    #[track_caller]
    pub fn has_what_it_had(&self) {
        self.has(&[(KEY, "old"), (CACHE, "of old")]);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub const ASIDE_KEY: &str = "store/opnix.cache-key.aside-1";
pub const ASIDE_CACHE: &str = "state/cache.aside-1";

#[test]
fn a_key_that_opens_stays_whatever_systemd_says_of_it() {
    let machine = Machine::new("opens");
    // Final words, if it failed.
    machine.answer(&LOST.replace("exit 1", "exit 0"));
    machine.does(&["the key of the cache is in place"]);
    machine.has_what_it_had();
    assert_eq!(machine.drew(), 0);
    // A cache is not made up for it.
    fs::remove_file(machine.0.join(CACHE)).unwrap();
    machine.does(&["the key of the cache is in place"]);
    machine.has(&[(KEY, "old")]);
}

#[test]
fn without_a_key_one_is_made_for_root_alone() {
    let machine = Machine::new("first");
    fs::remove_dir_all(machine.0.join("store")).unwrap();
    fs::remove_dir_all(machine.0.join("private")).unwrap();
    fs::remove_file(machine.0.join("state")).unwrap();
    machine.does(&["made the key of the cache"]);
    assert_eq!(machine.read(KEY).as_deref(), Some("drawn-1"));
    let mode = |name: &str| fs::metadata(machine.0.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("store"), mode(KEY)), (0o700, 0o600));
}

#[test]
fn a_tpm_that_is_busy_for_a_while_costs_nothing() {
    let machine = Machine::new("busy");
    machine
        .answer("[ $try -gt 2 ] || { echo '<27>Failed to open session in TPM: tpm:warn(2.0)' >&2; exit 1; }");
    machine.does(&["tpm:warn(2.0)", "the key of the cache is in place"]);
    machine.has_what_it_had();
    assert_eq!((machine.drew(), machine.read("calls").unwrap().lines().count()), (0, 3));
}

#[test]
fn what_may_pass_never_costs_a_key() {
    let machine = Machine::new("passing");
    let all = PASSING.into_iter().chain([""]);
    for said in all {
        machine.write("said", said);
        machine.answer("cat $here/said >&2; exit 1");
        let mut setup = machine.setup(false);
        setup.times.patience = Duration::from_millis(250);
        let (is_ok, text) = machine.runs(setup);
        let last =
            said.lines().last().unwrap_or("it says nothing").split_once('>').map_or("", |(_, line)| line);
        assert!(!is_ok && text.contains(last), "{said}: {text}");
        assert!(text.contains("does not open now") && text.contains("opnix setup --new-key"), "{text}");
        machine.has_what_it_had();
        assert_eq!(machine.drew(), 0);
    }
    // Killed by somebody, after words that would be final.
    machine.answer(&LOST.replace("exit 1", "kill -9 $$"));
    machine.fails(&["ended by signal 9"]);
    // It is not there.
    let mut setup = machine.setup(false);
    setup.creds.program = machine.0.join("none");
    setup.times.patience = Duration::from_millis(250);
    let (is_ok, text) = machine.runs(setup);
    assert!(!is_ok && text.contains("systemd-creds cannot be run"), "{text}");
    machine.has_what_it_had();
}

#[test]
fn a_tpm_that_does_not_answer_is_not_waited_for() {
    let machine = Machine::new("mute");
    // It takes no notice of a request to end, and has a child that keeps its end of the pipe.
    machine.answer("trap '' TERM; echo $$ >>$here/pids; sleep 60 & echo $! >>$here/pids; wait");
    let began = Instant::now();
    machine.fails(&["gave no answer within 1 s", "does not open now"]);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    machine.has_what_it_had();
    let pids = machine.read("pids").unwrap();
    for pid in pids.lines() {
        // The child is not ours: whoever takes orphans over may leave it as a zombie.
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "{state}");
    }
    let ours = pids.lines().step_by(2).all(|pid| !Path::new("/proc").join(pid).exists());
    assert!(ours, "it is reaped: {pids}");
    // Nor is more said than what there is room for.
    machine.answer("head -c 3000000 /dev/zero | tr '\\0' x >&2; exit 1");
    machine.fails(&["does not open now"]);
}

#[test]
fn all_of_it_takes_less_than_systemd_allows_it() {
    let unit = include_str!("../../../systemd/opnix-setup.service");
    let limit = unit.lines().find_map(|line| line.strip_prefix("TimeoutStartSec=")?.strip_suffix('s'));
    let limit = Duration::from_secs(limit.unwrap().parse().unwrap());
    let times = Times::USUAL;
    assert!(times.all + Duration::from_secs(5) <= limit);
    // As long as the TPM answers at all, there is time for all tries and a new key.
    assert!(times.patience + times.quick * 2 + times.limit <= times.all);
}

#[test]
fn a_key_that_never_opens_again_is_set_aside_with_its_cache_at_once() {
    let machine = Machine::new("final");
    for said in finals().iter().map(String::as_str).chain(FOREIGN) {
        machine.write("said", said);
        machine.answer("case $key in old) cat $here/said >&2; exit 1 ;; esac");
        let began = Instant::now();
        let (is_ok, text) = machine.runs(machine.setup(false));
        assert!(is_ok && began.elapsed() < Duration::from_secs(2), "{:?}: {text}", began.elapsed());
        let at = |name: &str| machine.0.join(name).display().to_string();
        for line in [
            format!("the key {} cannot be opened any more: ", at(KEY)),
            format!("set the key aside: {}, now {}", at(KEY), at(ASIDE_KEY)),
            format!("set its cache aside: {}, now {}", at(CACHE), at(ASIDE_CACHE)),
            format!("made the key of the cache: {}", at(KEY)),
        ] {
            assert!(text.contains(&line), "{line}: {text}");
        }
        let files = [(KEY, "drawn-1"), (ASIDE_KEY, "old"), (ASIDE_CACHE, "of old")];
        machine.has(&files);
        // And it is at peace with that.
        machine.does(&["the key of the cache is in place"]);
        machine.has(&files);
        fs::rename(machine.0.join(ASIDE_KEY), machine.0.join(KEY)).unwrap();
        fs::rename(machine.0.join(ASIDE_CACHE), machine.0.join(CACHE)).unwrap();
    }
}

#[test]
fn nothing_is_set_aside_while_no_new_key_can_be_made() {
    let machine = Machine::new("unsealable");
    machine.write("unsealable", "");
    machine.answer(LOST);
    machine.fails(&["no new key can be made", "Failed to seal to TPM2"]);
    machine.has_what_it_had();
    // Or when the old one opens once there is one: sealing has made the TPM's storage root key anew.
    fs::remove_file(machine.0.join("unsealable")).unwrap();
    let handle = "<31>Failed to load key into TPM: tpm:handle(1):the handle is not correct for the use";
    machine.answer(&format!("grep -q ^encrypt $here/calls || {{ echo '{handle}' >&2; exit 1; }}"));
    machine.does(&["opens after all and stays"]);
    machine.has_what_it_had();
    machine.answer(&format!("! grep -q ^encrypt $here/calls || exit 1; {LOST}"));
    machine.fails(&["does not open now"]);
    machine.has_what_it_had();
}

#[test]
fn a_key_is_resealed_only_if_the_new_seal_opens_to_the_same_key() {
    let machine = Machine::new("reseal");
    let reseal = || {
        let mut setup = machine.setup(false);
        setup.arguments.reseal = true;
        setup.arguments.with_key = "host".to_owned();
        machine.runs(setup)
    };
    for (answer, says) in [
        (LOST, "stays sealed as it was"),
        ("true", "has 0 bytes"),
        ("printf %032d 1; touch \"$here/unsealable\"", "Failed to seal"),
        // The new one opens to another key.
        ("rm -f \"$here/unsealable\"; printf %032d $try", "to something else"),
    ] {
        machine.answer(answer);
        let (is_ok, text) = reseal();
        assert!(!is_ok && text.contains(says), "{says}: {text}");
        machine.has_what_it_had();
    }
    machine.answer("printf %032d 1");
    let (is_ok, text) = reseal();
    assert!(is_ok && text.contains("sealed the key of the cache with host"), "{text}");
    machine.has(&[(KEY, "drawn-1"), (CACHE, "of old")]);
    assert!(machine.read("calls").unwrap().contains("--with-key=host"));
    fs::remove_file(machine.0.join(KEY)).unwrap();
    let (is_ok, text) = reseal();
    assert!(!is_ok && text.contains("there is no key to be resealed"), "{text}");
}
