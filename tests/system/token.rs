//! The token: where the service reads it, for nobody else to read, and a new one in its place.

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::onepassword::{TOKEN, account, entry, one_password};
use crate::opnix::*;
use crate::simulators::service_account::ServiceAccount;

const ITEMS: [(&str, &str); 1] = [("OpenAI", "credential")];

/// One more account, whose token is in no file yet.
fn another(machine: &Machine) -> ServiceAccount {
    ServiceAccount::start(machine.listen(), account(&ITEMS))
}

/// A unit for each account, so that each has to ask anew.
fn units_that_wait_for_their_token(machine: &Machine) {
    let waits = |number: usize| {
        let mut entry = entry(&format!("key-{number}"), "OpenAI/credential", "");
        entry["units"] = json!([{"unit": format!("new-token-{number}.service"), "deadline": "5m"}]);
        // What another account had would not do.
        entry["cache"] = json!("never");
        consumer(machine, &format!("new-token-{number}.service"), &format!("key-{number}"), "");
        entry
    };
    let secrets: Vec<Value> = (0..7).map(waits).collect();
    machine.run(&["rm", "-f", TOKEN]).ok();
    set_up_with(machine, &json!({"secrets": secrets}));
}

pub fn a_new_token_is_taken_by_itself_however_it_is_written(machine: &Machine) {
    let first = one_password(machine, account(&ITEMS));
    units_that_wait_for_their_token(machine);
    let mut asked: Vec<ServiceAccount> = Vec::new();
    // A start with this token, which is there only after the start began.
    let mut started = |number: usize, account: ServiceAccount, write: &dyn Fn(&str)| {
        let unit = format!("new-token-{number}.service");
        for before in &asked {
            before.revoke(true);
        }
        machine.systemctl(&["start", "--no-block", &unit]).ok();
        let waits = || !machine.journal(&[&kind("14"), &format!("OPNIX_UNIT={unit}")]).is_empty();
        machine.wait(&format!("{unit} to wait for its token"), waits, LONG);
        write(&account.token());
        machine.wait(&unit, || machine.show(&unit, "ActiveState") == "active", LONG);
        assert_eq!(found(machine, &unit), value("OpenAI").into_bytes());
        assert!(!account.server.requests().is_empty(), "{number}");
        asked.push(account);
    };
    started(0, first, &|token| machine.write(TOKEN, token, "0600"));
    assert!(machine.journal_text().contains("there is no token for 1Password"));
    // In place.
    started(1, another(machine), &|token| {
        machine.sh(&format!("printf %s {token} >{TOKEN}")).ok();
    });
    // Slowly, as an editor on a bad day.
    started(2, another(machine), &|token| {
        let (half, rest) = token.split_at(token.len() / 2);
        machine.sh(&format!("printf %s {half} >{TOKEN}; sleep 7; printf %s {rest} >>{TOKEN}")).ok();
    });
    // By rename.
    started(3, another(machine), &|token| {
        machine.write("/etc/opnix/.new", token, "0600");
        machine.run(&["mv", "/etc/opnix/.new", TOKEN]).ok();
    });
    // A link to another place.
    started(4, another(machine), &|token| {
        machine.write("/root/token", token, "0600");
        machine.run(&["ln", "-sfn", "/root/token", TOKEN]).ok();
    });
    // A mount over it, and then what is mounted.
    machine.sh(&format!("rm {TOKEN}; echo nothing >{TOKEN}")).ok();
    started(5, another(machine), &|token| {
        machine.write("/persist/token", token, "0600");
        machine.run(&["mount", "--bind", "/persist/token", TOKEN]).ok();
    });
    started(6, another(machine), &|token| {
        machine.sh(&format!("printf %s {token} >/persist/token")).ok();
    });
    machine.sh(&format!("umount {TOKEN}; rm -r {TOKEN} /root/token /persist")).ok();
    let restarts = machine.show("opnix.service", "NRestarts");
    assert_eq!(restarts, "0", "the service was not restarted for it");
}

pub fn a_reload_takes_the_new_token_or_fails_and_says_why(machine: &Machine) {
    let first = one_password(machine, account(&ITEMS));
    let one = ["one.service", "two.service", "three.service"];
    let mut key = entry("key", "OpenAI/credential", "");
    key["units"] = json!(one);
    key["cache"] = json!("never");
    for unit in one {
        consumer(machine, unit, "key", "");
    }
    set_up_with(machine, &json!({"secrets": [key]}));
    machine.systemctl(&["start", "one.service"]).ok();

    // Nobody else brings it meanwhile.
    machine.systemctl(&["stop", "opnix-token.service"]).ok();
    for (text, why, found) in [
        ("ops_made-up", "the token is damaged", "the token is damaged"),
        ("", "it is not there any more, or empty", "is empty"),
    ] {
        machine.write(TOKEN, text, "0600");
        machine.systemctl(&["reload", "opnix.service"]).fails();
        let told = machine.journal_text();
        assert!(told.contains(&format!("{TOKEN}: the token is not taken")) && told.contains(why), "{told}");
        let status = machine.run(&["opnix", "status"]);
        assert!(status.code == Some(78) && status.text().contains("the one in its file is not in force"));
        let doctor = machine.run(&["opnix", "doctor"]);
        assert!(doctor.code == Some(69) && doctor.text().contains(found));
        machine.systemctl(&["restart", "one.service"]).ok();
    }
    // One that is gone is not there to be taken; without it the configuration is reloaded all the same.
    machine.run(&["rm", TOKEN]).ok();
    machine.systemctl(&["reload", "opnix.service"]).fails();
    machine.systemctl(&["restart", "one.service"]).ok();

    let second = another(machine);
    machine.write(TOKEN, second.token(), "0600");
    first.revoke(true);
    machine.systemctl(&["reload", "opnix.service"]).ok();
    machine.systemctl(&["start", "two.service"]).ok();
    assert!(!second.server.requests().is_empty());
    assert_eq!(machine.run(&["opnix", "status"]).code, Some(0));

    // Where the service itself sees nothing.
    let third = another(machine);
    let drop_in = "[Service]\nLoadCredential=\nLoadCredential=token:/root/.config/op/token\n";
    machine.unit("opnix.service.d/token.conf", drop_in);
    machine.write("/root/.config/op/token", third.token(), "0600");
    second.revoke(true);
    machine.systemctl(&["reload", "opnix.service"]).ok();
    machine.systemctl(&["start", "three.service"]).ok();
    assert!(!third.server.requests().is_empty());
    machine.sh(&format!("rm -r /run/systemd/system/opnix.service.d/token.conf /root/.config {TOKEN}")).ok();
    machine.systemctl(&["daemon-reload"]).ok();
}

/// What systemd hands to the service.
fn loaded(machine: &Machine) -> String {
    machine.systemctl(&["daemon-reload"]).ok();
    machine.systemctl(&["restart", "opnix.service"]).ok();
    machine.sh("cat /run/credentials/opnix.service/token").ok()
}

fn set(machine: &Machine, token: &str) {
    machine.sh(&format!("printf '%s\\n' {token} | opnix token set")).ok();
}

pub fn the_token_is_stored_where_the_service_reads_it(machine: &Machine) {
    set_up(machine, &[secret("key", &["key.service"])], &[("key", value("key"))], "30s");
    set(machine, "first-made-up-token");
    assert_eq!(loaded(machine), "first-made-up-token");
    assert_eq!(machine.sh("stat -c '%a %u' /etc/opnix/token").ok().trim(), "600 0");

    // As the NixOS module writes it, with any `tokenFile`.
    let drop_in = "[Service]\nLoadCredential=\nLoadCredential=token:/run/elsewhere/token\n";
    machine.write("/run/systemd/system/opnix.service.d/token.conf", drop_in, "0644");
    machine.systemctl(&["daemon-reload"]).ok();
    set(machine, "second-made-up-token");
    assert_eq!(loaded(machine), "second-made-up-token");
    assert_eq!(machine.sh("cat /etc/opnix/token").ok(), "first-made-up-token");

    // What somebody put in its way is not written to.
    machine
        .sh("touch /run/victim; chmod 0666 /run/victim; cd /run/elsewhere; rm -f token; \
        for link in token token.new .token.opnix-new; do ln -s /run/victim $link; done")
        .ok();
    set(machine, "third-made-up-token");
    assert_eq!(loaded(machine), "third-made-up-token");
    assert_eq!(machine.sh("cat /run/victim").ok(), "");
    assert_eq!(machine.sh("stat -c '%a %F' /run/elsewhere/token").ok().trim(), "600 regular file");

    let sealed = "[Service]\nLoadCredential=\nLoadCredentialEncrypted=token:/run/elsewhere/token.cred\n";
    machine.write("/run/systemd/system/opnix.service.d/token.conf", sealed, "0644");
    machine.systemctl(&["daemon-reload"]).ok();
    let told = machine.sh("! echo fourth-made-up-token | opnix token set 2>&1").ok();
    assert!(told.contains("systemd-creds encrypt --name=token - /run/elsewhere/token.cred"), "{told}");
    machine.sh("rm -r /run/systemd/system/opnix.service.d/token.conf /run/elsewhere /run/victim /etc/opnix/token").ok();
    machine.systemctl(&["daemon-reload"]).ok();
    stop(machine);
}
