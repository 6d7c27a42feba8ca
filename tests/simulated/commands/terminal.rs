//! `opnix token set` at a terminal: nothing of the token is shown, and the terminal is as it was before, however it ends.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};
use nix::unistd::Pid;

use super::Place;
use crate::helpers::wait;

/// Some of a token, which would be recognized.
const PIECE: usize = 12;

struct Terminal {
    theirs: OwnedFd,
    keyboard: File,
    /// What it shows.
    screen: Arc<Mutex<Vec<u8>>>,
    before: Termios,
}

impl Terminal {
    fn new() -> Self {
        let pair = openpty(None, None).unwrap();
        let before = tcgetattr(&pair.slave).unwrap();
        assert!(before.local_flags.contains(LocalFlags::ECHO));
        let keyboard = File::from(pair.master);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (mut from, to) = (keyboard.try_clone().unwrap(), screen.clone());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read) = from.read(&mut buffer) {
                to.lock().unwrap().extend_from_slice(&buffer[..read]);
            }
        });
        Self { theirs: pair.slave, keyboard, screen, before }
    }

    /// `opnix token set`, which has this terminal, up to its prompt.
    fn start(&self, place: &Place) -> Child {
        let begin = self.shown().len();
        let stdio = || self.theirs.try_clone().unwrap();
        let child = Command::new("setsid")
            // Whoever runs the tests may ignore SIGHUP.
            .args(["--ctty", "env", "--default-signal=HUP,INT,QUIT,TERM", env!("CARGO_BIN_EXE_opnix")])
            .args(["token", "set", "-path", "token"])
            .args(["--config", "none"])
            .current_dir(&place.directory)
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap();
        wait("the prompt", || self.shown()[begin..].contains("then Enter: "));
        assert!(!self.now().local_flags.contains(LocalFlags::ECHO));
        child
    }

    fn type_in(&self, text: &str) {
        (&self.keyboard).write_all(text.as_bytes()).unwrap();
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    fn now(&self) -> Termios {
        tcgetattr(&self.theirs).unwrap()
    }

    /// Nothing of this was shown, and the terminal is as it was.
    #[track_caller]
    fn is_as_before_without(&self, secret: &str) {
        assert_eq!(self.now(), self.before);
        let shown = self.shown();
        let pieces = secret.as_bytes().windows(PIECE).map(|piece| str::from_utf8(piece).unwrap());
        assert!(pieces.into_iter().all(|piece| !shown.contains(piece)), "{shown}");
    }
}

fn ended(mut child: Child) -> ExitStatus {
    let mut status = None;
    wait("its end", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

#[test]
fn a_terminal_shows_nothing_of_the_token() {
    let (place, terminal) = (Place::new(), Terminal::new());
    let token = place.simulator.token();
    fs::write(place.path("token"), "before").unwrap();
    let child = terminal.start(&place);
    terminal.type_in(&token[..100]);
    thread::sleep(Duration::from_millis(100));
    terminal.type_in(&token[100..]);
    terminal.type_in("\r");
    assert_eq!(ended(child).code(), Some(0), "{}", terminal.shown());
    wait("its words", || {
        terminal.shown().contains("stored the token of made-up@1passwordserviceaccounts.com at ")
    });
    terminal.is_as_before_without(&token);
    assert_eq!(fs::read_to_string(place.path("token")).unwrap(), token);
}

#[test]
fn however_it_ends_the_terminal_and_the_token_are_as_before() {
    let (place, terminal) = (Place::new(), Terminal::new());
    fs::write(place.path("token"), "before").unwrap();
    let half = &place.simulator.token()[..300];
    for key in ["\x03", "\x1c"] {
        let child = terminal.start(&place);
        terminal.type_in(half);
        terminal.type_in(key);
        let signal = ended(child).signal();
        assert!(
            signal == Some(Signal::SIGINT as i32) || signal == Some(Signal::SIGQUIT as i32),
            "{signal:?}"
        );
        terminal.is_as_before_without(half);
    }
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let child = terminal.start(&place);
        terminal.type_in(half);
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        assert_eq!(ended(child).signal(), Some(signal as i32));
        terminal.is_as_before_without(half);
    }
    // The end of what is typed, and what is not a token.
    let long = "x".repeat(6000);
    for (typed, why) in [
        ("\x04", "no token was given"),
        ("\r", "no token was given"),
        ("hunter2-hunter2\r", "it is neither a service account's token"),
        ("hunter2-hunter2\rhunter2-hunter2\r", "which has exactly one line"),
        ("hunter2\x1ahunter2\r", "nor anything but plain"),
        (&format!("{long}\r"), "a terminal gives no line as long as that"),
    ] {
        let begin = terminal.shown().len();
        let child = terminal.start(&place);
        terminal.type_in(typed);
        assert_eq!(ended(child).code(), Some(1), "{typed:?}");
        let said = || terminal.shown()[begin..].replace('\r', "").contains(why);
        wait(&format!("{why}: {}", terminal.shown()), said);
        terminal.is_as_before_without("hunter2-hunter2");
    }
    assert_eq!(fs::read_to_string(place.path("token")).unwrap(), "before");
    assert_eq!(fs::read_dir(&place.directory).unwrap().count(), 1, "nothing is left behind");
}

#[test]
fn a_terminal_without_lines_and_enter_gets_them_for_the_token_and_is_left_as_it_was() {
    let (place, mut terminal) = (Place::new(), Terminal::new());
    let mut raw = terminal.before.clone();
    nix::sys::termios::cfmakeraw(&mut raw);
    raw.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
    tcsetattr(&terminal.theirs, SetArg::TCSANOW, &raw).unwrap();
    terminal.before = terminal.now();
    let token = place.simulator.token();
    let child = terminal.start(&place);
    terminal.type_in(&format!("{token}\r"));
    assert_eq!(ended(child).code(), Some(0), "{}", terminal.shown());
    terminal.is_as_before_without(&token);
}
