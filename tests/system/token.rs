//! `opnix token set`: the token is where the service reads it, for nobody else to read.

use crate::machine::Machine;
use crate::opnix::*;

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
