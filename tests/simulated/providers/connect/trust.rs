//! Whom it believes, and what it tells nobody.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use serde_json::json;

use super::{everything, provider};
use crate::daemon::Daemon;
use crate::simulators::account::Account;
use crate::simulators::connect::{Connect, TOKEN};
use crate::simulators::http::Tls;

#[test]
fn a_private_authority_is_trusted_when_it_is_given_and_only_then() {
    let tls = Tls::new();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let _simulator = Connect::start(listener, Some(&tls), Account::everything());
    let authority = Path::new(env!("CARGO_TARGET_TMPDIR")).join("connect-authority.pem");
    fs::write(&authority, &tls.pem).unwrap();
    let secrets = [("key", "op://Zoo/Sections/username")];
    let trusting = json!({"kind": "connect", "host": url, "authority": authority});
    assert_eq!(Daemon::with("20s", &trusting, TOKEN, &secrets).ask("key").as_deref(), Some("keeper"));
    let strict = json!({"kind": "connect", "host": url});
    let refusal = Daemon::with("1s", &strict, TOKEN, &secrets).refusal("key");
    assert!(refusal.contains("cannot be reached") && refusal.contains("certificate"), "{refusal}");
    fs::write(&authority, "no certificate").unwrap();
    let refusal = Daemon::with("1s", &trusting, TOKEN, &secrets).refusal("key");
    assert!(refusal.contains("connect-authority.pem cannot be used"), "{refusal}");
}

#[test]
fn a_token_that_no_header_can_hold_is_never_repeated() {
    let simulator = everything();
    let daemon = Daemon::with(
        "20s",
        &provider(&simulator),
        "hunter2\u{1}hunter2",
        &[("key", "op://Zoo/Sections/username")],
    );
    assert!(daemon.refusal("key").contains("not a Connect token"));
    assert!(!daemon.log().contains("hunter2"));
}
