//! To whom a secret goes, and when it is too late.

use std::time::Duration;

use super::{paths, written};

#[test]
fn a_secret_for_units_only_is_no_file_and_one_for_both_is_both() {
    let config = written(
        "both",
        &[r#"{"pathTemplate": "all/{name}", "defaults": {"name": "x"}, "secrets": [
            {"name": "unit", "reference": "op://v/i/f", "units": ["a.service"]},
            {"name": "both", "reference": "op://v/i/f", "units": ["a.service"], "path": "both"}]}"#],
    )
    .unwrap();
    assert_eq!(paths(&config), ["/run/secrets/both"]);
    assert_eq!(config.policy.rules().count(), 2);
}

#[test]
fn a_unit_in_full_and_its_template_do_not_collide_nor_do_two_names_in_one_unit() {
    let config = written(
        "rules",
        &[r#"{"secrets": [
            {"name": "a", "reference": "op://v/i/f", "units": ["x@*.service", {"unit": "x@1.service", "credential": "b"}]},
            {"name": "b", "reference": "op://v/i/f", "units": [{"unit": "x@1.service", "credential": "a"}, "y.service"]}]}"#],
    )
    .unwrap();
    assert_eq!(config.policy.rules().count(), 4);
}

#[test]
fn a_deadline_is_half_a_minute_unless_set_and_an_hour_at_most() {
    let deadline = |text: &str| written("deadline", &[text]).unwrap().timing.deadline;
    assert_eq!(deadline("{}"), Duration::from_secs(30));
    assert_eq!(deadline(r#"{"deadline": "1h"}"#), Duration::from_secs(3600));
    assert_eq!(deadline(r#"{"deadline": "500ms"}"#), Duration::from_millis(500));
}
