//! The rules of fetches, with no runtime and no clock.

mod clocks;
mod provider;

use std::time::SystemTime;

use super::*;
use crate::moment::Stamp;
use crate::providers::budget::Budget;
use crate::providers::ledger::{Ledger, Meter};
use crate::store::decide::{Decision, Limits, Settings};
use crate::store::served::Part;
use crate::store::source::Source;

/// The baseline of what is fetched here.
const BASELINE: Comparable = Some(1);
const MINUTE: Duration = Duration::from_secs(60);

fn now(minutes: u64) -> Now {
    let since = Duration::from_secs(minutes * 60);
    Now {
        date: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + since,
        moment: Moment::BOOT + since,
    }
}

fn reference(field: &str) -> Reference {
    format!("op://v/i/{field}").parse().unwrap()
}

fn secret(text: &str) -> Secret {
    Secret::copy_from(text.as_bytes()).unwrap()
}

fn down() -> FetchError {
    FetchError::Unreachable { why: "down".into(), at: Default::default() }
}

fn denied() -> FetchError {
    FetchError::FieldNotFound { item: "i".into(), field: "f".into(), other: false, has: Vec::new() }
}

/// A state of three references, of which none is kept.
fn state() -> State {
    let settings = Settings {
        keep: Keep::Sealed,
        fresh_for: 15 * MINUTE,
        stale_for: 600 * MINUTE,
        always_fetch: false,
        grace: 60 * MINUTE,
    };
    let settings = ["a", "b", "c"].map(|field| (reference(field), settings)).into();
    State::new(Some("account".into()), Values::new(settings, []), 0)
}

/// One fetch for what is wanted, which brings these results in the order of the names.
fn fetch(
    state: &mut State,
    at: Now,
    results: &[(&str, Result<&str, FetchError>)],
    again: bool,
) -> Vec<Wanted> {
    let (mut wanted, acts) = state.take_wanted();
    do_all(acts);
    wanted.sort_by(|one, other| one.reference.cmp(&other.reference));
    let names: Vec<Reference> = wanted.iter().map(|wanted| wanted.reference.clone()).collect();
    assert_eq!(names, results.iter().map(|(name, _)| reference(name)).collect::<Vec<_>>());
    let begun = state.begin(at);
    let results = results.iter().map(|(_, result)| result.clone().map(secret)).collect();
    let (left, acts) = settle(state, wanted, results, begun, again, at);
    do_all(acts);
    left
}

/// What comes of the results of a whole fetch.
fn settle(
    state: &mut State,
    wanted: Vec<Wanted>,
    results: Vec<Result<Secret, FetchError>>,
    begun: Begun,
    again: bool,
    at: Now,
) -> (Vec<Wanted>, Acts) {
    let (mut all, mut failed) = (Acts::default(), Vec::new());
    for (wanted, result) in wanted.into_iter().zip(results) {
        all.0.extend(state.arrived(wanted, result, (begun, BASELINE), at, &mut failed).0);
    }
    let (left, acts) = state.ended(failed, again, at, 0.5);
    all.0.extend(acts.0);
    (left, all)
}

/// Delivers, and names what else is to be done.
fn do_all(acts: Acts) -> Vec<&'static str> {
    let name = |act| match act {
        Act::Deliver(wanted, outcome) => {
            wanted.deliver(outcome);
            "deliver"
        }
        Act::Fetch => "fetch",
        Act::Changed => "changed",
        Act::Limit(_) => "limit",
        Act::Lift => "lift",
        Act::Down(Some(_)) => "newly down",
        Act::Down(None) => "down",
        Act::Up => "up",
        Act::Save => "save",
    };
    acts.0.into_iter().map(name).collect()
}

fn join(state: &mut State, field: &str) -> (Waiter, Vec<&'static str>) {
    let (waiter, acts) = state.join(&reference(field), true);
    (waiter, do_all(acts))
}

/// What a waiter has been told.
fn told(waiter: &Waiter) -> Option<Result<Vec<u8>, FetchError>> {
    waiter.0.borrow().clone().map(|outcome| outcome.map(|value| value.expose().to_vec()))
}

fn is(value: &str) -> Option<Result<Vec<u8>, FetchError>> {
    Some(Ok(value.as_bytes().to_vec()))
}

/// What a unit that asks now gets.
fn asks(state: &mut State, field: &str, at: Now) -> String {
    let meter = Meter::new(Ledger::default());
    let limits = Limits { meter: &meter, budget: &Budget::NONE, deadline: MINUTE / 2 };
    let (source, acts) = state.source(&reference(field), &limits, at);
    let acts = do_all(acts);
    let source = match source {
        Ok(Source::Kept(Part { caveat: None, .. })) => "fresh".to_owned(),
        Ok(Source::Kept(Part { caveat: Some(_), .. })) => "stale".to_owned(),
        Ok(Source::Fetch(_)) => "waits".to_owned(),
        Ok(Source::FetchOrKept(_)) => "waits briefly".to_owned(),
        Err(error) => error.to_string(),
    };
    [vec![source], acts.into_iter().map(str::to_owned).collect()].concat().join(", ")
}

#[test]
fn who_asks_for_the_same_waits_for_one_fetch_and_what_is_asked_for_before_it_begins_goes_along() {
    let mut state = state();
    let (first, acts) = join(&mut state, "a");
    assert_eq!(acts, ["fetch"]);
    let (second, acts) = join(&mut state, "a");
    assert!(acts.is_empty());
    let (other, acts) = join(&mut state, "b");
    assert!(acts.is_empty());
    let (wanted, _) = state.take_wanted();
    assert_eq!(wanted.len(), 2);
    // From here on what is new goes with the next fetch; what is under way is waited for.
    let (third, acts) = join(&mut state, "a");
    assert!(acts.is_empty());
    let (next, acts) = join(&mut state, "c");
    assert_eq!(acts, ["fetch"]);
    let begun = state.begin(now(0));
    let (left, acts) =
        settle(&mut state, wanted, vec![Ok(secret("A")), Ok(secret("B"))], begun, true, now(0));
    assert!(left.is_empty());
    assert_eq!(do_all(acts), ["lift", "changed", "deliver", "lift", "changed", "deliver"]);
    for waiter in [&first, &second, &third] {
        assert_eq!(told(waiter), is("A"));
    }
    assert_eq!((told(&other), told(&next)), (is("B"), None));
    assert_eq!(asks(&mut state, "a", now(14)), "fresh");
}

#[test]
fn what_was_had_since_it_was_asked_for_is_not_fetched_once_more() {
    let mut state = state();
    let (_, _) = join(&mut state, "a");
    let (wanted, _) = state.take_wanted();
    let begun = state.begin(now(0));
    // The fetch takes so long that another one begins, for somebody who gave it up.
    do_all(settle(&mut state, wanted, vec![Err(FetchError::TimedOut(MINUTE))], begun, false, now(1)).1);
    let (waiter, _) = join(&mut state, "a");
    let begun = state.begin(now(2));
    let late = state.values.insert(&reference("a"), secret("A").into(), begun.asked, None);
    assert!(late);
    let (wanted, acts) = state.take_wanted();
    assert!(wanted.is_empty());
    assert_eq!(do_all(acts), ["deliver"]);
    assert_eq!(told(&waiter), is("A"));
    // But a value that came before it was asked for does not do.
    let (_, _) = join(&mut state, "a");
    assert_eq!(state.take_wanted().0.len(), 1);
}

#[test]
fn what_may_pass_stays_for_another_try_and_what_is_said_for_good_is_delivered() {
    let mut state = state();
    let ((first, _), (second, _)) = (join(&mut state, "a"), join(&mut state, "b"));
    let left = fetch(&mut state, now(0), &[("a", Err(down())), ("b", Err(denied()))], true);
    assert_eq!(left.iter().map(|wanted| wanted.reference.clone()).collect::<Vec<_>>(), [reference("a")]);
    assert_eq!(state.urgent(left.iter()), 1);
    assert_eq!((told(&first), told(&second)), (None, Some(Err(denied()))));
    let begun = state.begin(now(1));
    do_all(settle(&mut state, left, vec![Ok(secret("A"))], begun, true, now(1)).1);
    assert_eq!(told(&first), is("A"));
    // What the last try brings is delivered, whatever it is.
    let (last, _) = join(&mut state, "c");
    assert!(fetch(&mut state, now(2), &[("c", Err(down()))], false).is_empty());
    assert_eq!(told(&last), Some(Err(down())));
}

#[test]
fn only_who_has_no_other_value_makes_a_fetch_urgent() {
    let mut state = state();
    do_all(state.join(&reference("a"), false).1);
    let (wanted, _) = state.take_wanted();
    assert_eq!(state.urgent(wanted.iter()), 0);
    do_all(state.join(&reference("a"), true).1);
    assert_eq!(state.urgent(wanted.iter()), 1);
}

#[test]
fn a_value_that_is_denied_again_and_again_is_asked_for_less_often() {
    let mut state = state();
    for at in [now(0), now(1)] {
        assert_eq!(asks(&mut state, "a", at), "waits, fetch");
        fetch(&mut state, at, &[("a", Err(denied()))], true);
    }
    assert_eq!(asks(&mut state, "a", now(1)), denied().to_string());
    assert_eq!(asks(&mut state, "a", now(2)), "waits, fetch");
    fetch(&mut state, now(2), &[("a", Ok("A"))], true);
    assert!(state.failures.is_empty());
}

#[test]
fn a_value_that_is_denied_is_served_for_the_grace_and_then_gone_from_disk_as_well() {
    let mut state = state();
    do_all(state.join(&reference("a"), true).1);
    fetch(&mut state, now(0), &[("a", Ok("A"))], true);
    for at in [now(20), now(21)] {
        assert_eq!(asks(&mut state, "a", at), "waits briefly, fetch");
        fetch(&mut state, at, &[("a", Err(denied()))], true);
        assert!(state.fall_back(&reference("a"), denied(), at).is_ok());
    }
    state.take_unsaved(now(1)).unwrap();
    // In a loop, so that the next denial comes from memory; an hour after the first one the grace is over.
    state
        .failures
        .insert(reference("a"), Failure::new(denied(), now(80).moment, state.failures.get(&reference("a"))));
    assert_eq!(asks(&mut state, "a", now(80)), format!("{}, save", denied()));
    assert!(state.values.get(&reference("a")).is_none());
    assert!(state.take_unsaved(now(1)).unwrap().entries.is_empty());
    assert!(state.fall_back(&reference("a"), denied(), now(80)).is_err());
}

fn confirmed(before: u64, now: u64, unchanged: bool) -> Confirmed {
    Confirmed { before: Some(before), now: Some(now), unchanged: vec![unchanged] }
}

#[test]
fn a_value_is_confirmed_only_by_the_baseline_that_it_was_read_after() {
    let mut state = state();
    do_all(state.join(&reference("a"), true).1);
    assert!(state.begin_confirmation(now(0)).is_none(), "there is nothing to compare");
    fetch(&mut state, now(0), &[("a", Ok("A"))], true);
    do_all(state.join(&reference("b"), true).1);
    assert!(state.begin_confirmation(now(1)).is_none(), "what is wanted is not among it");
    let (wanted, _) = state.take_wanted();
    let slow = state.begin(now(1));
    do_all(state.join(&reference("a"), true).1);
    let (first, second) =
        (state.begin_confirmation(now(20)).unwrap(), state.begin_confirmation(now(20)).unwrap());
    assert_eq!(first.references, [reference("a")]);
    state.confirmed(first, confirmed(1, 2, true));
    assert_eq!(state.renewed, Some(now(20).moment), "as good as a round");
    assert_eq!(asks(&mut state, "a", now(34)), "fresh");
    // It began before the vaults were listed for the next baseline, and arrives after.
    do_all(settle(&mut state, wanted, vec![Ok(secret("B"))], slow, false, now(21)).1);
    let comparable = |state: &State, field| state.values.get(&reference(field)).unwrap().comparable;
    assert_eq!((comparable(&state, "a"), comparable(&state, "b")), (Some(2), Some(1)));
    // What has changed is fetched, and not compared until it was.
    state.confirmed(second, confirmed(2, 3, false));
    assert_eq!(comparable(&state, "a"), None);
    // A second answer, of a request that was under way with the first, confirms nothing that the first did not.
    let late = Confirmation {
        references: vec![reference("a")],
        asked: Asked { number: 100, at: now(40).moment },
        at: now(40).moment,
    };
    state.confirmed(late, confirmed(3, 4, true));
    assert_eq!(asks(&mut state, "a", now(40)), "waits briefly");
}

/// Whatever the vault's version says: it could stand still.
#[test]
fn a_value_is_read_anew_once_a_day() {
    let mut state = state();
    do_all(state.join(&reference("a"), true).1);
    fetch(&mut state, now(0), &[("a", Ok("A"))], true);
    do_all(state.join(&reference("a"), true).1);
    for minutes in [60, 24 * 60 - 1] {
        let confirmation = state.begin_confirmation(now(minutes)).unwrap();
        state.confirmed(confirmation, confirmed(1, 1, true));
    }
    assert!(state.begin_confirmation(now(24 * 60)).is_none());
    assert_eq!(state.begin_confirmation_of_all(now(24 * 60)).references, []);
}

#[test]
fn another_accounts_values_are_dropped_from_memory_and_disk() {
    let mut state = state();
    do_all(state.join(&reference("a"), true).1);
    fetch(&mut state, now(0), &[("a", Ok("A"))], true);
    state.take_unsaved(now(1)).unwrap();
    state.belongs_to("account");
    assert!(state.take_unsaved(now(1)).is_none() && asks(&mut state, "a", now(1)) == "fresh");
    // Until the other account has given something, what is on disk stays, and comes back with its token.
    state.belongs_to("other");
    assert_eq!(asks(&mut state, "a", now(1)), "waits, fetch");
    let snapshot = state.take_unsaved(now(1)).unwrap();
    assert!(snapshot.account == "account" && snapshot.entries.len() == 1);
    state.belongs_to("fourth");
    state.belongs_to("account");
    assert_eq!(asks(&mut state, "a", now(1)), "fresh");
    assert_eq!(state.take_unsaved(now(1)).unwrap().entries.len(), 1);
    state.belongs_to("other");
    do_all(state.join(&reference("b"), true).1);
    fetch(&mut state, now(1), &[("a", Ok("of other")), ("b", Ok("B"))], true);
    let snapshot = state.take_unsaved(now(1)).unwrap();
    assert!(snapshot.account == "other" && state.proven().0 == Some("other"));
    assert!(state.values.get(&reference("a")).unwrap().value.is_same_as(&secret("of other")));
    // What is under way with a token of the account before is not kept either.
    do_all(state.join(&reference("a"), true).1);
    let (wanted, _) = state.take_wanted();
    let begun = state.begin(now(1));
    state.belongs_to("third");
    do_all(settle(&mut state, wanted, vec![Ok(secret("A"))], begun, false, now(2)).1);
    assert_eq!(asks(&mut state, "a", now(2)), "waits, fetch");
}

#[test]
fn what_could_not_be_written_is_written_the_next_time() {
    let mut state = state();
    assert!(state.take_unsaved(now(1)).is_none(), "nothing has changed");
    do_all(state.join(&reference("a"), true).1);
    fetch(&mut state, now(0), &[("a", Ok("A"))], true);
    assert_eq!(state.take_unsaved(now(1)).unwrap().entries.len(), 1);
    assert!(state.take_unsaved(now(1)).is_none());
    state.mark_unsaved();
    assert_eq!(state.take_unsaved(now(1)).unwrap().entries.len(), 1);
}

#[test]
fn a_result_is_delivered_when_it_comes_and_not_kept_if_it_was_asked_for_anew_meanwhile() {
    let mut state = state();
    let ((first, _), (other, _)) = (join(&mut state, "a"), join(&mut state, "b"));
    let (mut wanted, _) = state.take_wanted();
    wanted.sort_by(|one, other| one.reference.cmp(&other.reference));
    let (slow, quick) = (wanted.remove(0), wanted.remove(0));
    let begun = state.begin(now(0));
    do_all(state.arrived(quick, Ok(secret("B")), (begun, BASELINE), now(0), &mut Vec::new()));
    assert_eq!((told(&other), told(&first)), (is("B"), None));
    // Somebody knows of a change.
    let (anew, acts) = state.join_anew(&reference("a"));
    assert_eq!(do_all(acts), ["fetch"]);
    do_all(state.arrived(slow, Ok(secret("old")), (begun, BASELINE), now(1), &mut Vec::new()));
    assert_eq!((told(&first), told(&anew)), (is("old"), None));
    assert!(state.values.get(&reference("a")).is_none(), "it may be from before the change");
    fetch(&mut state, now(2), &[("a", Ok("new"))], false);
    assert_eq!(told(&anew), is("new"));
    assert_eq!(asks(&mut state, "a", now(3)), "fresh");
}

#[test]
fn who_waits_for_what_was_given_up_asks_anew() {
    let mut state = state();
    let (first, _) = join(&mut state, "a");
    let (wanted, _) = state.take_wanted();
    drop(wanted);
    assert_eq!(told(&first), None);
    assert_eq!(join(&mut state, "a").1, ["fetch"]);
    state.give_up();
    assert_eq!(join(&mut state, "a").1, ["fetch"]);
}

#[test]
fn what_comes_late_says_nothing_about_a_provider_that_failed_since() {
    let mut state = state();
    let ((_, _), (_, _)) = (join(&mut state, "a"), join(&mut state, "b"));
    let (slow, _) = state.take_wanted();
    let begun = state.begin(now(0));
    let (_, _) = join(&mut state, "c");
    fetch(&mut state, now(1), &[("c", Err(down()))], false);
    let results = slow.iter().map(|_| Ok(secret("old"))).collect();
    do_all(settle(&mut state, slow, results, begun, false, now(2)).1);
    assert!(state.breaker.down().is_some());
}

#[test]
fn a_unit_that_waits_leaves_1password_alone_while_that_is_of_no_use() {
    let mut state = state();
    let meter = Meter::new(Ledger::default());
    let limits = Limits { meter: &meter, budget: &Budget::NONE, deadline: MINUTE };
    let both = [reference("a"), reference("b")];
    let rest = |state: &State, at: Now| state.rest(both.iter(), &limits, at, true);
    assert_eq!(rest(&state, now(0)), Duration::ZERO, "nothing is known against it");
    do_all(state.fails(down(), now(0), 0.5));
    assert_eq!(rest(&state, now(100)), Duration::MAX, "the background looks whether it is back");
    assert_eq!(state.trouble(both.iter()), Some(&down()));
    do_all(state.works());
    assert_eq!(rest(&state, now(100)), Duration::ZERO);
    // What one of them was denied, the other one waits for.
    for _ in 0..3 {
        join(&mut state, "a");
        fetch(&mut state, now(200), &[("a", Err(denied()))], false);
    }
    assert_eq!(rest(&state, now(200)), Duration::from_secs(10));
    assert_eq!(state.trouble(both.iter()), Some(&denied()));
    assert_eq!(rest(&state, now(201)), Duration::ZERO);
    meter.ledger().limit(now(300), Some(now(307).moment));
    assert_eq!(rest(&state, now(300)), 7 * MINUTE);
    assert_eq!(rest(&state, now(307)), Duration::ZERO);
    let spent = Limits { budget: &Budget { hourly: Some(0), ..Budget::NONE }, ..limits };
    assert_eq!(state.rest(both.iter(), &spent, now(307), false), Duration::ZERO, "as any other unit");
    assert_eq!(state.rest(both.iter(), &spent, now(307), true), Duration::MAX);
    // What is kept is there whatever else is.
    for name in ["a", "b"] {
        join(&mut state, name);
        fetch(&mut state, now(400), &[(name, Ok("value"))], false);
    }
    do_all(state.fails(down(), now(400), 0.5));
    assert_eq!(rest(&state, now(410)), Duration::ZERO);
    assert_eq!(state.rest(both.iter(), &spent, now(410), true), Duration::ZERO);
}

#[test]
fn a_unit_that_waits_has_the_background_look_more_often() {
    let mut state = state();
    assert!(!state.is_awaited(now(0)));
    state.patient += 1;
    assert!(state.is_awaited(now(0)));
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
