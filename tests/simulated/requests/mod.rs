//! What it costs: the requests that the service makes, and the limits on them.

mod budget;
mod counting;
mod ledger;
mod limit;
mod outage;
mod repetition;
mod verdicts;
