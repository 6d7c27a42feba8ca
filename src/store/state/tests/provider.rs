//! What answers and failures say about the provider.

use super::*;

#[test]
fn an_outage_is_found_once_and_what_is_kept_stands_in_until_it_ends() {
    let mut state = state();
    do_all(state.join(&reference("a"), true).1);
    fetch(&mut state, now(0), &[("a", Ok("A"))], true);
    assert_eq!(asks(&mut state, "a", now(20)), "waits briefly, fetch");
    let (wanted, _) = state.take_wanted();
    let begun = state.begin(now(20));
    let (_, acts) = settle(&mut state, wanted, vec![Err(down())], begun, false, now(20));
    assert_eq!(do_all(acts), ["newly down", "deliver"]);
    assert_eq!(asks(&mut state, "a", now(21)), "stale");
    assert_eq!(asks(&mut state, "b", now(21)), "waits, fetch");
    let (wanted, _) = state.take_wanted();
    let begun = state.begin(now(21));
    let (_, acts) = settle(&mut state, wanted, vec![Err(down())], begun, false, now(21));
    assert_eq!(do_all(acts), ["down", "deliver"]);
    let (_, _) = join(&mut state, "b");
    let (wanted, _) = state.take_wanted();
    let begun = state.begin(now(22));
    // Any answer at all shows that it works.
    let (_, acts) = settle(&mut state, wanted, vec![Err(denied())], begun, false, now(22));
    assert_eq!(do_all(acts), ["up", "lift", "deliver"]);
    assert_eq!(asks(&mut state, "a", now(22)), "waits briefly, fetch");
}

#[test]
fn what_fails_alone_is_no_outage_and_neither_is_a_limit() {
    let mut state = state();
    let part = || down().of_part(&"item");
    let ((_, _), (_, _)) = (join(&mut state, "a"), join(&mut state, "b"));
    fetch(&mut state, now(0), &[("a", Err(part())), ("b", Ok("B"))], false);
    assert!(state.breaker.down().is_none());
    do_all(state.fails(down(), now(1), 0.5));
    let (_, _) = join(&mut state, "a");
    fetch(&mut state, now(1), &[("a", Err(part()))], false);
    assert!(state.breaker.down().is_none(), "it gives an answer for this one");
    // The last word is that it does not work.
    let ((_, _), (_, _)) = (join(&mut state, "a"), join(&mut state, "b"));
    fetch(&mut state, now(1), &[("a", Err(down())), ("b", Ok("B"))], false);
    assert!(state.breaker.down().is_some());
    let (_, _) = join(&mut state, "c");
    let (wanted, _) = state.take_wanted();
    let begun = state.begin(now(2));
    let limited = FetchError::RateLimited { until: None };
    let (_, acts) = settle(&mut state, wanted, vec![Err(limited)], begun, false, now(2));
    assert_eq!(do_all(acts), ["up", "limit", "down", "deliver"]);
    assert!(state.breaker.down().is_none());
}

#[test]
fn what_cannot_be_had_although_the_provider_works_is_asked_for_less_often_and_anew_when_somebody_says_so() {
    let mut state = state();
    let part = || FetchError::Broken { why: "nonsense".into() }.of_part(&"item");
    for at in [now(0), now(1)] {
        assert_eq!(asks(&mut state, "a", at), "waits, fetch");
        fetch(&mut state, at, &[("a", Err(part()))], false);
    }
    assert_eq!(asks(&mut state, "a", now(1)), part().to_string());
    let (waiter, _) = state.join_anew(&reference("a"));
    fetch(&mut state, now(1), &[("a", Err(part()))], false);
    assert_eq!(told(&waiter), Some(Err(part())));
    assert_eq!(asks(&mut state, "a", now(1)), "waits, fetch");
}

#[test]
fn a_rejected_token_is_not_tried_by_each_start() {
    let mut state = state();
    let rejected = || FetchError::TokenRejected;
    for _ in 0..2 {
        assert_eq!(asks(&mut state, "a", now(0)), "waits, fetch");
        fetch(&mut state, now(0), &[("a", Err(rejected()))], true);
    }
    assert_eq!(asks(&mut state, "b", now(0)), rejected().to_string(), "whatever is asked for");
    state.forget_failures();
    assert_eq!(asks(&mut state, "b", now(0)), "waits, fetch");
}
