//! What tests of several subjects are made of.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::daemon::Daemon;
use crate::simulators::http::Server;

/// Far longer than anything takes, and far shorter than what the clock is set by.
pub const LIMIT: Duration = Duration::from_secs(60);

#[track_caller]
pub fn wait(what: &str, so: impl FnMut() -> bool) {
    wait_for(what, LIMIT, so);
}

#[track_caller]
pub fn wait_for(what: &str, limit: Duration, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !so() {
        assert!(Instant::now() < end, "waited {limit:?} in vain for: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// For what must be refused in the end: from one that makes the end come soon to one that is enough on any machine.
const DEADLINES: [&str; 4] = ["1500ms", "4s", "10s", "30s"];

/// What a service comes to that has time enough. Where the machine was too busy for a short deadline (see [`on_time`]), another
/// service gets a longer one.
#[track_caller]
pub fn with_time<T>(attempt: impl FnMut(&str) -> Option<T>) -> T {
    DEADLINES.into_iter().find_map(attempt).expect("it is in time with the longest deadline")
}

/// `None`: instead of what is expected, it is only said that there was no answer in time.
pub fn on_time(answer: Result<String, String>, expected: &str) -> Option<Result<String, String>> {
    let late = |why: &String| why.contains("did not answer") && !why.contains(expected);
    if answer.as_ref().is_err_and(late) { None } else { Some(answer) }
}

/// How many requests `ask` takes.
pub fn cost(server: &Server, ask: impl FnOnce()) -> usize {
    server.forget_requests();
    ask();
    server.requests().len()
}

/// What the service says of itself.
#[track_caller]
pub fn status(daemon: &Daemon) -> Value {
    let (text, _) = daemon.command(&["status", "--json"]);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

pub fn merged(mut object: Value, more: &Value) -> Value {
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object
}
