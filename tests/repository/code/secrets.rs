//! Who sees values, and that nothing shows them by itself.

use super::{sources, users_of};

#[test]
fn values_are_exposed_where_they_are_rendered_passed_on_and_answered_and_nowhere_else() {
    let expected = [
        // Values, for a shell.
        ("cli/from_opnix/env.rs", 1),
        // The token, into the pipe to the service.
        ("cli/token/bring.rs", 1),
        // The token, to be looked through.
        ("cli/token/known.rs", 3),
        // The token, into its file, or through a pipe to systemd-creds.
        ("cli/token/set.rs", 2),
        // Values: compared with files, written to them, and hashed with a key.
        ("mirror/install.rs", 2),
        ("mirror/pass.rs", 1),
        // The token, into the header of requests.
        ("providers/ask/connect.rs", 1),
        // The token, into the settings of the core, and a file's bytes.
        ("providers/ask/service_account/client.rs", 2),
        // The token, to be looked through.
        ("providers/ask/service_account/token.rs", 1),
        // The token: compared with that of the child that is kept, and passed on to it.
        ("providers/child/connection.rs", 1),
        ("providers/child/mod.rs", 3),
        // A value to the service, which is the only one that the child talks to.
        ("providers/child/process.rs", 1),
        // The token in force, once more for whoever asks with it.
        ("providers/child/token.rs", 1),
        // Values, to units.
        ("server/answer.rs", 2),
        // Values, hashed with a key.
        ("server/given.rs", 2),
        // Values, to be sealed.
        ("store/sealed.rs", 1),
        // Values, hashed with a key that nobody knows.
        ("store/versions.rs", 1),
        // Values, into a template.
        ("template.rs", 1),
    ];
    assert_eq!(users_of(".expose()"), expected.map(|(file, count)| (file.to_owned(), count)));
}

#[test]
fn a_secret_cannot_be_copied_or_shown() {
    let code = &sources()["secret.rs"];
    for trait_name in ["Clone", "Display", "Serialize", "Deref", "AsRef"] {
        assert!(!code.contains(&format!("{trait_name} for Secret")), "{trait_name}");
    }
    let secret = code.split("pub struct Secret(").next().unwrap();
    assert!(!secret.lines().last().unwrap_or_default().contains("derive"));
}
