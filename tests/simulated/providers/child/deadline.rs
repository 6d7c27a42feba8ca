//! A unit's deadline ends its waiting. A child has a limit of its own: one that makes no progress is killed, and one that does
//! brings what it was asked for to whoever asks next.

use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::{OTHER, USERNAME, lives, send, stuck, value_of};
use crate::daemon::{Daemon, UNIT};
use crate::helpers::{cost, merged, status, wait, wait_for};
use crate::providers::connect::{everything, provider, with_deadline};
use crate::simulators::connect::TOKEN;
use crate::simulators::http::Fault;

/// Longer than a child may take for one request.
const LIMIT: Duration = Duration::from_secs(40);

#[test]
fn a_child_that_is_stuck_in_a_fetch_is_killed_and_holds_up_nobody_else() {
    let simulator = everything();
    let daemon = with_deadline(&simulator, "8s", &[USERNAME, OTHER, ("first", "op://Zoo/Kinds/lines")]);
    assert!(daemon.ask("first").is_some(), "it is signed in");
    simulator.server.forget_requests();
    simulator.server.fault("GET", 1, Fault::Hang);
    thread::scope(|scope| {
        let refusal = scope.spawn(|| daemon.refusal("key"));
        let child = stuck(&daemon, &simulator, "GET");
        assert_eq!(daemon.ask("other"), Some(value_of(&OTHER)), "by another child");
        assert!(lives(child));
        assert!(refusal.join().unwrap().contains("did not answer within 8s"));
        wait_for("the end of the child", LIMIT, || !lives(child));
    });
    wait("an answer", || daemon.ask("key").as_deref() == Some("keeper"));
}

#[test]
fn a_child_that_is_stuck_before_it_says_that_it_is_ready_is_killed() {
    let simulator = everything();
    let daemon = with_deadline(&simulator, "2s", &[USERNAME]);
    thread::scope(|scope| {
        let refusal = scope.spawn(|| daemon.refusal("key"));
        wait("the child", || !daemon.children().is_empty());
        let [child] = daemon.children()[..] else { panic!("one child") };
        send(child, Signal::SIGSTOP);
        let refusal = refusal.join().unwrap();
        if simulator.server.requests().is_empty() {
            assert!(refusal.contains("did not answer within 2s"), "{refusal}");
        }
        wait_for("the end of the child", LIMIT, || !lives(child));
    });
    wait("an answer", || daemon.ask("key").as_deref() == Some("keeper"));
}

#[test]
fn what_comes_after_a_units_deadline_is_kept_for_the_next_start_and_is_never_the_answer_to_another_question()
{
    let simulator = everything();
    let secrets = [USERNAME, OTHER, ("first", "op://Zoo/Kinds/lines")];
    let daemon = with_deadline(&simulator, "2s", &secrets);
    assert!(daemon.ask("first").is_some(), "it is signed in");
    simulator.server.forget_requests();
    simulator.server.fault("GET", 1, Fault::Hold);
    thread::scope(|scope| {
        let refusal = scope.spawn(|| daemon.refusal("key"));
        let child = stuck(&daemon, &simulator, "GET");
        assert!(refusal.join().unwrap().contains("did not answer within 2s"));
        // Now it has its answer, and passes it on.
        simulator.server.clear_faults();
        let _ = kill(Pid::from_raw(i32::try_from(child).unwrap()), Signal::SIGCONT);
    });
    wait("the answer", || daemon.ask("key").as_deref() == Some("keeper"));
    assert_eq!(cost(&simulator.server, || assert_eq!(daemon.ask("key").as_deref(), Some("keeper"))), 0);
    assert_eq!(daemon.ask("other"), Some(value_of(&OTHER)));
}

#[test]
fn a_server_that_is_slower_than_a_units_deadline_lets_it_start_in_the_end() {
    let simulator = everything();
    // Three requests, of which none is too slow.
    simulator.server.fault("GET", usize::MAX, Fault::Delay(Duration::from_secs(2)));
    let daemon = with_deadline(&simulator, "3s", &[USERNAME]);
    assert!(daemon.refusal("key").contains("did not answer within 3s"));
    wait("the answer", || daemon.ask("key").as_deref() == Some("keeper"));
    let requests = simulator.server.requests();
    let items = requests.iter().filter(|request| request.contains("/items/")).count();
    assert_eq!(items, 1, "what is under way is not asked for once more: {requests:?}");
}

#[test]
fn a_file_that_takes_long_keeps_nobody_waiting() {
    let simulator = everything();
    let names: Vec<String> = (0..20).map(|number| format!("s{number}")).collect();
    let mut secrets = vec![
        json!({"name": "file", "reference": "op://Zoo/Papers/paper.bin", "kind": "file", "units": [UNIT]}),
    ];
    secrets.extend(names.iter().enumerate().map(|(number, name)| {
        json!({"name": name, "reference": format!("op://One Vault/Item {number}/value"), "units": [UNIT]})
    }));
    let config = json!({"provider": provider(&simulator), "deadline": "8s", "secrets": secrets});
    let daemon = Daemon::configured(&[], &merged(config, &json!({"short_deadline": "1s"})), TOKEN);
    let mut content = String::new();
    simulator.change(|account| {
        let zoo = account.vault("Zoo");
        let papers = zoo.items.iter().find(|item| item.title == "Papers").unwrap();
        content =
            format!("GET /v1/vaults/{}/items/{}/files/{}/content", zoo.id, papers.id, papers.files[0].id);
    });
    simulator.server.fault(&content, usize::MAX, Fault::Hold);
    thread::scope(|scope| {
        let refusal = scope.spawn(|| daemon.refusal("file"));
        for name in &names {
            let daemon = &daemon;
            scope.spawn(move || assert!(daemon.ask(name).is_some(), "{name}"));
        }
        assert!(refusal.join().unwrap().contains("did not answer within 8s"));
    });
    assert_eq!(status(&daemon)["provider"]["health"], "up", "a file that takes long is no outage");
    simulator.server.clear_faults();
    wait("the file", || daemon.ask_bytes("file") == Some((0..=255).collect()));
    let asked = simulator.server.requests().iter().filter(|request| **request == content).count();
    assert_eq!(asked, 1, "what is under way is not asked for once more");
}

#[test]
fn a_file_alone_that_takes_long_is_no_outage() {
    let simulator = everything();
    let daemon = with_deadline(&simulator, "2s", &[("file-paper", "op://Zoo/Papers/paper.bin"), USERNAME]);
    simulator.server.fault("GET /v1/vaults/", usize::MAX, Fault::Delay(Duration::from_secs(1)));
    assert!(daemon.refusal("file-paper").contains("did not answer within 2s"));
    assert_eq!(status(&daemon)["provider"]["health"], "up");
    wait("the file", || daemon.ask_bytes("file-paper") == Some((0..=255).collect()));
}
