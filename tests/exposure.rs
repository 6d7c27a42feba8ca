//! What the compiler does not check: who sees values, where unsafe code is, and what must agree between files.

// A test that panics has failed, which is what it should do then.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The sources without their tests, by path below `src/`.
fn sources() -> BTreeMap<String, String> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut paths = Vec::new();
    walk(&root().join("src"), &mut paths);
    let name = |path: &Path| path.strip_prefix(root().join("src")).unwrap().display().to_string();
    let code =
        |path: &Path| fs::read_to_string(path).unwrap().split("#[cfg(test)]").next().unwrap().to_owned();
    paths.iter().map(|path| (name(path), code(path))).collect()
}

fn users_of(what: &str) -> Vec<(String, usize)> {
    let sources = sources().into_iter();
    sources.map(|(name, code)| (name, code.matches(what).count())).filter(|(_, count)| *count > 0).collect()
}

fn shipped(file: &str) -> String {
    fs::read_to_string(root().join("systemd").join(file)).unwrap()
}

#[test]
fn values_are_exposed_where_they_are_rendered_passed_on_and_answered_and_nowhere_else() {
    let expected = [
        // Values, to be sealed.
        // Values, for a shell.
        ("cli/from_opnix/env.rs", 1),
        // Values, into files, and into keyed hashes.
        ("mirror/install.rs", 1),
        ("mirror/state.rs", 1),
        // The token, into the header of requests.
        ("providers/ask/connect.rs", 1),
        // The token, into the settings of the core.
        ("providers/ask/service_account/client.rs", 2),
        // The token, to be looked through.
        ("providers/ask/service_account/token.rs", 1),
        // The token: compared with that of the child that is kept, and passed on to it.
        ("providers/child/mod.rs", 3),
        // A value to the service, which is the only one that the child talks to.
        ("providers/child/process.rs", 1),
        ("server/answer.rs", 2),
        ("store/sealed.rs", 1),
        ("template.rs", 1),
    ];
    assert_eq!(users_of(".expose()"), expected.map(|(file, count)| (file.to_owned(), count)));
}

#[test]
fn unsafe_code_is_in_two_files() {
    let homes = ["kernel.rs", "providers/ask/service_account/core.rs"];
    for what in ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"] {
        assert!(users_of(what).iter().all(|(file, _)| homes.contains(&file.as_str())), "{what}");
    }
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

#[test]
fn the_unit_files_and_the_program_agree() {
    let sources = sources();
    assert!(shipped("opnix.service").contains("FileDescriptorStoreMax=4096"));
    assert_eq!(opnix::internals::STORE_MAX, 4096);
    assert!(shipped("opnix.socket").contains("ListenStream=/run/opnix/creds.sock"));
    assert!(sources["cli/mod.rs"].contains("\"/run/opnix/creds.sock\""));
    assert!(shipped("opnix.socket").contains("FileDescriptorName=creds\n"));
    assert!(sources["systemd/activation.rs"].contains("CREDENTIALS: &str = \"creds\""));
    assert!(
        shipped("opnix-control.socket")
            .contains(&format!("ListenStream={}\n", opnix::internals::CONTROL_SOCKET))
    );
    assert!(shipped("opnix-control.socket").contains("FileDescriptorName=control\n"));
    assert!(sources["systemd/activation.rs"].contains("CONTROL: &str = \"control\""));
    let key = opnix::internals::KEY_CREDENTIAL;
    assert!(shipped("opnix.service").contains(&format!("LoadCredentialEncrypted={key}\n")));
}

#[test]
fn every_kind_of_record_is_in_the_catalog() {
    let after = |text: &str, prefix: &str| -> BTreeSet<String> {
        text.match_indices(prefix).map(|(at, _)| text[at + prefix.len()..][..32].to_owned()).collect()
    };
    // Wherever they stand: in a macro, or as a constant.
    let ids = |code: &String| after(&code.replace("\"8e3f0c5f", "\"id 8e3f0c5f"), "\"id ");
    let used: BTreeSet<String> = sources().values().flat_map(ids).collect();
    assert_eq!(used, after(&shipped("opnix.catalog"), "\n-- "));
    assert_eq!(used.len(), 18);
}
