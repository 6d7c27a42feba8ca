//! opnix for the units of one user: `opnix serve --user` below that user's own service manager.

use serde_json::json;

use crate::machine::Machine;
use crate::opnix::*;

pub const USER: &str = "alice";

/// A user with a service manager at work.
pub fn log_in(machine: &Machine) -> String {
    machine.sh(&format!("id {USER} 2>/dev/null || useradd --create-home {USER}")).ok();
    let uid = machine.sh(&format!("id -u {USER}")).ok();
    machine.systemctl(&["start", &format!("user@{uid}.service")]).ok();
    uid
}

/// As that user.
pub fn as_user(machine: &Machine, uid: &str, script: &str) -> crate::command::Output {
    let runtime = format!("XDG_RUNTIME_DIR=/run/user/{uid}");
    machine.run(&[
        "setpriv",
        &format!("--reuid={uid}"),
        &format!("--regid={uid}"),
        "--clear-groups",
        "env",
        &runtime,
        &format!("HOME=/home/{USER}"),
        "sh",
        "-euc",
        script,
    ])
}

pub fn a_users_units_get_their_secrets_and_nobody_else_does(machine: &Machine) {
    let uid = log_in(machine);
    let socket = format!("/run/user/{uid}/opnix/creds.sock");
    let config = json!({
        "provider": {"kind": "local", "path": "vault.json"},
        "secrets": [{"name": "key", "reference": "op://Vault/key/value", "units": ["mine.service", "forged.service"]}],
    });
    let vault = json!({"vaults": [{"name": "Vault", "items": [{"title": "key", "fields": [{"label": "value", "value": value("key")}]}]}]});
    let units = format!("/home/{USER}/.config/systemd/user");
    for (path, text, mode) in [
        (format!("/home/{USER}/secrets.json"), config.to_string(), "0644"),
        (format!("/home/{USER}/vault.json"), vault.to_string(), "0600"),
        (
            format!("{units}/opnix.socket"),
            format!("[Socket]\nListenStream={socket}\nFileDescriptorName=creds\nSocketMode=0600\n"),
            "0644",
        ),
        (
            format!("{units}/opnix.service"),
            format!(
                "[Service]\nType=notify\nFileDescriptorStoreMax=4096\nExecStart=opnix serve --user --config /home/{USER}/secrets.json\n"
            ),
            "0644",
        ),
        (
            format!("{units}/mine.service"),
            format!(
                "[Service]\nType=oneshot\nRemainAfterExit=yes\nLoadCredential=key:{socket}\nExecStart=sh -c 'cat $CREDENTIALS_DIRECTORY/key'\nStandardOutput=truncate:/home/{USER}/got\n"
            ),
            "0644",
        ),
    ] {
        machine.write(&path, text, mode);
    }
    machine.sh(&format!("chown -R {USER}: /home/{USER}")).ok();
    as_user(
        machine,
        &uid,
        "systemctl --user daemon-reload; systemctl --user start opnix.socket mine.service",
    )
    .ok();
    assert_eq!(machine.run(&["cat", &format!("/home/{USER}/got")]).stdout, value("key").into_bytes());

    // One that is refused is told why in its own journal. Who reads it is in the group that may, as where the journal is in memory.
    let wrong = format!("[Service]\nType=exec\nLoadCredential=kye:{socket}\nExecStart=sleep infinity\n");
    machine.write(&format!("{units}/wrong.service"), wrong, "0644");
    as_user(machine, &uid, "systemctl --user daemon-reload; systemctl --user start wrong.service").fails();
    let shown = || {
        let status = "systemctl --user status --no-pager wrong.service; journalctl --user-unit wrong.service --output=cat";
        let (reuid, regid) = (format!("--reuid={uid}"), format!("--regid={uid}"));
        let runtime = format!("XDG_RUNTIME_DIR=/run/user/{uid}");
        let reader =
            ["setpriv", &reuid, &regid, "--groups=systemd-journal", "env", &runtime, "sh", "-c", status];
        machine.run(&reader).text()
    };
    let line = "opnix refused wrong.service the credential \"kye\": no secret is configured under this credential name. \
                See: journalctl --user -u opnix.service";
    machine.wait("its line", || shown().matches(line).count() == 2, LONG);

    // A process of the same user that is in another unit, and root, which is another user.
    let ask = format!(
        "import socket\n\
        s = socket.socket(socket.AF_UNIX); s.bind('\\0' + '3' * 16 + '/unit/forged.service/key')\n\
        s.connect('{socket}'); s.shutdown(socket.SHUT_WR)\n\
        data = b''\n\
        while True:\n    part = s.recv(65536)\n    if not part: break\n    data += part\n\
        print(len(data), data.strip(b'\\0'))\n"
    );
    machine.write("/run/ask.py", ask, "0644");
    let refused = "1048577 b''";
    // Not by systemd-run, which wants a message bus of the user's own.
    let forger = format!(
        "[Service]\nType=oneshot\nExecStart=python3 /run/ask.py\nStandardOutput=truncate:/home/{USER}/forged\n"
    );
    machine.write(&format!("{units}/forger.service"), forger, "0644");
    as_user(machine, &uid, "systemctl --user daemon-reload; systemctl --user start forger.service").ok();
    assert_eq!(machine.run(&["cat", &format!("/home/{USER}/forged")]).ok(), refused);
    assert_eq!(
        machine.sh("systemd-run --quiet --wait --pipe --unit=forged python3 /run/ask.py").ok(),
        refused
    );
    let checks =
        machine.journal(&[&format!("MESSAGE_ID={REFUSED}"), "OPNIX_UNIT=forged.service", "OPNIX_CHECK=peer"]);
    assert_eq!(checks.len(), 2, "{checks:?}");

    let has_bus = as_user(machine, &uid, "systemd-run --user --quiet --wait true").code == Some(0);
    let how = if has_bus { "real units of your own service manager" } else { "connects exactly as systemd" };
    let shown = as_user(machine, &uid, "opnix demo").ok();
    assert!(shown.contains(how), "{shown}");
    machine.systemctl(&["stop", &format!("user@{uid}.service")]).ok();
}
