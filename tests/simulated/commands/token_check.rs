//! `opnix token check`, which tries the token, and `opnix token show`, which asks nobody but the running service.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;
use std::time::Instant;

use serde_json::{Value, json};

use super::{Place, text};
use crate::simulators::account::{Account, FieldValue};
use crate::simulators::connect::{Connect, TOKEN};
use crate::simulators::http::Fault;

const EMAIL: &str = "made-up@1passwordserviceaccounts.com";

impl Place {
    fn with_provider(provider: Value) -> Self {
        let place = Self::new();
        let secrets =
            json!([{"name": "key", "reference": "op://Vault/API/token", "units": ["test.service"]}]);
        place.configure(json!({"secrets": secrets}));
        if !provider.is_null() {
            let config = json!({"provider": provider, "secrets": secrets});
            fs::write(place.path("secrets.json"), config.to_string()).unwrap();
        }
        fs::set_permissions(place.path("token"), fs::Permissions::from_mode(0o600)).unwrap();
        place
    }

    fn token(&self, action: &str, more: &[&str]) -> Output {
        let mut arguments = vec!["token", action, "--path", "token", "--config", "secrets.json"];
        arguments.extend(more);
        self.run(&arguments)
    }
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn a_good_token_is_accepted_and_its_vaults_are_named() {
    let place = Place::with_provider(Value::Null);
    let output = place.token("check", &[]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for line in [
        format!("accepted: the token of {EMAIL} at 127.0.0.1:"),
        "it may read 1 vault:\n".into(),
        "  \"Vault\"\n".into(),
        "whether it may also write is not known: 1Password's SDK does not tell".into(),
    ] {
        assert!(said.contains(&line), "{line}: {said}");
    }
    let asked = place.simulator.server.requests();
    assert_eq!(asked.len(), 6, "{asked:?}");
    assert!(said.contains("(6 requests)"), "{said}");
    assert!(asked.iter().all(|request| !request.contains("item")), "{asked:?}");
    assert!(place.simulator.violations().is_empty());
    let told = json_of(&place.token("check", &["--json"]));
    let vault = &place.simulator.account().vaults[0].id;
    assert_eq!(told["vaults"], json!([{"id": vault, "title": "Vault"}]));
    assert_eq!(
        (&told["accepted"], &told["may_write"], &told["account"]),
        (&json!(true), &Value::Null, &json!(EMAIL))
    );
}

#[test]
fn what_1password_rejects_and_what_cannot_be_found_out_are_not_the_same() {
    let place = Place::with_provider(Value::Null);
    let fails = |says: &str, accepted: Value, kind: &str| {
        let output = place.token("check", &[]);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(69) && said.contains(says), "{says}: {output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        let output = place.token("check", &["--json"]);
        let told = json_of(&output);
        assert_eq!(output.status.code(), Some(69));
        assert_eq!((&told["accepted"], &told["error"]["kind"]), (&accepted, &json!(kind)), "{told}");
        assert_eq!(told["vaults"], Value::Null);
    };
    place.simulator.revoke(true);
    fails("1Password rejects the token", json!(false), "token-rejected");
    place.simulator.revoke(false);
    let server = &place.simulator.server;
    server.fault("", usize::MAX, Fault::Status(429));
    fails("could not be found out: 1Password's limit on requests is reached", Value::Null, "rate-limited");
    server.clear_faults();
    server.fault("", usize::MAX, Fault::Status(503));
    fails("could not be found out: 1Password is out of order", Value::Null, "out-of-order");
    server.clear_faults();
    // Nobody listens there.
    let token = place.simulator.token_for("http://127.0.0.1:1");
    fs::write(place.path("token"), token).unwrap();
    fails("could not be found out: 1Password cannot be reached", Value::Null, "unreachable");
}

#[test]
fn who_does_not_answer_is_not_waited_for_without_end() {
    let place = Place::with_provider(Value::Null);
    place.simulator.server.fault("POST /api/v3/auth/start", usize::MAX, Fault::Hang);
    let begin = Instant::now();
    let output = place.token("check", &[]);
    assert!(begin.elapsed().as_secs() < 50, "{:?}", begin.elapsed());
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(69) && said.contains("could not be found out"), "{output:?}");
}

#[test]
fn a_connect_token_is_tried_at_the_configured_server() {
    let mut account = Account::empty();
    account.add("Infrastructure \"Secrets\"", "API", &[("token", FieldValue::Concealed("canary".into()))]);
    let connect = Connect::local(account);
    let place = Place::with_provider(json!({"kind": "connect", "host": connect.url()}));
    fs::write(place.path("token"), TOKEN).unwrap();
    let output = place.token("check", &[]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        said.contains(&format!("the token for the Connect server {}, in token (1 request)", connect.url())),
        "{said}"
    );
    assert!(
        said.contains(r#""Infrastructure \"Secrets\"""#) && said.contains("a Connect server does not tell"),
        "{said}"
    );
    assert_eq!(connect.server.requests().len(), 1);
    fs::write(place.path("token"), TOKEN.replace("signature", "other")).unwrap();
    let output = place.token("check", &[]);
    assert!(output.status.code() == Some(69), "{output:?}");
    assert!(text(&output.stderr).contains("rejects the token"), "{output:?}");
}

#[test]
fn the_file_itself_is_looked_at() {
    let place = Place::with_provider(Value::Null);
    fs::set_permissions(place.path("token"), fs::Permissions::from_mode(0o644)).unwrap();
    let output = place.token("check", &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("all users can get at token (mode 0644)"), "{output:?}");
    for (content, why) in [
        ("", "token is empty"),
        ("hunter2", "it does not start with `ops_`"),
        (TOKEN, "it is the token of a Connect server"),
    ] {
        fs::write(place.path("token"), content).unwrap();
        for action in ["check", "show"] {
            let output = place.token(action, &[]);
            let said = text(&output.stderr);
            assert!(
                output.status.code() == Some(69) && said.contains(why),
                "{action} {content:?}: {output:?}"
            );
            assert!(!said.contains("hunter2"));
        }
    }
    fs::remove_file(place.path("token")).unwrap();
    assert_eq!(place.token("check", &[]).status.code(), Some(69));
    assert_eq!(place.token("show", &[]).status.code(), Some(69));
    assert!(place.simulator.server.requests().len() <= 6, "nothing is asked with what is not a token");
}

#[test]
fn show_tells_what_is_known_and_nothing_of_the_secret() {
    let place = Place::with_provider(Value::Null);
    let output = place.token("show", &[]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for line in [
        "file       token, plain\n",
        ", mode 0600\n",
        "kind       service account\n",
        &format!("account    {EMAIL}\n"),
        "in force   not known: the service cannot be asked\n",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let json = text(&place.token("show", &["--json"]).stdout);
    let token = place.simulator.token();
    for said in [said, json] {
        assert!(token.as_bytes()[4..].windows(8).all(|piece| !said.contains(str::from_utf8(piece).unwrap())));
        for secret in ["A3-ABCDEF", "srpX", "muk"] {
            assert!(!said.contains(secret), "{said}");
        }
    }
    assert!(place.simulator.server.requests().is_empty());
}
