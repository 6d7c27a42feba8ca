//! The provider `service_account`, through 1Password's official core, against the simulator.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, library};
use crate::simulators::account::Account;
use crate::simulators::http::{Fault, Tls};
use crate::simulators::service_account::{Device, ServiceAccount};
use opnix::providers::service_account::core::Core;
use serde_json::json;

/// What signing in takes: four requests, and one for the keys with the first vault.
const SIGN_IN: usize = 5;

fn everything() -> ServiceAccount {
    ServiceAccount::local(Account::everything())
}

fn one(simulator: &ServiceAccount) -> Daemon {
    Daemon::start(&simulator.token(), &[("key", "op://Zoo/Sections/username")])
}

/// How many requests `ask` takes.
fn cost(simulator: &ServiceAccount, ask: impl FnOnce()) -> usize {
    simulator.server.forget_requests();
    ask();
    simulator.server.requests().len()
}

/// The core itself, asked without opnix in between.
struct Official {
    core: Core,
    client: u64,
}

impl Official {
    fn sign_in(token: &str) -> Self {
        let core = Core::load(&library()).unwrap();
        let settings = json!({
            "serviceAccountToken": token, "programmingLanguage": "Rust", "sdkVersion": "0040201",
            "integrationName": "judge", "integrationVersion": "1", "requestLibraryName": "reqwest",
            "requestLibraryVersion": "0", "os": "linux", "osVersion": "0.0.0", "architecture": "x86_64",
        });
        let client = core.init_client(settings.to_string().as_bytes(), soon()).unwrap().parse().unwrap();
        Self { core, client }
    }

    /// `None`: it fails.
    fn resolve(&self, reference: &str) -> Option<String> {
        let ask = json!({"invocation": {"clientId": self.client, "parameters":
            {"name": "SecretsResolve", "parameters": {"secret_reference": reference}}}});
        let answer = self.core.invoke(ask.to_string().as_bytes(), soon()).ok()?;
        serde_json::from_slice(&answer).unwrap()
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

#[test]
fn every_reference_comes_to_what_the_cores_own_resolver_makes_of_it() {
    let simulator = everything();
    let mut references: Vec<String> =
        simulator.account().expected().as_object().unwrap().keys().take(12).cloned().collect();
    references.extend(
        [
            "op://zoo/SECTIONS/Username",
            "op://Zoo/Sections//username",
            "op://Zoo/Sections//only",
            "op://Zoo/Kinds//lines",
            "op://Zoo/Sections/password",
            "op://Zoo/Sections/prod/password",
            "op://Zoo/Sections/Section_test/password",
            "op://Zoo/Sections/only",
            "op://Zoo/Sections/nope/username",
            "op://Zoo/Sections/prod/username",
            "op://Zoo/Sections/nope",
            "op://Zoo/Nope/x",
            "op://Nope/x/x",
            "op://Zoo/Kinds/lines",
            "op://Zoo/Kinds/date",
            "op://Zoo/Kinds/month",
            "op://Zoo/Kinds/home",
            "op://Zoo/Kinds/code",
            "op://Zoo/Kinds/notes",
            "op://Zoo/Kinds/notesPlain",
            "op://Zoo/Kinds/extra/notes",
            "op://Zoo/Kinds/date?attribute=otp",
            "op://Zoo/Kinds/date?attribute=title",
            "op://Zoo/Twin/value",
            "op://Zoo/Gone/value",
            "op://Zoo/Key/private key",
            "op://Zoo/Key/private key?ssh-format=openssh",
            "op://Zoo/Key/private key?ssh-format=other",
            "op://Zoo/Key/public key",
            "op://Zoo/Key/fingerprint",
            "op://Zoo/Key/key type",
            "op://Zoo/Sections/username?ssh-format=openssh",
        ]
        .map(str::to_owned),
    );
    let names: Vec<String> = (0..references.len()).map(|number| format!("s{number}")).collect();
    let secrets: Vec<(&str, &str)> =
        names.iter().map(String::as_str).zip(references.iter().map(String::as_str)).collect();
    let official = Official::sign_in(&simulator.token());
    let daemon = Daemon::start(&simulator.token(), &secrets);
    let mut agreed = 0;
    for (name, reference) in secrets {
        let expected = official.resolve(reference);
        assert_eq!(daemon.ask(name), expected, "{reference}");
        agreed += usize::from(expected.is_some());
    }
    assert!(agreed >= 25, "only {agreed} of them have a value");
    assert_eq!(simulator.violations(), [""; 0]);
}

#[test]
fn an_empty_value_is_an_error_although_the_core_calls_it_a_success() {
    let simulator = everything();
    assert_eq!(Official::sign_in(&simulator.token()).resolve("op://Zoo/Kinds/empty"), Some(String::new()));
    let daemon =
        Daemon::start(&simulator.token(), &[("a", "op://Zoo/Kinds/empty"), ("b", "op://Zoo/Sections/notes")]);
    assert!(daemon.refusal("a").contains("op://Zoo/Kinds/empty is empty"));
    assert!(daemon.refusal("b").contains("op://Zoo/Sections/notes is empty"));
}

#[test]
fn documents_and_attachments_arrive_byte_for_byte() {
    let simulator = everything();
    let daemon = Daemon::start(
        &simulator.token(),
        &[
            ("file-paper", "op://Zoo/Papers/paper.bin"),
            ("file-cert", "op://Zoo/Sections/prod/cert.pem"),
            ("file-again", "op://Zoo/Sections/CERT.pem"),
        ],
    );
    let paper: Vec<u8> = (0..=255).collect();
    assert_eq!(daemon.ask_bytes("file-paper"), Some(paper));
    assert_eq!(daemon.ask("file-cert").as_deref(), Some("-----BEGIN MADE UP-----\n"));
    // The item, then the core reads it once more, then the file.
    assert_eq!(cost(&simulator, || assert!(daemon.ask("file-again").is_some())), 3);
    assert_eq!(simulator.violations(), [""; 0]);
}

#[test]
fn the_core_speaks_tls_and_looks_at_certificates() {
    let tls = Tls::new();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let simulator = ServiceAccount::start_with(listener, Some(&tls), Account::everything());
    let token = simulator.token_for(&format!("https://{}", simulator.server.address()));
    let authority = Path::new(env!("CARGO_TARGET_TMPDIR")).join("account-authority.pem");
    fs::write(&authority, &tls.pem).unwrap();
    let provider = json!({"kind": "service_account", "library": library()});
    let secrets = [("key", "op://Zoo/Sections/username")];
    let environment = [("SSL_CERT_FILE", authority.as_path())];
    let trusting = Daemon::in_environment(&environment, "20s", &provider, &token, &secrets);
    assert_eq!(trusting.ask("key").as_deref(), Some("keeper"));
    let strict = Daemon::with("1500ms", &provider, &token, &secrets);
    assert!(strict.refusal("key").contains("cannot be reached"));
}

#[test]
fn a_one_time_password_is_made_anew_for_each_start() {
    let simulator = everything();
    let daemon = Daemon::start(&simulator.token(), &[("otp", "op://Zoo/Kinds/code?attribute=otp")]);
    let is_code = |code: String| code.len() == 6 && code.bytes().all(|digit| digit.is_ascii_digit());
    assert!(is_code(daemon.ask("otp").unwrap()));
    assert_eq!(cost(&simulator, || assert!(is_code(daemon.ask("otp").unwrap()))), 1);
}

#[test]
fn requests_are_as_few_as_documented() {
    let simulator = everything();
    let account = simulator.account();
    let vault = account.vaults.iter().find(|vault| vault.name == "Zoo").unwrap();
    let item = &vault.items[0];
    let by_id = format!("op://{}/{}/username", vault.id, item.id);
    let otp = "op://Zoo/Kinds/code?attribute=otp";
    let daemon = Daemon::start(
        &simulator.token(),
        &[
            ("name", "op://Zoo/Sections/username"),
            ("same", "op://Zoo/Sections/only"),
            ("id", &by_id),
            ("otp", otp),
        ],
    );
    assert_eq!(
        cost(&simulator, || drop(daemon.ask("name"))),
        SIGN_IN + 3,
        "first fetch: vaults, overviews, item"
    );
    assert_eq!(cost(&simulator, || drop(daemon.ask("name"))), 0, "from memory");
    assert_eq!(cost(&simulator, || drop(daemon.ask("same"))), 1, "warm, by name");
    assert_eq!(cost(&simulator, || drop(daemon.ask("id"))), 1, "warm, by id");
    let fresh = Daemon::start(&simulator.token(), &[("id", &by_id)]);
    assert_eq!(cost(&simulator, || drop(fresh.ask("id"))), SIGN_IN + 2, "first fetch by id: vault, item");
}

#[test]
fn fifty_units_at_once_cost_one_sign_in_and_one_batch_for_each_vault() {
    for (vaults, reference) in [(1, "op://One Vault/Item {}/value"), (5, "op://Vault {v}/Item {}/value")] {
        let simulator = everything();
        let secrets: Vec<(String, String)> = (0..50)
            .map(|n| {
                (
                    format!("s{n}"),
                    reference.replace("{}", &n.to_string()).replace("{v}", &(n % 5).to_string()),
                )
            })
            .collect();
        let secrets: Vec<(&str, &str)> =
            secrets.iter().map(|(name, of)| (name.as_str(), of.as_str())).collect();
        let daemon = Daemon::start(&simulator.token(), &secrets);
        let prefix = if vaults == 1 { "value" } else { "spread" };
        let requests = cost(&simulator, || {
            thread::scope(|scope| {
                for n in 0..50 {
                    let daemon = &daemon;
                    scope.spawn(move || {
                        assert_eq!(daemon.ask(&format!("s{n}")), Some(format!("{prefix}-{n}")))
                    });
                }
            });
        });
        assert_eq!(requests, SIGN_IN + 1 + 2 * vaults, "{:?}", simulator.server.requests());
    }
}

#[test]
fn each_fault_ends_in_the_refusal_that_says_what_it_is() {
    let simulator = everything();
    for (on, fault, says) in [
        ("POST /api/v3/auth/start", Fault::Status(401), "rejects the token"),
        ("POST /api/v3/auth/start", Fault::Status(403), "rejects the token"),
        ("POST /api/v3/auth/start", Fault::Limited(Some(60)), "limit on requests"),
        ("POST /api/v3/auth/start", Fault::Status(500), "out of order"),
        ("POST /api/v3/auth/start", Fault::Status(503), "out of order"),
        ("POST /api/v3/auth/start", Fault::Reset, "cannot be reached"),
        ("POST /api/v3/auth/start", Fault::Truncate, "cannot be reached"),
        ("POST /api/v3/auth/start", Fault::Garbage, "broke its contract"),
        ("POST /api/v2/auth/confirm-key", Fault::Status(401), "rejects the token"),
        ("GET /api/v2/account/keysets", Fault::Status(500), "out of order"),
        ("GET /api/v1/vaults", Fault::Limited(None), "limit on requests"),
        ("GET /api/v1/vaults", Fault::Status(401), "rejects the token"),
        ("GET /api/v1/vaults", Fault::Status(403), "may not read the account's vaults"),
        ("GET /api/v1/vaults", Fault::Reset, "cannot be reached"),
        ("GET /api/v1/vault/", Fault::Limited(None), "limit on requests"),
        ("GET /api/v1/vault/", Fault::Status(400), "out of order"),
        ("GET /api/v1/vault/", Fault::Status(403), "may not read vault \"Zoo\""),
        ("GET /api/v1/vault/", Fault::Status(404), "there is no vault \"Zoo\""),
        ("GET /api/v1/vault/", Fault::Status(408), "cannot be reached"),
        ("GET /api/v1/vault/", Fault::Status(409), "out of order"),
        ("GET /api/v1/vault/", Fault::Status(500), "out of order"),
        ("GET /api/v1/vault/", Fault::Status(502), "out of order"),
        ("GET /api/v1/vault/", Fault::Reset, "cannot be reached"),
        ("GET /api/v1/vault/", Fault::Truncate, "cannot be reached"),
        ("GET /api/v1/vault/", Fault::Garbage, "broke its contract"),
    ] {
        simulator.server.clear_faults();
        simulator.server.fault(on, usize::MAX, fault.clone());
        // What may pass is tried again until the deadline.
        let provider = json!({"kind": "service_account", "library": library()});
        let secrets = [("key", "op://Zoo/Sections/username")];
        let daemon = Daemon::with("1500ms", &provider, &simulator.token(), &secrets);
        let refusal = daemon.refusal("key");
        assert!(refusal.contains(says), "{on} {fault:?}: {refusal}");
        // And it passes when the fault does, without anybody's help.
        simulator.server.clear_faults();
        assert_eq!(daemon.ask("key").as_deref(), Some("keeper"), "after {on} {fault:?}");
    }
}

#[test]
fn an_outage_that_passes_is_waited_for() {
    let simulator = everything();
    simulator.server.fault("POST /api/v3/auth/start", 2, Fault::Reset);
    simulator.server.fault("GET /api/v1/vaults", 1, Fault::Status(502));
    assert_eq!(one(&simulator).ask("key").as_deref(), Some("keeper"));
}

#[test]
fn a_limit_is_not_run_into_twice() {
    let simulator = everything();
    simulator.server.fault("GET /api/v1/vaults", usize::MAX, Fault::Limited(Some(60)));
    let daemon = one(&simulator);
    assert_eq!(cost(&simulator, || drop(daemon.refusal("key"))), SIGN_IN);
}

#[test]
fn a_server_that_does_not_answer_costs_the_deadline_and_no_more() {
    let simulator = everything();
    simulator.server.fault("GET /api/v1/vault/", 1, Fault::Hang);
    let provider = json!({"kind": "service_account", "library": library()});
    let daemon = Daemon::with("2s", &provider, &simulator.token(), &[("key", "op://Zoo/Sections/username")]);
    let refusal = daemon.refusal("key");
    assert!(refusal.contains("did not answer within 2s") || refusal.contains("in time"), "{refusal}");
    assert_eq!(daemon.ask("key").as_deref(), Some("keeper"));
}

#[test]
fn nobody_there_is_said_to_be_unreachable() {
    let simulator = everything();
    // A port that was free a moment ago.
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let token = simulator.token_for(&format!("http://{free}"));
    let provider = json!({"kind": "service_account", "library": library()});
    let daemon = Daemon::with("1s", &provider, &token, &[("key", "op://Zoo/Sections/username")]);
    assert!(daemon.refusal("key").contains("cannot be reached"));
}

#[test]
fn what_is_not_there_or_ambiguous_is_named() {
    let simulator = everything();
    simulator.change(|account| account.vault("Secret Vault").shared = false);
    let daemon = Daemon::start(
        &simulator.token(),
        &[
            ("vault", "op://Secret Vault/x/y"),
            ("item", "op://Zoo/Nope/y"),
            ("section", "op://Zoo/Sections/nope/y"),
            ("field", "op://Zoo/Sections/nope"),
            ("file-f", "op://Zoo/Sections/nope.pem"),
            ("twin", "op://Zoo/Twin/value"),
            ("two", "op://Zoo/Sections/password"),
            ("id", "op://Zoo/aaaaaaaaaaaaaaaaaaaaaaaaaa/y"),
        ],
    );
    for (name, says) in [
        ("vault", "there is no vault \"Secret Vault\""),
        ("item", "there is no item \"Nope\" in vault \"Zoo\""),
        ("section", "item \"Sections\" has no section \"nope\""),
        ("field", "item \"Sections\" has no field \"nope\""),
        ("file-f", "item \"Sections\" has no file \"nope.pem\""),
        ("twin", "item \"Twin\" is ambiguous; use one of the ids "),
        ("two", "field \"password\" is ambiguous; use one of the ids "),
        ("id", "there is no item \"aaaaaaaaaaaaaaaaaaaaaaaaaa\""),
    ] {
        let refusal = daemon.refusal(name);
        assert!(refusal.contains(says), "{name}: {refusal}");
    }
    let account = simulator.account();
    let twins = account
        .vaults
        .iter()
        .flat_map(|vault| &vault.items)
        .filter(|item| item.title.eq_ignore_ascii_case("twin"));
    let refusal = daemon.refusal("twin");
    assert!(twins.map(|item| &item.id).all(|id| refusal.contains(id.as_str())), "{refusal}");
}

#[test]
fn an_expired_session_and_a_forgotten_device_are_signed_in_again() {
    let simulator = everything();
    let daemon = Daemon::start(
        &simulator.token(),
        &[("a", "op://Zoo/Sections/username"), ("b", "op://Zoo/Kinds/lines")],
    );
    assert!(daemon.ask("a").is_some());
    simulator.expire_sessions();
    assert!(daemon.ask("b").is_some());
    for device in [Device::Unknown, Device::Deleted] {
        simulator.set_device(device);
        assert_eq!(one(&simulator).ask("key").as_deref(), Some("keeper"));
    }
    assert_eq!(simulator.violations(), [""; 0]);
}

#[test]
fn a_replaced_token_counts_for_the_next_fetch() {
    let simulator = everything();
    let daemon = Daemon::start(
        &simulator.token(),
        &[("a", "op://Zoo/Sections/username"), ("b", "op://Zoo/Kinds/lines")],
    );
    assert!(daemon.ask("a").is_some());
    simulator.revoke(true);
    assert!(daemon.refusal("b").contains("rejects the token"));
    daemon.replace_token("");
    assert!(daemon.refusal("b").contains("no token for 1Password"));
    let other = everything();
    daemon.replace_token(&other.token());
    assert!(daemon.ask("b").is_some());
    assert!(!other.server.requests().is_empty());
}

#[test]
fn a_renamed_moved_or_replaced_item_is_looked_for_anew() {
    let simulator = everything();
    let daemon = Daemon::start(
        &simulator.token(),
        &[
            ("warm-up", "op://Zoo/Sections/username"),
            ("renamed", "op://Zoo/Sections/only"),
            ("again", "op://Zoo/Kinds/lines"),
            ("gone", "op://Zoo/Key/private key"),
        ],
    );
    assert!(daemon.ask("warm-up").is_some());
    // The name now belongs to another item: its value counts, not that of the item that once bore the name.
    simulator.change(|account| {
        account.change("Zoo", "Sections", |item| item.title = "Old sections".into());
        account.add(
            "Zoo",
            "Sections",
            &[("only", crate::simulators::account::FieldValue::Text("the new one".into()))],
        );
        let kinds = account.vault("Zoo").items.iter().position(|item| item.title == "Kinds").unwrap();
        account.vault("Zoo").items[kinds].id = crate::simulators::account::id(77);
        account.vault("Zoo").items.retain(|item| item.title != "Key");
    });
    assert_eq!(daemon.ask("renamed").as_deref(), Some("the new one"));
    assert!(daemon.ask("again").is_some());
    assert!(daemon.refusal("gone").contains("there is no item \"Key\""));
}

#[test]
fn a_forged_token_makes_us_talk_to_nobody() {
    let simulator = everything();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    for (address, says) in [
        ("https://evil.example".to_owned(), "names the host \"evil.example\""),
        // Not the loopback by its address: a name can be made to point anywhere.
        (format!("http://localhost:{port}"), "only https at its own port"),
        (format!("http://my.1password.com@127.0.0.1:{port}"), "more than a host name"),
    ] {
        let daemon = Daemon::start(&simulator.token_for(&address), &[("key", "op://Zoo/Sections/username")]);
        let refusal = daemon.refusal("key");
        assert!(refusal.contains(says), "{refusal}");
        assert!(listener.accept().is_err(), "{address} was talked to");
    }
}

#[test]
fn a_damaged_token_is_never_repeated() {
    for token in ["hunter2hunter2", "ops_hunter2hunter2", "ops_eyJodW50ZXIyIjoiaHVudGVyMiJ9"] {
        let daemon = Daemon::start(token, &[("key", "op://Zoo/Sections/username")]);
        assert!(daemon.refusal("key").contains("the token is"));
        assert!(!daemon.log().contains("hunter2") && !daemon.log().contains(&token[5..]));
    }
}

#[test]
fn a_core_that_is_missing_or_something_else_is_said_to_be() {
    let simulator = everything();
    let with = |library: &str| {
        let provider = json!({"kind": "service_account", "library": library});
        Daemon::with("20s", &provider, &simulator.token(), &[("key", "op://Zoo/Sections/username")])
            .refusal("key")
    };
    assert!(
        with("/nowhere/core.so").contains("not at /nowhere/core.so; install it with `opnix core install`")
    );
    assert!(with("/etc/hostname").contains("/etc/hostname cannot be loaded"));
    let libc = fs::read_to_string("/proc/self/maps").unwrap();
    let libc = libc
        .lines()
        .find_map(|line| line.split_whitespace().find(|word| word.ends_with("/libc.so.6")))
        .unwrap();
    let refusal = with(libc);
    assert!(refusal.contains("not the version") && refusal.contains("opnix core install"), "{refusal}");
}

#[test]
fn the_core_lives_in_a_process_that_holds_nothing_it_should_not() {
    let simulator = everything();
    let daemon = one(&simulator);
    assert!(daemon.ask("key").is_some());
    let [child] = daemon.children()[..] else { panic!("one child") };
    let read = |what: &str| fs::read_to_string(format!("/proc/{child}/{what}")).unwrap();
    assert_eq!(read("cmdline"), "/proc/self/exe\0fetch\0");
    assert!(!read("environ").contains("ops_"));
    assert!(read("status").contains("NoNewPrivs:\t1"));
    assert!(
        read("limits").lines().any(|line| line.starts_with("Max core file size") && line.contains(" 0 "))
    );
    assert!(read("maps").contains("libop_uniffi_core.so"));
    let maps = fs::read_to_string(format!("/proc/{}/maps", daemon.pid())).unwrap();
    assert!(!maps.contains("libop_uniffi_core.so"), "the service itself never loads it");
    // Its socket to the service, nothing printed, and what it opened by itself: a connection and an event queue.
    let theirs = |fd: &str| fs::read_link(format!("/proc/{child}/fd/{fd}")).unwrap().display().to_string();
    let ours: BTreeSet<String> = fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
        .unwrap()
        .map(|fd| fs::read_link(fd.unwrap().path()).unwrap().display().to_string())
        .filter(|target| target.starts_with("socket:") || target.starts_with("pipe:"))
        .collect();
    for fd in fs::read_dir(format!("/proc/{child}/fd")).unwrap() {
        let name = fd.unwrap().file_name().into_string().unwrap();
        assert!(!ours.contains(&theirs(&name)), "descriptor {name} is the service's");
    }
    assert_eq!((theirs("1").as_str(), theirs("2").as_str()), ("/dev/null", "/dev/null"));
}

#[test]
fn a_core_that_dies_is_an_error_of_one_fetch_at_the_most() {
    let simulator = everything();
    let daemon = Daemon::start(
        &simulator.token(),
        &[("a", "op://Zoo/Sections/username"), ("b", "op://Zoo/Kinds/lines")],
    );
    assert!(daemon.ask("a").is_some());
    let kill = |pid: u32| {
        assert!(std::process::Command::new("kill").arg("-9").arg(pid.to_string()).status().unwrap().success())
    };
    kill(daemon.children()[0]);
    assert!(daemon.ask("b").is_some(), "idle when it died: nobody notices");
    let other = one(&simulator);
    simulator.server.fault("GET /api/v1/vault/", usize::MAX, Fault::Hang);
    thread::scope(|scope| {
        let refusal = scope.spawn(|| other.refusal("key"));
        // One death is made up for; a core that dies every time is a failure.
        while !refusal.is_finished() {
            other.children().into_iter().for_each(kill);
            thread::sleep(Duration::from_millis(50));
        }
        let refusal = refusal.join().unwrap();
        assert!(refusal.contains("asks 1Password failed") && refusal.contains("signal: 9"), "{refusal}");
    });
    simulator.server.clear_faults();
    assert!(other.ask("key").is_some());
}

#[test]
fn after_a_reload_one_request_tells_whether_values_still_hold() {
    let simulator = everything();
    let secrets = [
        ("a", "op://Zoo/Sections/username"),
        ("b", "op://Zoo/Kinds/lines"),
        ("c", "op://One Vault/Item 7/value"),
    ];
    let daemon = Daemon::start(&simulator.token(), &secrets);
    let ask_all = || secrets.map(|(name, _)| daemon.ask(name).unwrap());
    let before = ask_all();
    daemon.reload();
    assert_eq!(
        cost(&simulator, || assert_eq!(ask_all(), before)),
        1,
        "nothing changed: {:?}",
        simulator.server.requests()
    );
    simulator.change(|account| account.set("Zoo", "Sections", "username", "somebody else"));
    daemon.reload();
    // The versions; then the items of the changed vault, and of these the two that are asked for.
    assert_eq!(
        cost(&simulator, || assert_eq!(ask_all()[0], "somebody else")),
        4,
        "{:?}",
        simulator.server.requests()
    );
}
