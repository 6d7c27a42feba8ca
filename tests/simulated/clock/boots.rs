//! A machine whose clock is a year off when it boots, and set right some time: within a boot the wall clock says nothing.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use super::Host;
use crate::daemon::Daemon;
use crate::helpers::{status, wait, wait_for};
use crate::simulators::http::Fault;

const OFF: [&str; 2] = ["-365d", "+365d"];

fn age(daemon: &Daemon) -> Option<u64> {
    status(daemon)["secrets"][0]["age"].as_u64()
}

fn config(host: &Host, top: &Value) -> Value {
    host.config(top, "a", &json!({}))
}

#[test]
fn a_value_stays_fresh_through_a_restart_of_the_service_whatever_the_clock_is_set_to_meanwhile() {
    for off in OFF {
        let host = Host::new(&["a"]);
        let config = config(&host, &json!({}));
        host.set_clock(off);
        let daemon = host.start(&config);
        assert_eq!(daemon.ask("a").as_deref(), Some("old"));
        daemon.stop();
        host.set_clock("+0");
        host.rotate("a", "new");
        let daemon = host.start(&config);
        let before = host.simulator.server.requests().len();
        assert_eq!(daemon.ask("a").as_deref(), Some("old"), "it is fresh");
        assert!(age(&daemon).unwrap() < 60 && host.simulator.server.requests().len() == before, "{off}");
        daemon.stop();
        // By then its date on disk is right, although it was not fetched again.
        host.reboot();
        let daemon = host.start(&config);
        assert_eq!(daemon.ask("a").as_deref(), Some("old"), "{off}");
        assert!(age(&daemon).unwrap() < 120, "{off}");
    }
}

#[test]
fn a_clock_that_is_set_right_leaves_right_dates_to_the_next_boot_even_after_a_power_cut() {
    let machines = OFF.map(|off| {
        let host = Host::new(&["a"]);
        host.set_clock(off);
        let daemon = host.start(&config(&host, &json!({})));
        assert_eq!(daemon.ask("a").as_deref(), Some("old"));
        wait("the cache", || host.state.join("cache").exists());
        (off, host, daemon)
    });
    let cache = |host: &Host| fs::read(host.state.join("cache")).unwrap();
    let machines = machines.map(|(off, host, daemon)| {
        let before = cache(&host);
        host.set_clock("+0");
        assert!(age(&daemon).unwrap() < 60, "{off}");
        (off, host, daemon, before)
    });
    for (off, host, daemon, before) in machines {
        wait_for("the dates", Duration::from_secs(120), || cache(&host) != before);
        drop(daemon);
        host.reboot();
        let age = age(&host.start(&config(&host, &json!({}))));
        assert!(age.is_some_and(|age| age < 300), "{off}: {age:?}");
    }
}

#[test]
fn a_machine_that_boots_with_its_clock_a_year_off_renews_its_values_and_takes_none_for_fresh() {
    for off in OFF {
        let host = Host::new(&["a"]);
        let daemon = host.start(&config(&host, &json!({})));
        assert_eq!(daemon.ask("a").as_deref(), Some("old"));
        daemon.stop();
        host.reboot();
        host.set_clock(off);
        host.rotate("a", "new");
        let daemon = host.start(&config(&host, &json!({})));
        assert_eq!(daemon.ask("a").as_deref(), Some("new"), "{off}");
        daemon.stop();
        host.reboot();
        host.set_clock("+0");
        host.rotate("a", "newer");
        let top = json!({"fresh_for": "7d", "stale_for": "30d", "refresh": "2s"});
        let daemon = host.start(&config(&host, &top));
        wait("a round in the background", || daemon.ask("a").as_deref() == Some("newer"));
    }
}

#[test]
fn a_machine_that_boots_in_the_past_starts_its_units_without_1password() {
    let host = Host::new(&["a"]);
    let config = config(&host, &json!({}));
    let daemon = host.start(&config);
    assert_eq!(daemon.ask("a").as_deref(), Some("old"));
    daemon.stop();
    host.reboot();
    host.set_clock("-365d");
    host.simulator.server.fault("", usize::MAX, Fault::Reset);
    let daemon = host.start(&config);
    assert_eq!(daemon.ask("a").as_deref(), Some("old"));
    assert_eq!(age(&daemon), None, "from the future");
}
