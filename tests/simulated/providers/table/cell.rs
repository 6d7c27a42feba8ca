//! One cell of the table.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use super::Outcome::{Alone, Down, Had, Limited};
use super::{Outcome, Place, Row, SECRETS, Simulator, Trouble, account, ids, value_of};
use crate::daemon::{Daemon, UNIT};
use crate::helpers::{status, wait};
use crate::simulators::account::Seal;
use crate::simulators::http::{Fault, Server};

/// The first that is enough counts: what may pass is tried again until the deadline.
const DEADLINES: [&str; 3] = ["2s", "5s", "12s"];
/// Where a request is given up after ten seconds.
const LONG: [&str; 1] = ["30s"];
/// How many requests may meet a fault that is final, and one that may pass, and how many there may be in all.
const FINAL: (usize, usize) = (4, 24);
const PASSING: (usize, usize) = (12, 48);

type Answers = Vec<(&'static str, Result<String, String>)>;
/// What is not as it should be, and with which secrets.
type Wrong = BTreeMap<String, Vec<&'static str>>;

/// Tries the cells of one place, and tells of all that are not as they should be.
#[track_caller]
pub fn check<S: Simulator>(place: &Place, rows: Vec<Row>) {
    let rows = Mutex::new(rows.into_iter());
    let wrong = Mutex::new(Vec::new());
    let next = || rows.lock().unwrap().next();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some((trouble, outcome)) = next() {
                    let found = cell::<S>(place, &trouble, &outcome);
                    let found =
                        found.iter().map(|(what, of)| format!("{trouble:?}: {}{what}", of.join(", ")));
                    wrong.lock().unwrap().extend(found);
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "at {}:\n{}", place.on, wrong.join("\n"));
}

fn cell<S: Simulator>(place: &Place, trouble: &Trouble, outcome: &Outcome) -> Wrong {
    let deadlines = match (trouble, outcome) {
        (Trouble::Fault(Fault::Hang), _) => &LONG[..],
        (_, Had) => &DEADLINES[1..],
        _ => &DEADLINES,
    };
    let mut wrong = Wrong::new();
    for deadline in deadlines {
        let late;
        (wrong, late) = attempt::<S>(place, trouble, outcome, deadline);
        // Where the machine was too busy for a short deadline, a longer one may do.
        if wrong.is_empty() || !late {
            break;
        }
    }
    wrong
}

/// What is not as it should be, and whether that may be for want of time.
fn attempt<S: Simulator>(
    place: &Place,
    trouble: &Trouble,
    outcome: &Outcome,
    deadline: &str,
) -> (Wrong, bool) {
    let simulator = S::start(account());
    let server = simulator.server();
    let daemon = simulator.daemon(deadline);
    let begin = || match trouble {
        Trouble::Fault(fault) => server.fault(&place.on, usize::MAX, fault.clone()),
        Trouble::Sealed(seal) => simulator.seal(*seal),
    };
    let mut answers = ask_all(&daemon, server, place.at_first, begin);
    let mut wrong = Wrong::new();
    let mut note = |name, what| wrong.entry(what).or_default().push(name);
    let expected = match outcome {
        Had | Alone(_) => Some("up"),
        Down(_) => Some("down"),
        Limited => None,
    };
    if let Some(expected) = expected
        && !comes_to(&daemon, expected)
    {
        note("the provider", format!(" is not {expected}"));
    }
    for (name, answer) in &answers {
        if let Some(what) = judge(place, outcome, server, name, answer) {
            note(name, what);
        } else if *name == place.secrets[0]
            && let Alone(words) | Down(words) = outcome
        {
            let (explained, _) = daemon.command(&["explain", UNIT, name]);
            let _ =
                missing(&explained, words).map(|word| note(name, format!(" not explained with {word:?}")));
        }
    }
    let _ = costs(trouble, server).map(|what| note("it", what));
    // It took so long to gather them that the requests were over before the trouble began.
    let missed = matches!(trouble, Trouble::Fault(_)) && server.faults_met().is_empty();
    server.clear_faults();
    simulator.seal(Seal::Good);
    daemon.command(&["refresh"]);
    let after = ask_all(&daemon, server, true, || ());
    for (name, answer) in after.iter().filter(|(name, answer)| answer.as_ref() != Ok(&value_of(name))) {
        note(name, format!(" afterwards: {answer:?}"));
    }
    answers.extend(after);
    let late = |(_, answer): &(_, Result<_, String>)| {
        answer.as_ref().is_err_and(|why| why.contains("did not answer"))
    };
    (wrong, missed || answers.iter().any(late))
}

/// Whether the provider's health does: a unit whose time is over is not told after the service knows why.
fn comes_to(daemon: &Daemon, health: &str) -> bool {
    (0..20).any(|look| {
        thread::sleep(Duration::from_millis(if look == 0 { 0 } else { 100 }));
        status(daemon)["provider"]["health"] == health
    })
}

/// Asks for all secrets at the same time, and has the trouble begin when they are gathered.
fn ask_all(daemon: &Daemon, server: &Server, at_first: bool, begin: impl FnOnce()) -> Answers {
    let (first, others) = SECRETS.split_first().unwrap();
    if !at_first {
        server.fault("", 1, Fault::Hold);
    }
    thread::scope(|scope| {
        let ask = |(name, _): &(&'static str, _)| {
            let name: &'static str = name;
            scope.spawn(move || (name, daemon.answer(name)))
        };
        let mut asks = Vec::new();
        if at_first {
            begin();
            asks.extend(SECRETS.iter().map(ask));
        } else {
            asks.push(ask(first));
            wait("the first request", || !server.requests().is_empty());
            asks.extend(others.iter().map(ask));
            // The first may be out of patience before that, where the machine is busy.
            wait("all to wait", || {
                // Each look takes a process.
                thread::sleep(Duration::from_millis(50));
                asks[0].is_finished() || status(daemon)["waiting"] == SECRETS.len()
            });
            begin();
            server.forget_requests();
            server.release();
        }
        asks.into_iter().map(|ask| ask.join().unwrap()).collect()
    })
}

/// What is wrong with this answer.
fn judge(
    place: &Place,
    outcome: &Outcome,
    server: &Server,
    name: &str,
    answer: &Result<String, String>,
) -> Option<String> {
    let concerned = place.secrets.contains(&name);
    let refusal = match answer {
        Ok(value) if *value != value_of(name) => return Some(format!(" has a wrong value, {value:?}")),
        Ok(_) if concerned && !matches!(outcome, Had) => return Some(" is had".into()),
        Ok(_) => return None,
        Err(refusal) => refusal,
    };
    let missing = match outcome {
        Had => return Some(format!(" is refused: {refusal}")),
        Alone(_) if !concerned => return Some(format!(" is refused, too: {refusal}")),
        Limited if !concerned && was_before(server, name) => {
            return Some(format!(" is refused, although it was answered before: {refusal}"));
        }
        Alone(words) => missing(refusal, &[words, place.names].concat()),
        Down(words) => missing(refusal, words),
        Limited => missing(refusal, &["limit on requests"]),
    };
    missing.map(|word| format!(" is refused without {word:?}: {refusal}"))
}

/// Whether the secret itself was asked for before the first request that met the fault.
fn was_before(server: &Server, name: &str) -> bool {
    let (requests, met) = (server.requests(), server.faults_met());
    let before = requests.iter().take_while(|request| Some(*request) != met.first());
    let (_, id) = ids(name);
    before.into_iter().any(|request| request.contains(&id))
}

/// The first of the words that a text does not have, or is not to have.
fn missing<'w>(text: &str, words: &[&'w str]) -> Option<&'w str> {
    let right = |word: &&str| match word.strip_prefix('!') {
        Some(word) => !text.contains(word),
        None => word.split('|').any(|word| text.contains(word)),
    };
    words.iter().find(|word| !right(word)).copied()
}

fn costs(trouble: &Trouble, server: &Server) -> Option<String> {
    let (met, all) = match trouble {
        Trouble::Fault(Fault::Status(401 | 403 | 404) | Fault::Limited(_)) | Trouble::Sealed(_) => FINAL,
        Trouble::Fault(_) => PASSING,
    };
    let (requests, faults) = (server.requests(), server.faults_met());
    let too_many = faults.len() > met || requests.len() > all;
    too_many.then(|| {
        format!(" takes {} requests, of which {} meet the fault: {requests:?}", requests.len(), faults.len())
    })
}
