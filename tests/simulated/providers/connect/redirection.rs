//! What the provider `connect` must not do, whatever the server says, and what it must count.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use crate::daemon::Daemon;
use crate::simulators::account::Account;
use crate::simulators::connect::{Connect, TOKEN};
use crate::simulators::http::{Fault, Request, Response, Server, Site};
use serde_json::{Value, json};

fn daemon(simulator: &Connect, secrets: &[(&str, &str)]) -> Daemon {
    Daemon::with("1500ms", &json!({"kind": "connect", "host": simulator.url()}), TOKEN, secrets)
}

/// Answers whatever it is asked as a server would that is the right one, and writes down who asked with which token.
#[derive(Default)]
struct Stranger(Mutex<Vec<String>>);

impl Site for Stranger {
    fn answer(&self, request: &Request) -> Response {
        let token = request.header("authorization").unwrap_or("no token");
        self.0.lock().unwrap().push(format!("{} {} with {token}", request.method, request.path));
        Response::json(200, &json!([]))
    }
}

#[test]
fn a_redirection_is_not_followed_and_the_token_goes_nowhere_else() {
    thread::scope(|scope| {
        for status in [301, 302, 303, 307, 308] {
            scope.spawn(move || is_not_followed(status));
        }
    });
}

fn is_not_followed(status: u16) {
    let stranger = Arc::new(Stranger::default());
    let other = Server::start(TcpListener::bind(("127.0.0.1", 0)).unwrap(), None, stranger.clone());
    let simulator = Connect::local(Account::everything());
    for location in [
        format!("http://{}/v1/vaults", other.address()),
        format!("//{}/v1/vaults", other.address()),
        // The server itself, at a place that it was not asked for.
        "/health".to_owned(),
    ] {
        simulator.server.clear_faults();
        simulator.server.forget_requests();
        simulator.server.fault("GET /v1/vaults", usize::MAX, Fault::Redirect(status, location.clone()));
        let daemon = daemon(&simulator, &[("key", "op://Zoo/Sections/username")]);
        let refusal = daemon.refusal("key");
        assert_eq!(*stranger.0.lock().unwrap(), [""; 0], "{status} {location}");
        let asked = simulator.server.requests();
        assert!(asked.iter().all(|request| request == "GET /v1/vaults"), "{status} {location}: {asked:?}");
        assert!(refusal.contains(&format!("answers with {status}")), "{status} {location}: {refusal}");
    }
}

#[test]
fn every_request_to_the_server_is_counted_whatever_comes_of_it() {
    let simulator = Connect::local(Account::everything());
    let secrets = [
        ("key", "op://Zoo/Sections/username"),
        ("same", "op://Zoo/Sections/only"),
        ("file-paper", "op://Zoo/Papers/paper.bin"),
        ("nowhere", "op://Zoo/Nope/x"),
        ("other", "op://One Vault/Item 7/value"),
    ];
    let daemon = daemon(&simulator, &secrets);
    let counted = || {
        let (status, _) = daemon.command(&["status", "--json"]);
        let status: Value = serde_json::from_str(&status).unwrap();
        let budget = &status["budget"];
        assert_eq!(budget["hour"]["used"], budget["day"]["used"]);
        usize::try_from(budget["day"]["used"].as_u64().unwrap()).unwrap()
    };
    let seen = || simulator.server.requests().len();
    assert_eq!(counted(), 0);
    for (name, _) in secrets {
        let before = seen();
        let answer = daemon.ask_bytes(name);
        assert_eq!(answer.is_none(), name == "nowhere", "{name}");
        assert_eq!(counted(), seen(), "{name}");
        assert!(seen() > before || name == "nowhere", "{name}");
    }
    // What fails cost a request too.
    for fault in [Fault::Status(500), Fault::Reset, Fault::Truncate, Fault::Garbage, Fault::Status(403)] {
        simulator.server.clear_faults();
        daemon.reload();
        let before = seen();
        simulator.server.fault("GET", usize::MAX, fault.clone());
        // A value that is kept may stand in.
        let _ = daemon.ask("key");
        assert!(seen() > before, "{fault:?}");
        assert_eq!(counted(), seen(), "{fault:?}");
    }
}
