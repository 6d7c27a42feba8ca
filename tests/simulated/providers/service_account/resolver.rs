//! The core's own resolver of references is the judge of ours.

use std::time::{Duration, Instant};

use opnix::internals::Core;
use serde_json::json;

use super::everything;
use crate::daemon::{Daemon, library};

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
            "op://Zoo/Kinds/loose",
            "op://Zoo/Kinds//loose",
            "op://Zoo/Kinds/add more/loose",
            "op://Zoo/Kinds/date?attribute=otp",
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
