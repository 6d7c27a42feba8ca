//! Whatever the server says, the token goes nowhere else.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::json;

use super::{everything, with_deadline};
use crate::helpers::with_time;
use crate::simulators::http::{Fault, Request, Response, Server, Site};

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
    let simulator = everything();
    for location in [
        format!("http://{}/v1/vaults", other.address()),
        format!("//{}/v1/vaults", other.address()),
        // The server itself, at a place that it was not asked for.
        "/health".to_owned(),
    ] {
        simulator.server.clear_faults();
        simulator.server.forget_requests();
        simulator.server.fault("GET /v1/vaults", usize::MAX, Fault::Redirect(status, location.clone()));
        let refusal = with_time(|deadline| {
            let daemon = with_deadline(&simulator, deadline, &[("key", "op://Zoo/Sections/username")]);
            let refusal = daemon.refusal("key");
            (!refusal.contains("did not answer")).then_some(refusal)
        });
        assert_eq!(*stranger.0.lock().unwrap(), [""; 0], "{status} {location}");
        let asked = simulator.server.requests();
        assert!(asked.iter().all(|request| request == "GET /v1/vaults"), "{status} {location}: {asked:?}");
        assert!(refusal.contains(&format!("answers with {status}")), "{status} {location}: {refusal}");
    }
}
