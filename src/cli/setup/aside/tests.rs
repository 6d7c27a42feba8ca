//! What becomes of pairs that were set aside, through whatever happens.

use std::fs;
use std::os::unix::fs::symlink;

use super::Pairs;
use crate::cli::setup::tests::{ASIDE_CACHE, ASIDE_KEY, CACHE, KEY, LOST, Machine, OPENS};

#[test]
fn a_key_that_was_set_aside_and_opens_again_is_back_with_its_cache() {
    let machine = Machine::new("back");
    machine.opens_only("drawn-*");
    machine.does(&["made the key"]);
    // The new one has nothing to lose yet.
    machine.answer(OPENS);
    let said = "the key that was set aside opens again and is back in force, with its cache";
    machine.does(&[said]);
    machine.has(&[(KEY, "old"), (CACHE, "of old"), ("store/opnix.cache-key.aside-2", "drawn-1")]);
    machine.does(&["the key of the cache is in place"]);
    assert_eq!(machine.read("calls").unwrap().lines().count(), 1, "pairs that nobody needs are not tried");

    // Between two TPMs, each key comes back to its own.
    machine.opens_only("drawn-*");
    machine.does(&[
        "cannot be opened any more",
        "the key that was set aside opens again and is back in force\n",
    ]);
    machine.has(&[
        (KEY, "drawn-1"),
        ("store/opnix.cache-key.aside-3", "old"),
        ("state/cache.aside-3", "of old"),
    ]);
    machine.write(CACHE, "of drawn");
    machine.opens_only("old");
    machine.does(&[said]);
    assert_eq!(machine.drew(), 0);
    machine.has(&[
        (KEY, "old"),
        (CACHE, "of old"),
        ("store/opnix.cache-key.aside-4", "drawn-1"),
        ("state/cache.aside-4", "of drawn"),
    ]);
}

#[test]
fn a_key_that_is_in_place_with_its_cache_or_in_use_is_not_exchanged() {
    let machine = Machine::new("in-use");
    machine.opens_only("drawn-*");
    machine.does(&["made the key"]);
    machine.answer(OPENS);
    machine.write("in-use", "");
    machine.does(&["the key of the cache is in place"]);
    fs::remove_file(machine.0.join("in-use")).unwrap();
    machine.write(CACHE, "of drawn");
    machine.does(&["the key of the cache is in place"]);
    machine.has(&[(KEY, "drawn-1"), (CACHE, "of drawn"), (ASIDE_KEY, "old"), (ASIDE_CACHE, "of old")]);
}

#[test]
fn a_new_key_that_somebody_wants_stays() {
    let machine = Machine::new("wanted");
    let (is_ok, text) = machine.runs(machine.setup(true));
    assert!(is_ok && text.contains("set the key aside") && text.contains("made the key"), "{text}");
    let files = [(KEY, "drawn-1"), (ASIDE_KEY, "old"), (ASIDE_CACHE, "of old")];
    let mark = "store/opnix.cache-key.aside-1.on-purpose";
    machine.has(&[&files[..], &[(mark, "")]].concat());
    // Although the other one opens, and has a cache.
    machine.does(&["the key of the cache is in place"]);
    machine.has(&[&files[..], &[(mark, "")]].concat());
    // It is better than none.
    machine.opens_only("old");
    machine.does(&["is back in force, with its cache"]);
    machine.has(&[(KEY, "old"), (CACHE, "of old"), ("store/opnix.cache-key.aside-2", "drawn-1")]);
    // And one that may open yet is given up if somebody says so.
    machine.answer("exit 1");
    let (is_ok, text) = machine.runs(machine.setup(true));
    assert!(is_ok, "{text}");
    assert_eq!(machine.read("state/cache.aside-3").as_deref(), Some("of old"));
}

#[test]
fn three_pairs_stay_and_what_goes_is_said() {
    let machine = Machine::new("many");
    machine.answer(LOST);
    for round in 1..=6 {
        let (_, text) = machine.runs(machine.setup(false));
        let removed: Vec<_> = text.lines().filter(|line| line.starts_with("removed ")).collect();
        assert_eq!(removed.len(), usize::from(round > 3), "{round}: {text}");
        let gone = machine.0.join(format!("store/opnix.cache-key.aside-{}", round.max(4) - 3));
        // One without a cache goes first.
        let gone = if round == 6 { machine.0.join("store/opnix.cache-key.aside-5") } else { gone };
        assert!(removed.iter().all(|line| line.contains(&gone.display().to_string())), "{round}: {text}");
        machine.write(KEY, &format!("key {round}"));
        if round != 4 {
            machine.write(CACHE, &format!("cache {round}"));
        }
    }
    machine.has(&[
        (KEY, "key 6"),
        (CACHE, "cache 6"),
        ("store/opnix.cache-key.aside-3", "key 2"),
        ("state/cache.aside-3", "cache 2"),
        ("store/opnix.cache-key.aside-4", "key 3"),
        ("state/cache.aside-4", "cache 3"),
        ("store/opnix.cache-key.aside-6", "key 5"),
        ("state/cache.aside-6", "cache 5"),
    ]);
}

/// Each step of both ways is a rename; the power may go after any of them.
#[test]
fn what_was_interrupted_loses_nothing_and_is_finished() {
    let rename = |machine: &Machine, from: &str, to: &str| {
        fs::rename(machine.0.join(from), machine.0.join(to)).unwrap();
    };
    // The cache is aside, the key is not.
    let machine = Machine::new("interrupted");
    rename(&machine, CACHE, ASIDE_CACHE);
    machine.answer("exit 1");
    machine.fails(&["put the cache back in place", "does not open now"]);
    machine.has_what_it_had();
    rename(&machine, CACHE, ASIDE_CACHE);
    machine.opens_only("drawn-*");
    machine.does(&["put the cache back in place", "set its cache aside"]);
    machine.has(&[(KEY, "drawn-1"), (ASIDE_KEY, "old"), (ASIDE_CACHE, "of old")]);
    // Both are aside, and there is no new key.
    fs::remove_file(machine.0.join(KEY)).unwrap();
    machine.does(&["made the key"]);
    fs::remove_file(machine.0.join(KEY)).unwrap();
    machine.answer(OPENS);
    machine.does(&["is back in force, with its cache"]);
    machine.has_what_it_had();
    // The key is back, the cache is not.
    rename(&machine, CACHE, "state/cache.aside-7");
    machine.does(&["put the cache back in place", "the key of the cache is in place"]);
    machine.has_what_it_had();
    // The one that was in force is aside already, the other one is not back.
    for name in ["aside-1", "aside-2"] {
        machine.write(&format!("store/opnix.cache-key.{name}"), name);
    }
    machine.write(ASIDE_CACHE, "of aside-1");
    fs::remove_file(machine.0.join(KEY)).unwrap();
    fs::remove_file(machine.0.join(CACHE)).unwrap();
    machine.does(&["is back in force, with its cache"]);
    machine.has(&[(KEY, "aside-1"), (CACHE, "of aside-1"), ("store/opnix.cache-key.aside-2", "aside-2")]);
}

#[test]
fn whatever_the_user_of_the_service_puts_there_is_neither_followed_nor_lost() {
    let machine = Machine::new("hostile");
    machine.write("theirs", "theirs");
    fs::remove_file(machine.0.join(CACHE)).unwrap();
    for name in [CACHE, "state/cache.aside-2"] {
        symlink(machine.0.join("theirs"), machine.0.join(name)).unwrap();
    }
    for name in [
        "cache.aside-4294967295",
        "cache.aside-01",
        "cache.aside-+3",
        "cache.aside-99999999999",
        "cache.aside-",
    ] {
        fs::create_dir(machine.0.join("state").join(name)).unwrap();
    }
    machine.answer(LOST);
    for _ in 0..6 {
        machine.does(&["made the key"]);
        assert_eq!(machine.read("theirs").as_deref(), Some("theirs"));
    }
    // A cache that no key goes with makes room for one that has its key.
    fs::remove_file(machine.0.join(KEY)).unwrap();
    machine.write(CACHE, "stray");
    machine.answer(OPENS);
    machine.does(&["set a cache aside that no key goes with", "is back in force, with its cache"]);
    let strays = machine.0.join("state").read_dir().unwrap().flatten();
    assert!(
        strays.into_iter().any(|entry| fs::read_to_string(entry.path()).is_ok_and(|text| text == "stray"))
    );
}

#[test]
fn where_the_link_to_the_cache_is_not_made_yet_it_is_found_all_the_same() {
    let machine = Machine::new("no-link");
    let link = machine.0.join("state");
    fs::remove_file(&link).unwrap();
    machine.opens_only("drawn-*");
    machine.does(&["private/state/cache.aside-1"]);
    machine.write("private/state/cache", "of drawn");
    // With its cache, the key in force is not exchanged.
    machine.answer(OPENS);
    machine.does(&["the key of the cache is in place"]);
    symlink("private/state", link).unwrap();
    machine.has(&[(KEY, "drawn-1"), (CACHE, "of drawn"), (ASIDE_KEY, "old"), (ASIDE_CACHE, "of old")]);
}

#[test]
fn only_one_is_at_work() {
    let machine = Machine::new("two");
    let _pairs = Pairs::open(&machine.0.join("store"), &machine.0.join("state")).unwrap();
    machine.fails(&["another `opnix setup` is at work"]);
    machine.has_what_it_had();
}
