//! Ages, whatever the clocks do.

use super::*;

/// So many minutes after boot, by a wall clock that was set.
fn set(minutes: u64, date: SystemTime) -> Now {
    Now { date, ..now(minutes) }
}

/// Wall clocks that are right, far ahead, far behind, and that nobody ever set.
fn clocks(minutes: u64) -> [Now; 4] {
    let date = now(minutes).date;
    [date, date + YEAR, date - YEAR, SystemTime::UNIX_EPOCH].map(|date| set(minutes, date))
}

/// A state with one value, which was fetched in an earlier boot.
fn rebooted(fetched: SystemTime, denied: Option<SystemTime>) -> State {
    let entry = Kept {
        value: secret("A").into(),
        fetched: Stamp::Earlier(fetched),
        denied: denied.map(Stamp::Earlier),
        doubtful: false,
        read: Moment::BOOT,
        comparable: None,
        asked: 0,
        from_disk: false,
    };
    let settings = state().values.settings().clone();
    State::new(Some("account".into()), Values::new(settings, [(reference("a"), entry)]), 1)
}

#[test]
fn a_step_of_the_clock_makes_no_value_of_this_boot_fresh_or_old() {
    for before in clocks(10) {
        let mut state = state();
        join(&mut state, "a");
        fetch(&mut state, before, &[("a", Ok("A"))], true);
        for after in clocks(24) {
            assert_eq!(asks(&mut state, "a", after), "fresh");
            assert!(!state.is_awaited(after));
        }
        for after in clocks(25) {
            assert!(state.is_awaited(after));
            let limits =
                Limits { meter: &Meter::default(), budget: &Budget::NONE, deadline: Duration::from_secs(30) };
            let decision = state.decide(&reference("a"), &limits, after);
            assert_eq!(decision, Decision::Fetch { fall_back: true });
        }
        for after in clocks(610) {
            assert_eq!(asks(&mut state, "a", after), "waits, fetch");
            state.give_up();
        }
    }
}

#[test]
fn a_value_grows_old_while_the_machine_is_suspended_even_if_its_wall_clock_stands_still() {
    let mut state = state();
    join(&mut state, "a");
    fetch(&mut state, now(0), &[("a", Ok("A"))], true);
    assert_eq!(asks(&mut state, "a", set(16, now(0).date)), "waits briefly, fetch");
    assert_eq!(asks(&mut state, "a", now(600)), "waits");
}

#[test]
fn after_a_reboot_a_clock_that_is_behind_makes_a_value_usable_and_not_fresh() {
    let up = |date| set(1, date);
    for wrong in [now(0).date - YEAR, SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH - YEAR] {
        let mut state = rebooted(now(0).date, None);
        assert_eq!(asks(&mut state, "a", up(wrong)), "waits briefly, fetch");
        assert!(state.is_awaited(up(wrong)));
        do_all(state.fails(down(), up(wrong), 0.5));
        assert_eq!(asks(&mut state, "a", up(wrong)), "stale");
        // The clock is set right.
        do_all(state.works());
        assert_eq!(asks(&mut state, "a", up(now(5).date)), "fresh");
        do_all(state.fails(down(), up(wrong), 0.5));
        assert_eq!(asks(&mut state, "a", up(now(599).date)), "stale");
        assert!(asks(&mut state, "a", up(now(600).date)).starts_with("waits"));
    }
}

#[test]
fn after_a_reboot_a_clock_that_is_ahead_makes_a_value_old_until_it_is_set_right() {
    let mut state = rebooted(now(0).date, None);
    let wrong = set(1, now(5).date + YEAR);
    assert_eq!(asks(&mut state, "a", wrong), "waits, fetch");
    assert_eq!(asks(&mut state, "a", set(2, now(6).date)), "fresh", "nothing was lost");
    // What comes meanwhile is as new as it is.
    fetch(&mut state, wrong, &[("a", Ok("A"))], true);
    assert_eq!(asks(&mut state, "a", set(3, now(7).date)), "fresh");
}

#[test]
fn a_grace_ends_in_its_time_whatever_the_clock_is_set_to() {
    for after in clocks(59) {
        let mut state = state();
        join(&mut state, "a");
        fetch(&mut state, now(0), &[("a", Ok("A"))], true);
        state.values.deny(&reference("a"), now(1));
        assert!(!state.values.deny(&reference("a"), after));
        let over = Now { moment: now(61).moment, ..after };
        assert!(state.values.deny(&reference("a"), over));
        assert!(state.values.get(&reference("a")).is_none());
    }
    // Denied before the boot, in what is the future now: the grace begins with the next denial, and not only then.
    let mut state = rebooted(now(0).date, Some(now(10).date));
    let behind = |minutes| set(minutes, now(minutes).date - YEAR);
    assert!(
        !state.values.deny(&reference("a"), behind(1)) && !state.values.deny(&reference("a"), behind(60))
    );
    assert!(state.values.deny(&reference("a"), behind(61)));
}

#[test]
fn what_is_on_disk_is_written_anew_once_the_clock_was_set() {
    for wrong in clocks(1).into_iter().skip(1) {
        let mut state = state();
        assert!(!state.is_misdated(wrong), "nothing is on disk");
        join(&mut state, "a");
        fetch(&mut state, wrong, &[("a", Ok("A"))], true);
        state.take_unsaved(wrong).unwrap();
        let later = set(2, wrong.date + MINUTE);
        assert!(!state.is_misdated(later) && state.take_unsaved(later).is_none());
        assert!(state.is_misdated(now(3)));
        let snapshot = state.take_unsaved(now(3)).unwrap();
        assert_eq!(snapshot.entries[0].1.fetched.date(snapshot.now), now(1).date);
        assert!(!state.is_misdated(now(4)) && state.take_unsaved(now(4)).is_none(), "once");
    }
}

#[test]
fn a_clock_that_is_wrong_at_boot_keeps_no_provider_from_being_tried_again() {
    for at in clocks(0) {
        let mut state = rebooted(now(0).date - MINUTE, None);
        do_all(state.fails(down(), at, 0.5));
        for after in clocks(1) {
            let probe = state.breaker.down().unwrap().probe(state.is_awaited(after));
            assert!(probe > Moment::BOOT && probe <= after.moment);
        }
    }
}
