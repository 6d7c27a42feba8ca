//! Signing in, and signing in again.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use super::{everything, one, provider};
use crate::daemon::Daemon;
use crate::helpers::{on_time, with_time};
use crate::simulators::account::Account;
use crate::simulators::http::Tls;
use crate::simulators::service_account::{Device, ServiceAccount};

#[test]
fn the_core_speaks_tls_and_looks_at_certificates() {
    let tls = Tls::new();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let simulator = ServiceAccount::start_with(listener, Some(&tls), Account::everything());
    let token = simulator.token_for(&format!("https://{}", simulator.server.address()));
    let authority = Path::new(env!("CARGO_TARGET_TMPDIR")).join("account-authority.pem");
    fs::write(&authority, &tls.pem).unwrap();
    let provider = provider();
    let secrets = [("key", "op://Zoo/Sections/username")];
    let environment = [("SSL_CERT_FILE", authority.as_path())];
    let trusting = Daemon::in_environment(&environment, "20s", &provider, &token, &secrets);
    assert_eq!(trusting.ask("key").as_deref(), Some("keeper"));
    let refusal = with_time(|deadline| {
        let strict = Daemon::with(deadline, &provider, &token, &secrets);
        on_time(strict.answer("key"), "cannot be reached")
    });
    assert!(refusal.expect_err("a refusal").contains("cannot be reached"));
}

#[test]
fn an_expired_session_and_a_forgotten_device_are_signed_in_again() {
    let simulator = everything();
    let daemon = Daemon::start(
        &simulator.token(),
        &[("a", "op://Zoo/Sections/username"), ("b", "op://Zoo/Kinds/lines")],
    );
    assert!(daemon.ask("a").is_some());
    simulator.expire_sessions();
    assert!(daemon.ask("b").is_some());
    for device in [Device::Unknown, Device::Deleted] {
        simulator.set_device(device);
        assert_eq!(one(&simulator).ask("key").as_deref(), Some("keeper"));
    }
    assert_eq!(simulator.violations(), [""; 0]);
}

#[test]
fn a_replaced_token_counts_for_the_next_fetch() {
    let simulator = everything();
    let daemon = Daemon::start(
        &simulator.token(),
        &[("a", "op://Zoo/Sections/username"), ("b", "op://Zoo/Kinds/lines")],
    );
    assert!(daemon.ask("a").is_some());
    simulator.revoke(true);
    assert!(daemon.refusal("b").contains("rejects the token"));
    daemon.replace_token("");
    assert!(daemon.refusal("b").contains("no token for 1Password"));
    let other = everything();
    daemon.replace_token(&other.token());
    assert!(daemon.ask("b").is_some());
    assert!(!other.server.requests().is_empty());
}
