//! D-Bus, as far as the service manager speaks it on its private socket, which works without a message bus.
//!
//! Our own, because nothing else goes there: zbus takes the sender's name in its answers for invalid, busctl greets a
//! bus, and `systemctl show` does not print which assertions a unit failed.

mod marshal;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::Uid;

pub use self::marshal::{Argument, Value};
use self::marshal::{Reader, call, malformed};

/// How long the service manager has for an answer. It is busy while it reads unit files.
const PATIENCE: Duration = Duration::from_secs(25);
/// The largest message that is read, in bytes.
const MESSAGE_MAX: usize = 16 << 20;
/// In bytes.
const LINE_MAX: usize = 512;

const REPLY: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// A connection to the service manager.
pub struct Bus {
    stream: UnixStream,
    serial: u32,
    /// A message was not read or written to its end: what follows has no beginning.
    is_broken: bool,
}

/// Something that happened, of which everybody is told.
#[derive(Debug)]
pub struct Signal {
    pub member: String,
    pub body: Vec<Value>,
}

#[derive(Default)]
struct Message {
    kind: u8,
    reply_to: u32,
    member: String,
    error: String,
    body: Vec<Value>,
}

impl Bus {
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // The peer's user in decimal digits, and those in hexadecimal ones.
        let user: String = Uid::effective().to_string().bytes().map(|byte| format!("{byte:02x}")).collect();
        // All at once: the service manager leaves a call lying that comes to it together with BEGIN.
        stream.write_all(format!("\0AUTH EXTERNAL {user}\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n").as_bytes())?;
        for expected in ["OK ", "AGREE_UNIX_FD"] {
            let answer = line(&mut stream)?;
            if !answer.starts_with(expected) {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, answer));
            }
        }
        Ok(Self { stream, serial: 0, is_broken: false })
    }

    pub fn call(
        &mut self,
        path: &str,
        interface: &str,
        method: &str,
        arguments: &[Argument<'_>],
    ) -> io::Result<Vec<Value>> {
        if self.is_broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.serial += 1;
        self.is_broken = true;
        let end = Instant::now() + PATIENCE;
        self.stream.write_all(&call(self.serial, path, interface, method, arguments))?;
        loop {
            // Signals come as well.
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left))?;
            let message = self.receive()?;
            match message.kind {
                REPLY | ERROR if message.reply_to != self.serial => {}
                REPLY => {
                    self.is_broken = false;
                    return Ok(message.body);
                }
                ERROR => {
                    self.is_broken = false;
                    let why = message.body.first().and_then(Value::text).unwrap_or(&message.error);
                    return Err(io::Error::other(why.to_owned()));
                }
                _ => {}
            }
        }
    }

    /// Waits for the next signal, for as long as it takes.
    pub fn next_signal(&mut self) -> io::Result<Signal> {
        self.stream.set_read_timeout(None)?;
        loop {
            let Message { kind, member, body, .. } = self.receive()?;
            if kind == SIGNAL {
                return Ok(Signal { member, body });
            }
        }
    }

    fn receive(&mut self) -> io::Result<Message> {
        let mut start = [0; 16];
        self.stream.read_exact(&mut start)?;
        let little = start[0] == b'l';
        let number = |at: usize| {
            let bytes = [start[at], start[at + 1], start[at + 2], start[at + 3]];
            (if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }) as usize
        };
        let (body, fields) = (number(4), number(12));
        let header = fields.next_multiple_of(8);
        if header.saturating_add(body) > MESSAGE_MAX {
            return Err(malformed("it is too large"));
        }
        let mut bytes = start.to_vec();
        bytes.resize(start.len() + header + body, 0);
        self.stream.read_exact(&mut bytes[start.len()..])?;
        let (head, body) = bytes.split_at(start.len() + header);
        // The length of the list of fields is the last number of the fixed part.
        let mut reader = Reader { bytes: &head[..start.len() + fields], at: 12, little };
        let fields = reader.value(&mut b"a(yv)".iter(), 0)?;
        let mut message = Message { kind: start[1], ..Message::default() };
        let mut signature = String::new();
        for field in fields.list() {
            match field.list() {
                [Value::Number(3), Value::Text(member)] => member.clone_into(&mut message.member),
                [Value::Number(4), Value::Text(error)] => error.clone_into(&mut message.error),
                [Value::Number(5), Value::Number(serial)] => message.reply_to = *serial as u32,
                [Value::Number(8), Value::Text(text)] => text.clone_into(&mut signature),
                _ => {}
            }
        }
        let mut reader = Reader { bytes: body, at: 0, little };
        let mut kinds = signature.as_bytes().iter();
        while !kinds.as_slice().is_empty() {
            message.body.push(reader.value(&mut kinds, 0)?);
        }
        Ok(message)
    }
}

/// One line of the greeting, without its end.
fn line(stream: &mut impl Read) -> io::Result<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
        if line.len() > LINE_MAX {
            return Err(malformed("the greeting has no end"));
        }
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::marshal::Writer;
    use super::*;

    /// A service manager that gives these answers, with the serial of the call put in where it belongs.
    fn answering(answers: Vec<Vec<u8>>) -> Bus {
        let path = std::env::temp_dir().join(format!(
            "opnix-bus-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut zero = [0];
            stream.read_exact(&mut zero).unwrap();
            assert!(line(&mut stream).unwrap().starts_with("AUTH EXTERNAL 3"));
            stream.write_all(b"OK 0123\r\nAGREE_UNIX_FD\r\n").unwrap();
            assert_eq!(line(&mut stream).unwrap(), "NEGOTIATE_UNIX_FD");
            assert_eq!(line(&mut stream).unwrap(), "BEGIN");
            for answer in answers {
                stream.write_all(&answer).unwrap();
            }
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let bus = Bus::connect(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        bus
    }

    fn reply(kind: u8, to: u32, signature: &str, body: &[u8]) -> Vec<u8> {
        let mut head = Writer(vec![b'l', kind, 0, 1]);
        head.number(body.len() as u32);
        head.number(99);
        head.list(8, |fields| {
            fields.0.extend([5, 1, b'u', 0]);
            fields.number(to);
            // Not the name that D-Bus would have it: systemd writes such a one.
            fields.align(8);
            fields.0.extend([7, 1, b's', 0]);
            fields.text("org.freedesktop.systemd1.Private");
            fields.align(8);
            fields.0.extend([3, 1, b's', 0]);
            fields.text("JobRemoved");
            fields.align(8);
            fields.0.extend([8, 1, b'g', 0]);
            fields.signature(signature);
        });
        head.align(8);
        head.0.extend(body);
        head.0
    }

    #[test]
    fn an_answer_is_read_whatever_else_is_told_meanwhile() {
        let mut body = Writer::default();
        body.text("x.service");
        body.list(8, |list| {
            for (text, state) in [("AssertPathExists", -1i32), ("ConditionHost", 1)] {
                list.align(8);
                list.text(text);
                list.number(1);
                list.number(state as u32);
            }
        });
        let answers = vec![
            reply(SIGNAL, 0, "", &[]),
            reply(REPLY, 7, "", &[]),
            reply(REPLY, 1, "sa(sbi)", &body.0),
            reply(SIGNAL, 0, "s", &{
                let mut text = Writer::default();
                text.text("done");
                text.0
            }),
        ];
        let mut bus = answering(answers);
        let answer = bus.call("/", "a.b", "C", &[Argument::Text("t"), Argument::Number(-1)]).unwrap();
        let test = |text: &str, state| {
            Value::List(vec![Value::Text(text.into()), Value::Flag(true), Value::Number(state)])
        };
        assert_eq!(
            answer,
            [
                Value::Text("x.service".into()),
                Value::List(vec![test("AssertPathExists", -1), test("ConditionHost", 1)])
            ]
        );
        let signal = bus.next_signal().unwrap();
        assert_eq!(
            (signal.member.as_str(), &signal.body[..]),
            ("JobRemoved", &[Value::Text("done".into())][..])
        );
    }

    #[test]
    fn an_error_has_its_words() {
        let mut why = Writer::default();
        why.text("Unit x.service is masked.");
        let error = answering(vec![reply(ERROR, 1, "s", &why.0)]).call("/", "a.b", "C", &[]).unwrap_err();
        assert_eq!(error.to_string(), "Unit x.service is masked.");
    }
}
