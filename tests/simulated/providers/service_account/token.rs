//! Tokens that are forged or damaged.

use std::net::TcpListener;

use super::everything;
use crate::daemon::Daemon;

#[test]
fn a_forged_token_makes_us_talk_to_nobody() {
    let simulator = everything();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    for (address, says) in [
        ("https://evil.example".to_owned(), "names the host \"evil.example\""),
        // Not the loopback by its address: a name can be made to point anywhere.
        (format!("http://localhost:{port}"), "only https at its own port"),
        (format!("http://my.1password.com@127.0.0.1:{port}"), "more than a host name"),
    ] {
        let daemon = Daemon::start(&simulator.token_for(&address), &[("key", "op://Zoo/Sections/username")]);
        let refusal = daemon.refusal("key");
        assert!(refusal.contains(says), "{refusal}");
        assert!(listener.accept().is_err(), "{address} was talked to");
    }
}

#[test]
fn a_damaged_token_is_never_repeated() {
    for token in ["hunter2hunter2", "ops_hunter2hunter2", "ops_eyJodW50ZXIyIjoiaHVudGVyMiJ9"] {
        let daemon = Daemon::start(token, &[("key", "op://Zoo/Sections/username")]);
        assert!(daemon.refusal("key").contains("the token is"));
        assert!(!daemon.log().contains("hunter2") && !daemon.log().contains(&token[5..]));
    }
}
