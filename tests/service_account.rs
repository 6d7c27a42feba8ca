//! The provider `service_account`, through 1Password's official core, against the simulator.

// A test that panics has failed, which is what it should do then.
#![allow(clippy::unwrap_used)]

mod daemon;
mod simulators;

use daemon::Daemon;
use simulators::account::Account;
use simulators::http::Fault;
use simulators::service_account::ServiceAccount;

#[test]
fn experiment() {
    let simulator = ServiceAccount::local(Account::everything());
    for (on, fault) in [
        ("POST /api/v3/auth/start", Fault::Status(401)),
        ("POST /api/v3/auth/start", Fault::Status(403)),
        ("POST /api/v3/auth/start", Fault::Limited(Some(60))),
        ("POST /api/v3/auth/start", Fault::Status(500)),
        ("POST /api/v3/auth/start", Fault::Status(503)),
        ("POST /api/v3/auth/start", Fault::Reset),
        ("POST /api/v3/auth/start", Fault::Truncate),
        ("POST /api/v3/auth/start", Fault::Garbage),
        ("POST /api/v2/auth/confirm-key", Fault::Status(401)),
        ("GET /api/v1/vaults", Fault::Limited(Some(60))),
        ("GET /api/v1/vaults", Fault::Status(403)),
        ("GET /api/v1/vaults", Fault::Status(401)),
        ("GET /api/v1/vaults", Fault::Status(500)),
        ("GET /api/v1/vaults", Fault::Reset),
        ("GET /api/v1/vaults", Fault::Truncate),
        ("GET /api/v1/vaults", Fault::Garbage),
        ("GET /api/v1/vault/", Fault::Limited(Some(60))),
        ("GET /api/v1/vault/", Fault::Status(403)),
        ("GET /api/v1/vault/", Fault::Status(404)),
        ("GET /api/v1/vault/", Fault::Status(500)),
        ("GET /api/v1/vault/", Fault::Status(502)),
        ("GET /api/v1/vault/", Fault::Status(408)),
        ("GET /api/v1/vault/", Fault::Status(409)),
        ("GET /api/v1/vault/", Fault::Reset),
        ("GET /api/v1/vault/", Fault::Garbage),
        ("GET /api/v2/account/keysets", Fault::Status(500)),
    ] {
        simulator.server.clear_faults();
        simulator.server.fault(on, usize::MAX, fault.clone());
        let daemon = Daemon::start(&simulator.token(), &[("key", "op://Zoo/Sections/username")]);
        println!("{on} {fault:?}: {}", daemon.refusal("key"));
    }
    simulator.server.clear_faults();
    simulator.server.forget_requests();
    let daemon = Daemon::start(&simulator.token(), &[("key", "op://Zoo/Sections/username")]);
    println!("{:?} {}", daemon.ask("key"), daemon.log());
    println!("{:?}", simulator.server.requests());
    println!("{:?}", simulator.violations());
}
