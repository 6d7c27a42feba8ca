use serde_json::json;

use super::*;

const NOW: u64 = 1_800_000_000;

fn status(more: serde_json::Value) -> Status {
    let mut whole = json!({"version": "1", "waiting": 1, "missed": [], "secrets": [],
        "provider": {"kind": "connect", "health": "up"},
        "cache": {"sealed": true, "in_memory": 2, "sealable": 2},
        "budget": {"hour": {"used": 0}, "day": {"used": 0}}});
    whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(whole).unwrap()
}

fn text(status: &Status) -> String {
    describe(status, date(NOW))
}

#[track_caller]
fn says(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.contains(line), "{line:?} in\n{text}");
    }
}

#[test]
fn any_time_that_the_service_tells_has_words() {
    let first = SystemTime::UNIX_EPOCH;
    for at in [0, 1, i64::MAX as u64, u64::MAX] {
        assert!(!duration(at).is_empty());
        assert!(!humantime::format_rfc3339_seconds(date(at)).to_string().is_empty());
        for now in [first, first - Duration::from_secs(1), SystemTime::now()] {
            assert!(relative(at, now).starts_with("in ") || relative(at, now).ends_with(" ago"));
        }
    }
}

#[test]
fn an_error_of_many_secrets_is_told_once() {
    let secret = |name: &str, error: &str| json!({"name": name, "state": "missing", "ready": false, "error": error, "error_at": NOW - 60});
    let down = "1Password cannot be reached: no route\ncheck the network";
    let told = text(&status(json!({
        "provider": {"kind": "connect", "health": "down", "error": down},
        "secrets": [secret("a", "no item"), secret("b", down), secret("c", "no item"), secret("d", down)],
    })));
    assert_eq!(told.matches("no item").count(), 1, "{told}");
    assert_eq!(told.matches("check the network").count(), 1, "{told}");
    says(
        &told,
        &[
            "opnix      1, 1 request waiting\nin short   4 of 4 secrets cannot be had now: a, b, c, d\n",
            "errors     1m ago: a, c\n               no item\n",
            "           1m ago, as told above, for want of the provider: b, d\n",
        ],
    );
}

#[test]
fn what_is_on_disk_is_told_and_not_what_may_be() {
    let told = |on_disk: serde_json::Value, written: serde_json::Value, more: serde_json::Value| {
        let mut cache =
            json!({"sealed": true, "in_memory": 3, "sealable": 3, "on_disk": on_disk, "written_at": written});
        cache.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        text(&status(json!({"cache": cache})))
    };
    let at = json!(NOW - 180);
    says(
        &told(json!(3), at.clone(), json!({})),
        &["cache      3 values, 3 sealed on disk, written 3m ago\n"],
    );
    says(&told(json!(1), at.clone(), json!({})), &["3 values, 1 of 3 sealed on disk, written 3m ago\n"]);
    says(&told(json!(0), json!(null), json!({})), &["3 values, none of 3 sealed on disk\n"]);
    // One that does not open, or an older service.
    says(
        &told(json!(null), at, json!({})),
        &["3 values, how many are on disk is not known, written 3m ago\n"],
    );
    let full = json!({"unwritable_since": NOW - 60, "unwritable_because": "No space left on device"});
    says(
        &told(json!(0), json!(null), full),
        &[
            "none of 3 sealed on disk\n           NOTHING CAN BE WRITTEN to disk since 1m ago: No space left on device\n",
        ],
    );
}

#[test]
fn when_a_provider_is_asked_again_and_what_is_wrong_with_the_token_is_told() {
    let provider = json!({"kind": "connect", "health": "limited", "not_before": NOW + 600});
    says(
        &text(&status(json!({"provider": provider}))),
        &[
            "is not asked: its limit is reached\n",
            "it said that it is not to be asked before 2027-01-15T08:10:00Z (in 10m)\n",
        ],
    );
    let provider =
        json!({"kind": "service_account", "health": "up", "token_error": "there is no token\nput it there"});
    let told = text(&status(json!({"provider": provider})));
    says(&told, &["           there is no token\n           put it there\n"]);
    assert!(!told.contains("works"), "{told}");
}

#[test]
fn refusals_waiting_requests_and_the_names_of_the_mirror_are_told_in_words() {
    let refusal = |unit: &str, credential: &str, times: u64| json!({"unit": unit, "credential": credential, "at": NOW - 5, "times": times, "check": "policy", "reason": "no\nwrite it"});
    let status = status(json!({
        "refusals": [refusal("b.service", "key", 3), refusal("c.service", "other", 1)],
        "missed": [{"unit": "opnix-mirror.service", "credential": "mirror-1", "secret": "s", "since": NOW - 9, "reason": "gone", "ready": true},
            {"unit": "a.service", "credential": "key", "since": NOW - 9, "reason": "gone", "ready": false}],
        "requests": [{"unit": "z.service", "credential": "key", "since": NOW - 3, "until": NOW + 7},
            {"unit": "a.service", "credential": "x", "since": NOW - 4}],
        "files": [{"secret": "s", "credential": "mirror-1", "path": "/run/secrets/s", "owner": "root", "mode": "0400",
            "symlinks": [], "optional": false, "services": ["r.service"]}],
    }));
    let refused = refused(&status, |refusal| (refusal.unit == "c.service").then_some(Over::Runs));
    assert_eq!(refused.len(), 4, "what is left out from before counts as well");
    let seen = Seen { refused, ..Seen::default() };
    let now = date(NOW);
    let verdict = judge(&status, &seen.refused, seen.files(&status), now);
    assert_eq!(verdict.exit, Exit::Unavailable);
    let mut page = Page::new();
    service::describe(&mut page, &status, &seen, &verdict, now);
    let told = page.into_plain();
    says(
        &told,
        &[
            "in short   b.service was refused \"key\" 5s ago, and has not got it since\n           a.service was refused \"key\" 9s ago,",
            "waiting    a.service for \"x\": asked 4s ago, waits for ever\n           z.service for \"key\": asked 3s ago, is refused in 7s\n",
            "refused    b.service \"key\" 5s ago (3 times)\n               no\n               write it\n",
            "           c.service \"other\" 5s ago; it was started since, and runs\n",
            "left out   opnix-mirror.service was refused \"s\" (the file /run/secrets/s) 9s ago, which it would get now\n",
        ],
    );
    assert_eq!(told.matches("a.service was refused").count(), 2, "{told}");
}
