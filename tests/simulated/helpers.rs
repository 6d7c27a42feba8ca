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
