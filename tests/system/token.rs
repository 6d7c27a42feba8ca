//! The token: where the service reads it, for nobody else to read, and a new one in its place.

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::onepassword::{TOKEN, account, entry, one_password};
use crate::opnix::*;
use crate::simulators::connect;
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

fn set(machine: &Machine, token: &str) -> String {
    machine.sh(&format!("printf '%s\\n' {token} | opnix token set")).ok()
}

/// A token of a Connect server, which has this in it.
fn made_up(what: &str) -> String {
    connect::TOKEN.replace("made-up", what)
}

pub fn the_token_is_stored_where_the_service_reads_it(machine: &Machine) {
    set_up(machine, &[secret("key", &["key.service"])], &[("key", value("key"))], "30s");
    let told = set(machine, &made_up("first"));
    assert!(told.contains("opnix.service has taken it") || told.contains("once it starts"), "{told}");
    assert_eq!(loaded(machine), made_up("first"));
    assert_eq!(machine.sh("stat -c '%a %u' /etc/opnix/token").ok().trim(), "600 0");

    // As the NixOS module writes it, with any `tokenFile`.
    let drop_in = "[Service]\nLoadCredential=\nLoadCredential=token:/run/elsewhere/token\n";
    machine.write("/run/systemd/system/opnix.service.d/token.conf", drop_in, "0644");
    machine.systemctl(&["daemon-reload"]).ok();
    set(machine, &made_up("second"));
    assert_eq!(loaded(machine), made_up("second"));
    assert_eq!(machine.sh("cat /etc/opnix/token").ok(), made_up("first"));

    // What somebody put in its way is not written to.
    machine
        .sh("touch /run/victim; chmod 0666 /run/victim; cd /run/elsewhere; rm -f token; \
        for link in token token.new .token.opnix-new; do ln -s /run/victim $link; done")
        .ok();
    set(machine, &made_up("third"));
    assert_eq!(loaded(machine), made_up("third"));
    assert_eq!(machine.sh("cat /run/victim").ok(), "");
    assert_eq!(machine.sh("stat -c '%a %F' /run/elsewhere/token").ok().trim(), "600 regular file");

    let sealed = "[Service]\nLoadCredential=\nLoadCredentialEncrypted=token:/run/elsewhere/token.cred\n";
    machine.write("/run/systemd/system/opnix.service.d/token.conf", sealed, "0644");
    assert_eq!(loaded(machine).trim(), "", "without the file it starts all the same");
    let told = set(machine, &made_up("fourth"));
    assert!(told.contains(", sealed, in /run/elsewhere/token.cred"), "{told}");
    assert_eq!(loaded(machine), made_up("fourth"));
    machine.sh("! grep -F fourth /run/elsewhere/*").ok();
    machine.sh("rm -r /run/systemd/system/opnix.service.d/token.conf /run/elsewhere /run/victim /etc/opnix/token").ok();
    machine.systemctl(&["daemon-reload"]).ok();
    stop(machine);
}

/// `opnix token set`, with the token in memory only, and not in the arguments of any process.
fn give(machine: &Machine, token: &str, how: &str) -> String {
    machine.write("/run/given", format!("{token}\n"), "0600");
    let told = machine.sh(&format!("opnix token set {how} </run/given; rm /run/given")).ok();
    assert!(!told.contains(&token[4..24]), "{told}");
    told
}

/// Neither on disk, nor in the journal, nor where other processes could see it.
fn is_nowhere_in_plain(machine: &Machine, token: &str) {
    let piece = &token[100..160];
    machine.write("/run/piece", piece, "0600");
    // The pattern comes from a file, or it would be in the arguments itself.
    let places =
        "/etc /root /home /tmp /var/lib /var/tmp /usr/local /proc/[0-9]*/cmdline /proc/[0-9]*/environ";
    let found = machine.sh(&format!("grep -rlsaF -f /run/piece {places} || true"));
    machine.sh("rm /run/piece").ok();
    assert_eq!(found.ok().trim(), "");
    assert!(!machine.journal_text().contains(piece), "the token in the journal");
}

pub fn a_token_is_sealed_and_rotated_without_being_in_plain_anywhere(machine: &Machine) {
    let first = one_password(machine, account(&ITEMS));
    let units = ["sealed-token-0.service", "sealed-token-1.service", "sealed-token-2.service"];
    let mut key = entry("key", "OpenAI/credential", "");
    key["units"] = json!(units);
    key["cache"] = json!("never");
    for unit in units {
        consumer(machine, unit, "key", "");
    }
    set_up_with(machine, &json!({"deadline": "50s", "secrets": [key]}));
    machine.systemctl(&["start", "opnix.service"]).ok();
    let sealed = "/etc/credstore.encrypted/opnix-token";

    // Where a plain one is loaded, it says all that is to be done.
    let told = give(machine, &first.token(), "--seal");
    assert!(told.contains(&format!(", sealed, in {sealed}\n")), "{told}");
    assert!(told.contains(&format!("rm {TOKEN}")), "{told}");
    assert_eq!(machine.sh(&format!("stat -c '%a %u' {sealed}")).ok().trim(), "600 0");
    let lines = told.lines().filter_map(|line| line.strip_prefix("    "));
    let drop_in: String = lines.map(|line| format!("{line}\n")).collect();
    let path = "/etc/systemd/system/opnix.service.d/token.conf";
    assert!(told.contains(path), "{told}");
    machine.write(path, &drop_in, "0644");
    machine.sh(told.lines().find_map(|line| line.strip_prefix("then: ")).expect("what to do then")).ok();
    machine.sh(&format!("opnix token show | grep 'yes, the running service has it' && rm {TOKEN}")).ok();
    machine.systemctl(&["start", units[0]]).ok();
    assert_eq!(found(machine, units[0]), value("OpenAI").into_bytes());
    is_nowhere_in_plain(machine, &first.token());

    // Another one is sealed without being asked to, and taken.
    let second = another(machine);
    let told = give(machine, &second.token(), "");
    assert!(told.contains(&format!(", sealed, in {sealed}\n")), "{told}");
    assert!(told.contains("opnix.service has taken it"), "{told}");
    first.revoke(true);
    assert!(machine.sh("opnix token show").ok().contains("yes, the running service has it"));
    machine.systemctl(&["start", units[1]]).ok();
    assert_eq!(found(machine, units[1]), value("OpenAI").into_bytes());
    assert!(!second.server.requests().is_empty());
    let told = machine.sh("opnix token check").ok();
    assert!(
        told.starts_with("accepted: the token of made-up@") && told.contains("Infrastructure Secrets"),
        "{told}"
    );
    let told = machine.sh("opnix token show").ok();
    assert!(told.contains(&format!("{sealed}, sealed with systemd-creds")), "{told}");
    assert!(!machine.journal_text().contains("it is not there any more"), "nobody misses the plain one");

    // By hand, as others do it, it is taken by itself.
    let third = another(machine);
    machine.write("/run/given", third.token(), "0600");
    machine.sh(&format!("systemd-creds encrypt --name=token - {sealed} </run/given; rm /run/given")).ok();
    let in_force = || machine.sh("opnix token show").text().contains("yes, the running service has it");
    machine.wait("the third token", in_force, LONG);

    // What the unit itself loads.
    machine.systemctl(&["restart", "opnix.service"]).ok();
    machine.systemctl(&["start", units[2]]).ok();
    assert_eq!(found(machine, units[2]), value("OpenAI").into_bytes());
    is_nowhere_in_plain(machine, &second.token());

    // What is not a token changes nothing, nor does what cannot be written.
    machine.sh(&format!("cp {sealed} /run/before; echo x | opnix token set")).fails();
    machine.write("/run/given", second.token(), "0600");
    let small = "mount -t tmpfs -o size=4k,nr_inodes=2 small /run/small; dd if=/dev/zero of=/run/small/full bs=4k count=1";
    machine.sh(&format!("mkdir /run/small; {small}")).ok();
    machine.sh("opnix token set --path /run/small/token </run/given").fails();
    machine.sh("mount -o remount,ro /run/small; opnix token set --path /run/small/token </run/given").fails();
    machine.sh(&format!("cmp {sealed} /run/before && umount /run/small && rmdir /run/small")).ok();
    machine.sh(&format!("rm -r {path} {sealed} /run/before /run/given; systemctl daemon-reload")).ok();
    stop(machine);
}
