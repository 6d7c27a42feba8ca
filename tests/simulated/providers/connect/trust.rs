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

/// What a unit is refused with whose provider is a Connect server at this address.
fn refusal(environment: &[(&str, &Path)], provider: serde_json::Value) -> String {
    let secrets = json!([{"name": "key", "reference": "op://Zoo/Sections/username", "units": [UNIT]}]);
    let config = json!({"provider": provider, "deadline": "1s", "secrets": secrets});
    Daemon::configured(environment, &config, TOKEN).refusal("key")
}

#[test]
fn a_certificate_of_another_time_is_blamed_on_the_clock() {
    for (from, until, told) in
        [(2090, 2099, "not valid before 2090-01-01"), (1990, 1991, "valid until 1991-01-01")]
    {
        let tls = Tls::valid(from, until);
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let _simulator = Connect::start(listener, Some(&tls), Account::everything());
        let authority = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("of-{from}.pem"));
        fs::write(&authority, &tls.pem).unwrap();
        let refusal = refusal(&[], json!({"kind": "connect", "host": url, "authority": authority}));
        for told in [told, "this machine's clock says 20", "timedatectl"] {
            assert!(refusal.contains(told), "{refusal}");
        }
        assert!(!refusal.contains("check the network"), "{refusal}");
    }
}

#[test]
fn where_the_way_to_it_ends_is_said_with_what_to_do() {
    let tls = Tls::new();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let _simulator = Connect::start(listener, Some(&tls), Account::everything());
    let at = |host: &str| json!({"kind": "connect", "host": host});
    let distrust = refusal(&[], at(&url));
    assert!(distrust.contains("named by `authority`"), "{distrust}");
    // Port 1 is nobody's here.
    let refused = refusal(&[], at("http://127.0.0.1:1"));
    assert!(refused.contains("nothing listens there, or a firewall refuses it"), "{refused}");
    let nameless = refusal(&[], at("http://no-such-host.invalid:8080"));
    assert!(nameless.contains("finds no address for the name"), "{nameless}");
    let proxy = Path::new("http://127.0.0.1:1");
    let proxied = refusal(&[("HTTPS_PROXY", proxy)], at("https://connect.example.invalid"));
    assert!(proxied.contains("check the proxy that HTTPS_PROXY"), "{proxied}");
}
