//! Whom it believes, and what it tells nobody.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use serde_json::json;

use super::{everything, provider};
use crate::daemon::{Daemon, UNIT};
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

#[test]
fn connect_needs_no_certificates_where_it_is_spoken_to_in_the_clear() {
    let simulator = everything();
    let empty = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-certificates");
    fs::create_dir_all(&empty).unwrap();
    let environment = [("SSL_CERT_FILE", empty.join("none").to_owned()), ("SSL_CERT_DIR", empty.clone())];
    let environment: Vec<(&str, &Path)> =
        environment.iter().map(|(name, path)| (*name, path.as_path())).collect();
    let secrets = json!([{"name": "key", "reference": "op://Zoo/Sections/username", "units": [UNIT]}]);
    let config = |provider| json!({"provider": provider, "deadline": "5s", "secrets": secrets});
    let clear = Daemon::configured(&environment, &config(provider(&simulator)), TOKEN);
    assert_eq!(clear.ask("key").as_deref(), Some("keeper"));
    let secured = json!({"kind": "connect", "host": "https://127.0.0.1:1"});
    let refusal = Daemon::configured(&environment, &config(secured), TOKEN).refusal("key");
    for told in ["No CA certificates were loaded", "package ca-certificates"] {
        assert!(refusal.contains(told), "{refusal}");
    }
}
