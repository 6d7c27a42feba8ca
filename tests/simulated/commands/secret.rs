//! `opnix secret`: files, written once.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use super::{AWKWARD, Place, mode, text};
use crate::simulators::http::Fault;

#[test]
fn secret_writes_the_files_of_an_opnix_configuration() {
    let place = Place::new();
    let me = fs::metadata(&place.directory).unwrap();
    let owner = json!(me.uid().to_string());
    let group = json!(me.gid().to_string());
    let link = place.path("link");
    place.configure(json!({
        "pathTemplate": "{service}/{name}", "defaults": {"service": "web"},
        "secrets": [
            {"reference": "op://Vault/API/token", "path": "api/token", "owner": owner, "group": group, "mode": "0400", "symlinks": [link]},
            {"reference": "op://Vault/Odd/text", "variables": {"name": "odd"}, "owner": owner, "group": group},
            {"reference": "op://Vault/API/cert.pem", "kind": "file", "path": "cert", "owner": owner, "group": group}],
        "templates": [{"name": "env", "path": "app.env", "owner": owner, "group": group,
            "template": "A={{ op://Vault/API/token }}\n"}]}));
    let output = place.run(&["secret", "-config", "secrets.json", "-output", "out", "-token-file", "token"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stdout), "wrote 4 of 4 files\n");
    let there = fs::File::open(place.path("out")).unwrap();
    let on_disk = !opnix::internals::in_memory(&there).unwrap();
    assert_eq!(text(&output.stderr).contains("is on a disk: the secrets stay there in plain text"), on_disk);
    let out = place.path("out");
    assert_eq!(fs::read_to_string(out.join("api/token")).unwrap(), "canary-token");
    assert_eq!(mode(&out.join("api/token")), 0o400);
    assert_eq!(fs::read_to_string(out.join("web/odd")).unwrap(), AWKWARD);
    assert_eq!(mode(&out.join("web/odd")), 0o600);
    assert_eq!(fs::read(out.join("cert")).unwrap(), b"\x00\xffbytes");
    assert_eq!(fs::read_to_string(out.join("app.env")).unwrap(), "A=canary-token\n");
    assert_eq!(fs::read_to_string(link).unwrap(), "canary-token");
}

#[test]
fn exit_codes_are_those_of_opnix() {
    let place = Place::new();
    let me = fs::metadata(&place.directory).unwrap();
    let file = |item: &str, path: &str| {
        json!({"reference": format!("op://Vault/{item}/token"), "path": path,
            "owner": me.uid().to_string(), "group": me.gid().to_string()})
    };
    let secret = || place.run(&["secret", "-output", "out", "-token-file", "token"]);
    place.configure(json!({"secrets": [file("API", "there"), file("Gone", "gone")]}));
    let output = secret();
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    assert!(text(&output.stderr).contains("there is no item \"Gone\""), "{output:?}");
    assert!(place.path("out/there").exists() && !place.path("out/gone").exists());

    place.configure(json!({"secrets": [file("API", "there")]}));
    place.simulator.server.fault("GET /api/v1/vaults", 1, Fault::Limited(None));
    assert_eq!(secret().status.code(), Some(75));
    fs::write(place.path("secrets.json"), "{").unwrap();
    assert_eq!(secret().status.code(), Some(1));
    place.configure(json!({"secrets": [file("API", "there")]}));
    fs::remove_file(place.path("token")).unwrap();
    let output = secret();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("there is no token"), "{output:?}");
}

#[test]
fn nothing_is_written_through_a_symlink_or_over_a_directory_or_for_nobody() {
    let place = Place::new();
    let me = fs::metadata(&place.directory).unwrap();
    let (uid, gid) = (me.uid().to_string(), me.gid().to_string());
    let file = |path: &str, owner: &str| json!({"reference": "op://Vault/API/token", "path": path, "owner": owner, "group": gid});
    fs::create_dir_all(place.path("out/taken")).unwrap();
    fs::create_dir_all(place.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(place.path("elsewhere"), place.path("out/astray")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", place.path("out/link")).unwrap();
    place.configure(json!({"secrets": [
        file("astray/token", &uid), file("taken", &uid), file("nobody", "no-such-user"), file("link", &uid)]}));
    let output = place.run(&["secret", "-output", "out", "-token-file", "token"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = text(&output.stderr);
    for words in [
        "which is a symlink or not a directory: name the real path",
        "there is a directory of that name",
        "there is no user \"no-such-user\"",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(fs::read_dir(place.path("elsewhere")).unwrap().count(), 0);
    // A link in the place of the file is replaced, not followed.
    assert!(!fs::symlink_metadata(place.path("out/link")).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(place.path("out/link")).unwrap(), "canary-token");
    assert!(!said.contains("canary"));
}

/// Of somebody else's link: `owners::root_writes_past_no_link_of_somebody_else` of the system tests.
#[test]
fn secret_writes_past_ones_own_links_and_nowhere_that_cannot_be_told() {
    let place = Place::new();
    let me = fs::metadata(&place.directory).unwrap();
    let (owner, group) = (me.uid().to_string(), me.gid().to_string());
    place.configure(json!({"secrets": [
        {"reference": "op://Vault/API/token", "path": "token", "owner": owner, "group": group}]}));
    fs::create_dir(place.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", place.path("link")).unwrap();
    let refused = place.run(&["secret", "-output", "link/../link", "-token-file", "token"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(text(&refused.stderr).contains("name the real one"), "{refused:?}");
    for (output, at) in [
        ("link", "elsewhere/token"),
        ("link/below", "elsewhere/below/token"),
        ("new/below", "new/below/token"),
    ] {
        let written = place.run(&["secret", "-output", output, "-token-file", "token"]);
        assert_eq!(written.status.code(), Some(0), "{written:?}");
        assert_eq!(fs::read_to_string(place.path(at)).unwrap(), "canary-token");
    }
}
