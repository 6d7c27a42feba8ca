//! What is fetched together.

use std::thread;
use std::time::Duration;

use super::{OTHER, USERNAME, value_of};
use crate::daemon::Daemon;
use crate::helpers::{status, wait};
use crate::providers::connect::{everything, with_deadline};
use crate::simulators::http::Fault;

#[test]
fn what_is_fetched_together_reaches_whoever_asked_for_it_past_what_is_missing() {
    let simulator = everything();
    let secrets = [
        ("first", "op://Zoo/Sections/prod/only"),
        USERNAME,
        ("no-item", "op://Zoo/Nope/x"),
        OTHER,
        ("no-field", "op://Zoo/Sections/nope"),
        ("another", "op://One Vault/Item 7/value"),
        ("no-vault", "op://Nope/x/x"),
        ("last", "op://Zoo/Sections/test/password"),
    ];
    let daemon = with_deadline(&simulator, "20s", &secrets);
    // While this one is held up, the others gather for the next fetch.
    simulator.server.fault("GET", 1, Fault::Hold);
    thread::scope(|scope| {
        let asks = secrets.map(|secret| {
            let ask = scope.spawn({
                let daemon = &daemon;
                move || (secret, daemon.ask(secret.0))
            });
            wait("the first request", || !simulator.server.requests().is_empty());
            ask
        });
        wait("all to wait", || waiting(&daemon) == secrets.len());
        thread::sleep(Duration::from_millis(100));
        simulator.server.clear_faults();
        for ask in asks {
            let (secret, answer) = ask.join().unwrap();
            let expected = (!secret.0.starts_with("no-")).then(|| value_of(&secret));
            assert_eq!(answer, expected, "{}", secret.0);
        }
    });
    // One for the item of the first, with all that is asked of it, and one for each of the others: they went together.
    let requests = simulator.server.requests();
    assert_eq!(requests.iter().filter(|request| request.contains("/items/")).count(), 3, "{requests:?}");
}

/// How many requests of units wait for their value.
fn waiting(daemon: &Daemon) -> usize {
    usize::try_from(status(daemon)["waiting"].as_u64().unwrap()).unwrap()
}
