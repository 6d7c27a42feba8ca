//! What survives which death.

use super::theme::{Face, Picture, Theme};

enum Fate {
    GoesOn(&'static str, &'static str),
    Limited(&'static str, &'static str),
    Ends(&'static str, &'static str),
}
use Fate::{Ends, GoesOn, Limited};

struct Death {
    what: &'static str,
    detail: &'static str,
    /// Starts that wait, values that are kept, files of the mirror.
    fates: [Fate; 3],
    /// System tests that show it.
    tests: &'static [&'static str],
}

const COLUMNS: [&str; 3] = ["a start that waits", "values", "files in /run/secrets"];

const DEATHS: [Death; 9] = [
    Death {
        what: "the worker of opnix",
        detail: "kill -9, a crash, out of memory",
        fates: [
            GoesOn("goes on", "the next worker answers"),
            Limited("those on disk stay", "others are fetched anew"),
            GoesOn("stay", ""),
        ],
        tests: &[
            "lifetimes::units_that_wait_survive_a_kill",
            "death::a_kill_at_any_system_call_leaves_no_wrong_answer",
        ],
    },
    Death {
        what: "its keeper",
        detail: "the unit's main process",
        fates: [
            Limited("goes on, or is refused", "never a wrong answer"),
            Limited("those on disk stay", "others are fetched anew"),
            GoesOn("stay", ""),
        ],
        tests: &["chaos::a_kill_of_the_keeper_leaves_no_wrong_answer"],
    },
    Death {
        what: "both at one moment",
        detail: "cgroup.kill, systemd-oomd",
        fates: [
            Limited("goes on", "one begun just now may end empty"),
            Limited("those on disk stay", "others are fetched anew"),
            GoesOn("stay", ""),
        ],
        tests: &[
            "chaos::a_kill_of_keeper_and_worker_empties_no_more_answers_than_was_measured",
            "store::a_full_store_survives_a_kill",
        ],
    },
    Death {
        what: "restart, upgrade",
        detail: "of opnix.service",
        fates: [
            GoesOn("goes on", "the next instance answers"),
            Limited("those on disk stay", "others are fetched anew"),
            GoesOn("stay", ""),
        ],
        tests: &[
            "lifetimes::units_that_wait_survive_a_restart",
            "lifetimes::units_that_wait_survive_a_package_upgrade",
            "recovery::what_waits_survives_an_upgrade_of_the_service_of_the_mirror_and_of_both",
        ],
    },
    Death {
        what: "systemctl stop",
        detail: "of opnix.service",
        fates: [
            Ends("is refused", "nobody follows who could answer"),
            Limited("those on disk stay", "none is served meanwhile"),
            GoesOn("stay", ""),
        ],
        tests: &["lifetimes::units_that_wait_are_refused_when_the_service_is_stopped"],
    },
    Death {
        what: "the mirror",
        detail: "opnix-mirror.service",
        fates: [
            GoesOn("goes on", ""),
            GoesOn("stay", ""),
            GoesOn("stay, and are whole", "it is started again"),
        ],
        tests: &[
            "recovery::the_mirror_is_back_whatever_becomes_of_it_and_a_reload_returns_when_the_files_are_there",
            "mirror::readers_never_see_a_partial_file_however_often_it_is_rewritten_or_the_mirror_killed",
        ],
    },
    Death {
        what: "the journal",
        detail: "",
        fates: [GoesOn("is answered", "records wait in a queue"), GoesOn("stay", ""), GoesOn("stay", "")],
        tests: &["journal::units_start_at_once_and_whole_while_the_journal_hangs"],
    },
    Death {
        what: "1Password, the network",
        detail: "",
        fates: [
            Limited("until its deadline, then refused", "and started when it is back"),
            GoesOn("are served", "those not fresh with a warning"),
            GoesOn("stay", ""),
        ],
        tests: &[
            "onepassword::units_that_wait_for_1password_get_their_secret_when_it_is_back",
            "recovery::units_that_were_refused_come_up_when_their_value_is_there_and_no_others_do",
            "nixos::a_host_that_boots_while_1password_is_down_comes_up_by_itself",
        ],
    },
    Death {
        what: "reboot",
        detail: "also without network",
        fates: [
            Ends("ends with its unit", "which is started at boot"),
            Limited("those on disk stay", "others are fetched anew"),
            Limited("are written anew", "before what comes after the mirror"),
        ],
        tests: &[
            "cache::five_units_start_at_a_boot_without_network",
            "nixos::the_example_host_boots_with_and_without_its_token_and_network",
            "mirror::five_files_are_there_with_their_owners_before_what_comes_after_the_mirror",
        ],
    },
];

const FIRST: f64 = 200.0;
const WIDE: f64 = 246.0;
const ROW: f64 = 46.0;
const TOP: f64 = 44.0;

pub fn draw(theme: &'static Theme) -> String {
    let height = TOP + ROW * DEATHS.len() as f64 + 12.0;
    let mut picture = Picture::new(
        theme,
        960,
        height as u32,
        "What survives which death; the table below says the same, with the tests that show it",
    );
    let p = &mut picture;
    for (column, name) in COLUMNS.into_iter().enumerate() {
        p.text(
            (FIRST + WIDE * column as f64 + 34.0, 28.0),
            "start",
            theme.text,
            (Face::Bold, 13.0),
            name,
            WIDE,
        );
    }
    p.text((20.0, 28.0), "start", theme.faint, (Face::Plain, 13.0), "what ends or hangs", FIRST);
    for (row, death) in DEATHS.iter().enumerate() {
        let y = TOP + ROW * row as f64;
        p.line(&format!("<path d=\"M20 {y}H940\" stroke=\"{}\"/>", theme.line));
        let lines = |y: f64, two: bool| if two { (y + 20.0, y + 36.0) } else { (y + 28.0, 0.0) };
        let (first, second) = lines(y, !death.detail.is_empty());
        p.text((20.0, first), "start", theme.text, (Face::Bold, 12.0), death.what, FIRST);
        p.text((20.0, second), "start", theme.faint, (Face::Plain, 11.0), death.detail, FIRST + 20.0);
        for (column, fate) in death.fates.iter().enumerate() {
            let x = FIRST + WIDE * column as f64 + 18.0;
            let (colour, words, more) = match fate {
                GoesOn(words, more) => (theme.good, words, more),
                Limited(words, more) => (theme.doubtful, words, more),
                Ends(words, more) => (theme.bad, words, more),
            };
            let (first, second) = lines(y, !more.is_empty());
            mark(p, fate, (x, y + ROW / 2.0), colour);
            p.text((x + 16.0, first), "start", theme.text, (Face::Plain, 12.0), words, WIDE - 10.0);
            p.text((x + 16.0, second), "start", theme.faint, (Face::Plain, 11.0), more, WIDE - 10.0);
        }
    }
    picture.done()
}

/// Not by colour alone: full, half, empty.
fn mark(p: &mut Picture, fate: &Fate, (x, y): (f64, f64), colour: &str) {
    let fill = if matches!(fate, GoesOn(..)) { colour } else { "none" };
    p.line(&format!(
        "<circle cx=\"{x}\" cy=\"{y}\" r=\"6\" fill=\"{fill}\" stroke=\"{colour}\" stroke-width=\"2\"/>"
    ));
    if matches!(fate, Limited(..)) {
        p.line(&format!("<path d=\"M{x} {}A6 6 0 0 0 {x} {}Z\" fill=\"{colour}\"/>", y - 6.0, y + 6.0));
    }
}

/// The same for who reads it, with the tests that show it.
pub fn table() -> String {
    let mut text =
        format!("| what ends or hangs | {} | shown by |\n|---|---|---|---|---|\n", COLUMNS.join(" | "));
    for death in &DEATHS {
        let joined = |one: &str, other: &str| {
            if other.is_empty() { one.to_owned() } else { format!("{one}: {other}") }
        };
        let fate = |fate: &Fate| match fate {
            GoesOn(words, more) | Limited(words, more) | Ends(words, more) => joined(words, more),
        };
        let tests: Vec<String> = death.tests.iter().map(|test| format!("`{test}`")).collect();
        let [start, values, files] = &death.fates;
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} |\n",
            joined(death.what, death.detail),
            fate(start),
            fate(values),
            fate(files),
            tests.join(", ")
        ));
    }
    text
}

pub fn tests() -> impl Iterator<Item = &'static str> {
    DEATHS.iter().flat_map(|death| death.tests.iter().copied())
}
