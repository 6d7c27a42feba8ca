//! What units do not get is told as it happens, and once.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use opnix::internals::asker;
use serde_json::{Value, json};

use super::{Host, write_vault};
use crate::daemon::UNIT;
use crate::helpers::{status, wait};

/// Who hears of it.
struct Listener(BufReader<UnixStream>);

impl Listener {
    fn after(host: &Host, number: Option<u64>) -> Self {
        let mut stream = UnixStream::connect(host.daemon.control()).unwrap();
        let call = json!({"method": "io.opnix.Unserved", "more": true, "parameters": {"after": number}});
        stream.write_all(format!("{call}\0").as_bytes()).unwrap();
        Self(BufReader::new(stream))
    }

    fn next(&mut self) -> Value {
        let mut text = Vec::new();
        self.0.read_until(0, &mut text).unwrap();
        let answer: Value = serde_json::from_slice(&text[..text.len() - 1]).unwrap();
        assert_eq!(answer["continues"], json!(true), "{answer}");
        answer["parameters"].clone()
    }

    /// So many refusals, however many answers they come in.
    fn refusals(&mut self, count: usize) -> Value {
        let mut told = self.next();
        while told["refusals"].as_array().unwrap().len() < count {
            let mut next = self.next();
            let more = next["refusals"].as_array_mut().unwrap().split_off(0);
            told["refusals"].as_array_mut().unwrap().extend(more);
            told["number"] = next["number"].take();
        }
        told
    }
}

fn refused(told: &Value) -> Vec<(&str, &str, &str)> {
    let all = told["refusals"].as_array().unwrap().iter();
    all.map(|one| {
        let text = |name: &str| one[name].as_str().unwrap();
        (text("unit"), text("credential"), text("check"))
    })
    .collect()
}

#[test]
fn each_refusal_is_told_once_also_to_who_comes_later_and_through_restarts() {
    let mut host = Host::new(true);
    let mut listener = Listener::after(&host, None);
    assert_eq!(refused(&listener.next()), []);
    assert_eq!(host.daemon.ask("gone"), None);
    let told = listener.next();
    assert_eq!(refused(&told), [(UNIT, "gone", "provider")]);
    let reason = told["refusals"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("there is no item \"Gone\" in vault \"Vault\"\n"), "{reason}");
    let first = told["number"].as_u64();
    let socket = host.daemon.control().with_file_name("socket");
    assert_eq!(asker::ask(&socket, "other.service", "gone").unwrap(), None);
    // The mirror tells of its files itself.
    assert_eq!(asker::ask(&socket, "opnix-mirror.service", "gone").unwrap(), None);
    assert_eq!(host.daemon.ask("gone"), None);
    let both = [("other.service", "gone", "policy"), (UNIT, "gone", "provider")];
    let told = listener.refusals(2);
    assert_eq!(refused(&told), both);
    assert_eq!(told["refusals"][1]["times"], 2);

    assert_eq!(refused(&Listener::after(&host, first).next()), both);
    let all = status(&host.daemon);
    assert_eq!(refused(&all), [both[1], both[0]]);

    // Who has it was not refused it.
    write_vault(&host.vault(), &[("OpenAI", "canary-1"), ("Datadog", "canary-2"), ("Gone", "canary-3")]);
    wait("the value", || host.daemon.ask("gone").is_some());
    assert_eq!(refused(&status(&host.daemon)), [("other.service", "gone", "policy")]);

    let number = told["number"].as_u64();
    host.daemon = Host::daemon(&host.directory);
    let socket = host.daemon.control().with_file_name("socket");
    assert_eq!(asker::ask(&socket, "other.service", "gone").unwrap(), None);
    assert_eq!(refused(&Listener::after(&host, number).next()), [("other.service", "gone", "policy")]);
}
