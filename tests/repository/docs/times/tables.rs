//! Which times and limits people meet, where the code has them, and what documents say of them.

/// Where the code has it: a file, and the name of a constant or field, or of a setting of a unit file.
pub type Place = (&'static str, &'static str);

/// The times that people meet: what it is, the setting that changes it if there is one, and where the code has it.
pub const TIMES: [(&str, &str, Place); 54] = [
    (
        "how long a unit waits for a value before it is refused",
        "`deadline`",
        ("src/config/check/timing.rs", "deadline"),
    ),
    (
        "the longest `deadline` of all units; one unit's own may be longer",
        "",
        ("src/config/check/timing.rs", "DEADLINE_MAX"),
    ),
    (
        "how long a unit waits for 1Password when an older, still usable value is kept",
        "`short_deadline`",
        ("src/config/check/timing.rs", "short_deadline"),
    ),
    (
        "the age up to which a value is served without asking",
        "`fresh_for`",
        ("src/config/check/timing.rs", "fresh_for"),
    ),
    (
        "the age up to which a value is served when 1Password cannot be asked",
        "`stale_for`",
        ("src/config/check/timing.rs", "stale_for"),
    ),
    (
        "how long a value is served that 1Password says is gone",
        "`grace`",
        ("src/config/check/timing.rs", "grace"),
    ),
    (
        "how often all values are renewed in the background",
        "`refresh`",
        ("src/config/check/timing.rs", "refresh"),
    ),
    (
        "after how long a value is read anew although its vault has not changed",
        "",
        ("src/store/kept.rs", "READ_ANEW"),
    ),
    ("how long one request to 1Password may take", "", ("src/providers/ask/mod.rs", "REQUEST_MAX")),
    ("the same, for a file", "", ("src/providers/ask/mod.rs", "FILE_MAX")),
    (
        "while a unit waits: the pause before the second try; then twice as long each time",
        "",
        ("src/store/fetch.rs", "FIRST_PAUSE"),
    ),
    ("… the longest of these pauses", "", ("src/store/fetch.rs", "LONGEST_PAUSE")),
    ("… how long before the deadline the last try is made, at most", "", ("src/store/fetch.rs", "LAST_TRY")),
    (
        "1Password does not work: the first pause before the background tries it again; then twice as long each time",
        "",
        ("src/store/breaker.rs", "FIRST_PAUSE"),
    ),
    ("… the longest of these pauses", "", ("src/store/breaker.rs", "LONGEST_PAUSE")),
    ("… the same, while a unit waits or a value is not fresh", "", ("src/store/breaker.rs", "EAGER_PAUSE")),
    (
        "a value cannot be had although 1Password works: the first pause; then twice as long each time",
        "",
        ("src/store/failure.rs", "FIRST_PAUSE"),
    ),
    ("… the longest of these pauses", "", ("src/store/failure.rs", "LONGEST_PAUSE")),
    (
        "a unit with a deadline of its own: the least pause after a failure",
        "",
        ("src/store/wait.rs", "PAUSE"),
    ),
    (
        "1Password's limit is reached and it names no time: the first rest of the background; then twice as long each time",
        "",
        ("src/providers/ledger.rs", "FIRST_REST"),
    ),
    ("… the longest of these rests", "", ("src/providers/ledger.rs", "LONGEST_REST")),
    ("the longest limit that 1Password is believed", "", ("src/providers/budget.rs", "LONGEST_LIMIT")),
    (
        "the budget is used up: when the background looks again whether there is room",
        "",
        ("src/store/background.rs", "LATER"),
    ),
    (
        "how soon a cache that could not be written is written again",
        "",
        ("src/store/background.rs", "SAVE_AGAIN"),
    ),
    (
        "how often a changed configuration is looked at, and how long it must have been left alone",
        "",
        ("src/server/reload.rs", "PAUSE"),
    ),
    ("how often the token's file is looked at", "", ("src/cli/token/bring.rs", "LOOK")),
    ("when a token that was not taken is tried again", "", ("src/cli/token/bring.rs", "AGAIN")),
    (
        "after how long a request that waits is told in the unit's own journal",
        "",
        ("src/server/unserved.rs", "LONG"),
    ),
    (
        "how long somebody who is not the unit has to read its refusal",
        "",
        ("src/server/request.rs", "PATIENCE"),
    ),
    ("the service stops: how long requests may go on", "", ("src/server/lifetime.rs", "GRACE")),
    ("… how long the refusals after that may take", "", ("src/server/lifetime.rs", "REFUSAL_LIMIT")),
    (
        "a service that hangs is restarted by its watchdog after",
        "`WatchdogSec=`",
        ("systemd/opnix.service", "WatchdogSec"),
    ),
    (
        "the pause before a service that ended is started again",
        "`RestartSec=`",
        ("systemd/opnix.service", "RestartSec"),
    ),
    (
        "how long the service may take to stop",
        "`TimeoutStopSec=`",
        ("systemd/opnix.service", "TimeoutStopSec"),
    ),
    ("how often records that repeat are told, with their count", "", ("src/records/repeats.rs", "PERIOD")),
    ("how long the service has to answer a command", "", ("src/cli/control.rs", "PATIENCE")),
    (
        "how long a client of the control socket has for a call, and to read an answer",
        "",
        ("src/control/connection.rs", "PATIENCE"),
    ),
    ("how often `opnix status --watch` shows it anew", "", ("src/cli/status.rs", "AGAIN")),
    ("how long each step of `opnix doctor` has", "", ("src/cli/doctor/mod.rs", "STEP")),
    ("… those that ask 1Password or the network", "", ("src/cli/doctor/mod.rs", "ASKING")),
    ("how long 1Password has for `opnix env`", "", ("src/cli/from_opnix/env.rs", "LIMIT")),
    ("how long `opnix setup` tries a key that does not open", "", ("src/cli/setup/mod.rs", "patience")),
    ("files: how long the mirror waits for values at its start, at most", "", ("src/mirror/mod.rs", "START")),
    (
        "… when what stands in the way here is tried again; then twice as long each time",
        "",
        ("src/mirror/mod.rs", "FIRST_PAUSE"),
    ),
    ("… the longest of these pauses", "", ("src/mirror/mod.rs", "LONGEST_PAUSE")),
    ("… how often it is looked whether they are as they were left", "", ("src/mirror/watch.rs", "LOOK")),
    ("… how often their content is read for that", "", ("src/mirror/mod.rs", "READ_FILES")),
    (
        "… how often units are told of a file that somebody else changed, at most",
        "",
        ("src/mirror/mod.rs", "TELL_OF_OTHERS"),
    ),
    ("… how long a directory has to answer", "", ("src/mirror/hands.rs", "PATIENCE")),
    ("changes within this time are acted on together", "", ("src/mirror/watch.rs", "DEBOUNCE")),
    ("… after this time at the latest", "", ("src/mirror/watch.rs", "TOO_LONG")),
    (
        "how often all units that are down are looked at, whether they missed a secret",
        "",
        ("src/mirror/mod.rs", "LOOK_AT_UNITS"),
    ),
    ("how long 1Password has for `opnix token check`", "", ("src/cli/token/check.rs", "LIMIT")),
    (
        "a fetch of many values that takes longer than this has a line in the journal at its beginning and end",
        "",
        ("src/store/fetch.rs", "LONG"),
    ),
];

/// The sizes and numbers that people meet, in the same way.
pub const LIMITS: [(&str, &str, Place); 17] = [
    (
        "bytes of all credentials of a unit together with their names; systemd's own limit",
        "",
        ("src/names.rs", "CREDENTIALS_MAX"),
    ),
    ("bytes of the name of a credential", "", ("src/names.rs", "CREDENTIAL_NAME_MAX")),
    ("bytes of a unit's name", "", ("src/names.rs", "UNIT_NAME_MAX")),
    (
        "bytes of the address that systemd asks from, in which both names stand",
        "",
        ("src/names.rs", "ADDRESS_MAX"),
    ),
    ("bytes of a configuration file", "", ("src/config/sources.rs", "SIZE_MAX")),
    ("bytes of the token's file", "", ("src/providers/child/token.rs", "SIZE_MAX")),
    (
        "bytes of an answer of 1Password, and so of a file in it",
        "",
        ("src/providers/ask/mod.rs", "ANSWER_MAX"),
    ),
    ("requests to 1Password in an hour: `budget.hourly`", "`budget`", ("src/providers/budget.rs", "hourly")),
    ("requests to 1Password in a day: `budget.daily`", "`budget`", ("src/providers/budget.rs", "daily")),
    (
        "requests of units that wait through a restart of the service",
        "`FileDescriptorStoreMax=`",
        ("src/systemd/store.rs", "STORE_MAX"),
    ),
    (
        "refusals of a unit on record in a minute; the rest is counted",
        "",
        ("src/records/requests.rs", "OF_A_UNIT"),
    ),
    ("bytes of records that wait for the journal", "", ("src/records/queue.rs", "CAPACITY")),
    ("refusals that are remembered for `opnix status`", "", ("src/server/refusals.rs", "MOST")),
    ("units whose last value is remembered for `outdated`", "", ("src/server/given.rs", "MOST")),
    ("connections to the control socket at a time", "", ("src/control/server.rs", "CONNECTIONS")),
    ("… and those that hear of changes besides", "", ("src/control/server.rs", "WATCHERS")),
    ("pairs of a key and a cache that are set aside", "", ("src/cli/setup/aside.rs", "KEPT")),
];

/// The other times of the code: nobody meets them, or they are told with what they belong to.
pub const INNER: &str = "
    src/server/lifetime.rs REPEATS LEFTOVERS
    src/server/unserved.rs LOOK
    src/server/places.rs MOMENT LATER
    src/server/keeper.rs STOP_LIMIT REFUSAL_LIMIT PAUSE
    src/server/answer.rs FIRST_PAUSE LONGEST_PAUSE
    src/server/accept.rs PAUSE LONGEST_WAIT WAKE
    src/server/starts.rs AT_ONCE
    src/server/request.rs PAUSE
    src/server/reload.rs PATIENCE
    src/server/given.rs TOGETHER
    src/records/mod.rs LAST_RECORDS
    src/records/writer.rs GATHER PAUSE
    src/providers/budget.rs HOUR DAY STEP
    src/providers/error.rs YEAR_10000
    src/providers/child/wire.rs EVER SLACK
    src/providers/child/connection.rs ENDING
    src/providers/child/mod.rs IDLE
    src/systemd/bus/mod.rs PATIENCE
    src/systemd/notify.rs LAST_WORDS
    src/control/connection.rs LAST_WORDS
    src/control/teller.rs PAUSE MEMORY
    src/cli/doctor/network.rs NAME CONNECTION ANSWER CLOCK
    src/cli/doctor/provider.rs PATIENCE
    src/cli/doctor/own_units.rs MOMENT
    src/cli/doctor/token.rs LOOK
    src/cli/control.rs COMING_UP LOOK
    src/cli/token/bring.rs WHICH PATIENCE
    src/cli/token/set.rs SEALING
    src/cli/demo/host.rs START
    src/cli/status/files.rs PATIENCE
    src/cli/setup/creds.rs DEATH
    src/cli/mirror.rs FAULTY
    src/cli/check/start.rs DEFAULT
    src/store/wait.rs LONGEST_SLEEP
    src/store/background.rs LONGEST_SLEEP LONGEST_INTERVAL
    src/store/fetch.rs PATIENCE SAVE RETIRED
    src/mirror/unserved.rs PATIENCE WHILE LOOK LOOK_LATER LATER
    src/mirror/mount.rs PATIENCE
    src/mirror/units.rs FIRST
    src/mirror/watch.rs AGAIN TOGETHER UNTOLD PATIENCE
    src/mirror/ask.rs ANSWER LONGEST MOMENT
    src/mirror/hands.rs MOMENT
    src/mirror/recover.rs FIRST_PAUSE LONGEST_PAUSE NEWS_PAUSE
    src/systemd/reload.rs PATIENCE
    src/server/told.rs TOLD FETCHING
    src/control/server.rs PROGRESS
    src/cli/progress.rs TICK
    src/cli/refresh.rs SOON
    src/mirror/pass/telling.rs LONG AGAIN
    src/cli/purge/units.rs PATIENCE LOOK QUIET ANSWER
    src/cli/complete.rs PATIENCE
    src/mirror/traces.rs PATIENCE
";

/// What documents say of a time, and where the code has it.
pub const PROMISES: [(&str, &str, Place); 61] = [
    ("README.md", "within a minute of 1Password's return", ("src/store/breaker.rs", "EAGER_PAUSE")),
    ("configuration.md", "`deadline` | duration, `30s`", ("src/config/check/timing.rs", "deadline")),
    ("configuration.md", "at most `1h`. Who comes while", ("src/config/check/timing.rs", "DEADLINE_MAX")),
    (
        "configuration.md",
        "`short_deadline` | duration, `3s`",
        ("src/config/check/timing.rs", "short_deadline"),
    ),
    ("configuration.md", "`refresh` | duration, `2h`", ("src/config/check/timing.rs", "refresh")),
    ("configuration.md", "it waits for at most half a minute", ("src/mirror/mod.rs", "START")),
    ("configuration.md", "is tried again after a second", ("src/mirror/mod.rs", "FIRST_PAUSE")),
    (
        "configuration.md",
        "less and less often, up to once a minute, for",
        ("src/mirror/mod.rs", "LONGEST_PAUSE"),
    ),
    (
        "configuration.md",
        "and every ten seconds by what the file system says",
        ("src/mirror/watch.rs", "LOOK"),
    ),
    ("configuration.md", "its content is read every five minutes", ("src/mirror/mod.rs", "READ_FILES")),
    ("configuration.md", "but of that at most once an hour", ("src/mirror/mod.rs", "TELL_OF_OTHERS")),
    (
        "configuration.md",
        "Changes that follow one another within two seconds",
        ("src/mirror/watch.rs", "DEBOUNCE"),
    ),
    (
        "configuration.md",
        "acted on together, after ten seconds at the latest",
        ("src/mirror/watch.rs", "TOO_LONG"),
    ),
    (
        "configuration.md",
        "A directory that does not answer within five seconds",
        ("src/mirror/hands.rs", "PATIENCE"),
    ),
    (
        "configuration.md",
        "what changes within two seconds is taken together",
        ("src/mirror/watch.rs", "DEBOUNCE"),
    ),
    ("configuration.md", "within a minute of 1Password's return", ("src/store/breaker.rs", "EAGER_PAUSE")),
    ("configuration.md", "opnix asks once a minute at most", ("src/store/breaker.rs", "EAGER_PAUSE")),
    ("configuration.md", "within a quarter of an hour of an item", ("src/store/failure.rs", "LONGEST_PAUSE")),
    (
        "configuration.md",
        "within a minute of a user, a mount or a directory",
        ("src/mirror/mod.rs", "LONGEST_PAUSE"),
    ),
    ("configuration.md", "`opnix-token.service` looks every two seconds", ("src/cli/token/bring.rs", "LOOK")),
    ("configuration.md", "`fresh_for` | duration, `15m`", ("src/config/check/timing.rs", "fresh_for")),
    ("configuration.md", "`stale_for` | duration, `7d`", ("src/config/check/timing.rs", "stale_for")),
    ("configuration.md", "`grace` | duration, `1h`", ("src/config/check/timing.rs", "grace")),
    (
        "configuration.md",
        "after a day of that, the value is read all the same",
        ("src/store/kept.rs", "READ_ANEW"),
    ),
    (
        "configuration.md",
        "once a minute while a unit waits or a value is not fresh",
        ("src/store/breaker.rs", "EAGER_PAUSE"),
    ),
    (
        "configuration.md",
        "else up to a quarter of an hour; and by every unit",
        ("src/store/breaker.rs", "LONGEST_PAUSE"),
    ),
    ("configuration.md", "it is tried again every ten seconds", ("src/store/background.rs", "SAVE_AGAIN")),
    ("configuration.md", "tries for 10 seconds", ("src/cli/setup/mod.rs", "patience")),
    ("configuration.md", "and never for longer than a day", ("src/providers/budget.rs", "LONGEST_LIMIT")),
    ("configuration.md", "`TimeoutStartSec=` (90 seconds", ("src/cli/check/start.rs", "DEFAULT")),
    ("configuration.md", "and looks at least once a minute", ("src/store/breaker.rs", "EAGER_PAUSE")),
    (
        "configuration.md",
        "is asked for after five seconds, then after ten",
        ("src/store/failure.rs", "FIRST_PAUSE"),
    ),
    (
        "configuration.md",
        "then after ten, up to a quarter of an hour",
        ("src/store/failure.rs", "LONGEST_PAUSE"),
    ),
    ("configuration.md", "`--watch` shows it anew every two seconds", ("src/cli/status.rs", "AGAIN")),
    ("configuration.md", "not for five seconds, then ten", ("src/store/failure.rs", "FIRST_PAUSE")),
    ("configuration.md", "then ten, up to a quarter of an hour", ("src/store/failure.rs", "LONGEST_PAUSE")),
    (
        "configuration.md",
        "after the second try nobody asks for five seconds",
        ("src/store/breaker.rs", "FIRST_PAUSE"),
    ),
    (
        "configuration.md",
        "after the third for up to a quarter of an hour",
        ("src/store/breaker.rs", "LONGEST_PAUSE"),
    ),
    (
        "configuration.md",
        "a request is given up after ten seconds",
        ("src/providers/ask/mod.rs", "REQUEST_MAX"),
    ),
    ("configuration.md", "one for a file after five minutes", ("src/providers/ask/mod.rs", "FILE_MAX")),
    (
        "configuration.md",
        "the files are looked at as well, once a second at most",
        ("src/server/reload.rs", "PAUSE"),
    ),
    ("configuration.md", "have not changed for a second", ("src/server/reload.rs", "PAUSE")),
    ("recovery.md", "`stale_for` (7 days by default)", ("src/config/check/timing.rs", "stale_for")),
    ("recovery.md", "They start within a minute of its return", ("src/store/breaker.rs", "EAGER_PAUSE")),
    (
        "troubleshooting.md",
        "its watchdog restarts it after 30 seconds",
        ("systemd/opnix.service", "WatchdogSec"),
    ),
    ("troubleshooting.md", "within a minute of 1Password's return", ("src/store/breaker.rs", "EAGER_PAUSE")),
    ("troubleshooting.md", "the clocks are five minutes apart", ("src/cli/doctor/network.rs", "CLOCK")),
    ("scale.md", "names, or for ten minutes", ("src/providers/ledger.rs", "FIRST_REST")),
    ("scale.md", "up to an hour, if it names none", ("src/providers/ledger.rs", "LONGEST_REST")),
    ("scale.md", "is to renew every two hours", ("src/config/check/timing.rs", "refresh")),
    ("scale.md", "then after up to a quarter of an hour", ("src/store/breaker.rs", "LONGEST_PAUSE")),
    ("architecture.md", "has read everything: after 10 s", ("src/server/request.rs", "PATIENCE")),
    ("architecture.md", "growing pause of at most two seconds", ("src/server/answer.rs", "LONGEST_PAUSE")),
    ("architecture.md", "is looked at again after 50 ms", ("src/server/request.rs", "PAUSE")),
    ("architecture.md", "The commands give up after 20 seconds", ("src/cli/control.rs", "PATIENCE")),
    ("architecture.md", "gives requests two seconds", ("src/server/lifetime.rs", "GRACE")),
    (
        "threat-model.md",
        "does not read it is closed after ten seconds",
        ("src/server/request.rs", "PATIENCE"),
    ),
    ("threat-model.md", "gives requests two seconds to be answered", ("src/server/lifetime.rs", "GRACE")),
    (
        "threat-model.md",
        "peers five seconds to read their refusal",
        ("src/server/lifetime.rs", "REFUSAL_LIMIT"),
    ),
    (
        "threat-model.md",
        "or does not read, ends after ten seconds",
        ("src/control/connection.rs", "PATIENCE"),
    ),
    ("configuration.md", "could not be asked (within 30 seconds)", ("src/cli/token/check.rs", "LIMIT")),
];

/// What else these documents say of times: examples, and what is not of this program.
pub const NO_PROMISES: [(&str, &str); 17] = [
    ("README.md", "shows the product in ten seconds"),
    ("README.md", "less than an hour on two cores"),
    ("configuration.md", "\"deadline\": \"10m\""),
    ("configuration.md", "five refusals within ten seconds"),
    ("configuration.md", "`RestartSec=5s`"),
    ("configuration.md", "With `\"grace\": \"0s\"`"),
    ("configuration.md", "when it is set by more than a minute they are written anew within a minute"),
    ("configuration.md", "(thirty seconds by 1Password's core)"),
    ("configuration.md", "(`\"fresh_for\": \"8d\"` makes `stale_for` 8 days)"),
    ("recovery.md", "four to eight times an hour"),
    ("troubleshooting.md", "waits for a credential for more than five seconds"),
    ("scale.md", "starts once a day"),
    ("scale.md", "requests a day"),
    ("scale.md", "a day's limit"),
    ("scale.md", "Requests a day"),
    ("scale.md", "more than a day:"),
    ("scale.md", "may be a day old"),
];

/// The documents in which each time is a promise or none: those that people act by.
pub const HELD: [&str; 5] =
    ["README.md", "configuration.md", "recovery.md", "troubleshooting.md", "scale.md"];
