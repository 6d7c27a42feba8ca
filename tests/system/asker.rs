//! One long-lived client inside a unit, which asks at once when it is told to and judges what it read to the end.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::machine::Machine;
use crate::opnix::LONG;

const PROGRAM: &str = "/run/death/asker.py";
const SOCKET: &str = "/run/death/asker.sock";

/// Who asks for what, and what is right.
#[derive(Clone, Copy)]
pub struct Question {
    /// As it is claimed. The client sits in [`Asker`]'s unit, whatever it claims.
    pub unit: &'static str,
    pub credential: &'static str,
    /// `None`: only a refusal is right.
    pub value: Option<&'static str>,
}

pub struct Asker {
    orders: UnixStream,
    words: BufReader<UnixStream>,
    /// The beginning of a line whose end has not come yet.
    begun: String,
    answers: HashMap<u32, String>,
    count: u32,
}

impl Asker {
    /// `unit` must not be known to systemd otherwise.
    pub fn start(machine: &Machine, unit: &str, values: &[(&str, String)]) -> Asker {
        machine.write(PROGRAM, include_str!("asker.py"), "0644");
        for (name, value) in values {
            machine.write(&file(name), value, "0600");
        }
        machine.run(&["rm", "-f", SOCKET]).ok();
        // Not --pipe: it is to live longer than a command of a test may take.
        machine
            .run(&[
                "systemd-run",
                "--quiet",
                "--collect",
                &format!("--unit={unit}"),
                "python3",
                PROGRAM,
                SOCKET,
            ])
            .ok();
        let path = machine.path(SOCKET);
        machine.wait("the client to listen", || path.exists(), LONG);
        let orders = UnixStream::connect(&path).expect("it listens");
        let words = orders.try_clone().expect("there are descriptors");
        words.set_read_timeout(Some(Duration::from_millis(1))).expect("it is not zero");
        Asker {
            orders,
            words: BufReader::new(words),
            begun: String::new(),
            answers: HashMap::new(),
            count: 0,
        }
    }

    /// Returns when the connection stands.
    pub fn ask(&mut self, question: Question) -> u32 {
        self.order("ask", question)
    }

    /// The same, but reads no more than a little of the answer before [`Asker::go`].
    pub fn ask_slowly(&mut self, question: Question) -> u32 {
        self.order("slow", question)
    }

    pub fn go(&mut self, number: u32) {
        writeln!(self.orders, "go {number}").expect("the client lives");
    }

    /// Connects from no address, as programs do that are not systemd. It speaks up when it gets anything, be it the end.
    pub fn ask_as_a_stranger(&mut self) -> u32 {
        self.connect("stranger", "")
    }

    /// Lets go of such a connection. What it is: `held`, or what came that must not come.
    pub fn let_go(&mut self, number: u32) -> Option<String> {
        writeln!(self.orders, "drop {number}").expect("the client lives");
        self.word(number, LONG)
    }

    fn order(&mut self, how: &str, question: Question) -> u32 {
        let Question { unit, credential, value } = question;
        let file = value.map_or_else(|| "-".to_owned(), file);
        self.connect(how, &format!(" {unit} {credential} {file}"))
    }

    fn connect(&mut self, how: &str, more: &str) -> u32 {
        self.count += 1;
        let number = self.count;
        writeln!(self.orders, "{how} {number}{more}").expect("the client lives");
        let asked = self.word(number, LONG);
        assert_eq!(asked.as_deref(), Some("asked"), "the client cannot connect");
        number
    }

    /// What came of it; `None`: it still waits.
    pub fn answer(&mut self, number: u32, limit: Duration) -> Option<String> {
        self.word(number, limit)
    }

    fn word(&mut self, number: u32, limit: Duration) -> Option<String> {
        let end = Instant::now() + limit;
        loop {
            if let Some(word) = self.answers.remove(&number) {
                return Some(word);
            }
            match self.words.read_line(&mut self.begun) {
                Ok(0) => panic!("the client has died"),
                Ok(_) if self.begun.ends_with('\n') => {
                    let line = std::mem::take(&mut self.begun);
                    let (number, word) = line.trim_end().split_once(' ').expect("a number and words");
                    self.answers.insert(number.parse().expect("a number"), word.to_owned());
                    continue;
                }
                Ok(_) => {}
                Err(fault) if matches!(fault.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(fault) => panic!("the client cannot be heard: {fault}"),
            }
            if Instant::now() >= end {
                return None;
            }
        }
    }
}

fn file(name: &str) -> String {
    format!("/run/death/value-{name}")
}
