//! Faults of the machine, the configuration, the files and the units, with a vault that is a file.

use serde_json::{Value, json};

use super::{Fault, is_well};
use crate::boot::Kind;
use crate::machine::Machine;
use crate::opnix::*;

/// A host as the README makes it, with a unit that has a credential and one that reads a file.
pub fn host(machine: &Machine) {
    machine.sh("groupadd --force --system opnix-vault").ok();
    machine.unit("opnix.service.d/50-test.conf", "[Service]\nSupplementaryGroups=opnix-vault\n");
    machine.write("/etc/opnix/secrets.json", config().to_string(), "0644");
    write_vault(machine, &[("one", value("one")), ("two", value("two"))]);
    machine.unit("app.service", &app("/run/opnix/creds.sock", "key"));
    machine.unit(
        "reader.service",
        "[Unit]\nWants=opnix-mirror.service\nAfter=opnix-mirror.service\nAssertPathExists=/run/secrets/file\n\
         [Service]\nType=exec\nExecStart=sleep infinity\n",
    );
    machine.sh("systemctl enable --now opnix.socket opnix-control.socket && systemctl start app.service reader.service").ok();
}

fn config() -> Value {
    json!({
        "provider": {"kind": "local", "path": VAULT},
        "deadline": "2s",
        "secrets": [
            {"name": "key", "reference": "op://Vault/one/value", "units": ["app.service"]},
            {"name": "file", "reference": "op://Vault/two/value", "path": "file", "owner": "daemon", "services": ["reader.service"]},
        ],
    })
}

fn app(socket: &str, credential: &str) -> String {
    format!(
        "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=exec\nLoadCredential={credential}:{socket}\nExecStart=sleep infinity\n"
    )
}

/// Scripts: the configuration with something else in it, and as it was.
fn edit(sed: &str) -> String {
    format!(
        "cp -p /etc/opnix/secrets.json /etc/opnix/before; sed -i '{sed}' /etc/opnix/secrets.json; systemctl reload opnix.service opnix-mirror.service || true"
    )
}

const RESTORE: &str =
    "mv /etc/opnix/before /etc/opnix/secrets.json; systemctl reload opnix.service opnix-mirror.service";
const APP: &str = "/run/systemd/system/app.service";

/// The unit with another line, started anew.
fn edit_app(sed: &str) -> String {
    format!(
        "cp {APP} /run/app.before; sed -i '{sed}' {APP}; systemctl daemon-reload; systemctl restart --no-block app.service; sleep 0.5"
    )
}

const RESTORE_APP: &str = "mv /run/app.before /run/systemd/system/app.service; systemctl daemon-reload; systemctl restart app.service";

pub fn each_fault_of_the_machine_is_named_mended_and_gone(_: &Machine) {
    let machine = &Machine::boot_as(Kind::Fresh);
    host(machine);
    is_well(machine).expect("as installed");
    let drop_in = |lines: &str| {
        format!(
            "printf '[Service]\\n{lines}\\n' >/run/systemd/system/opnix.service.d/90-fault.conf; systemctl daemon-reload; \
                 systemctl kill --signal=KILL --kill-whom=all opnix.service; sleep 1"
        )
    };
    let undrop = "rm /run/systemd/system/opnix.service.d/90-fault.conf; systemctl daemon-reload; systemctl restart opnix.service";
    let service_cannot_start =
        |name, lines: &str, status| (name, drop_in(lines), "service-does-not-start", status, 69, undrop);
    let faults: Vec<(&str, String, &str, &str, i32, &str)> = vec![
        // The service.
        ("it is stopped", "systemctl stop opnix-mirror.service opnix.service".into(), "service-stopped", "systemctl start opnix.service", 69,
         "systemctl start opnix.service"),
        service_cannot_start("it cannot be executed", "ExecStart=\\nExecStart=/nowhere serve", "203/EXEC"),
        service_cannot_start("it has no user", "DynamicUser=no\\nUser=nobody-of-that-name", "217/USER"),
        service_cannot_start("it has no namespace", "BindPaths=/nowhere:/mnt", "226/NAMESPACE"),
        service_cannot_start("it has no credential", "LoadCredential=other:/nowhere", "243/CREDENTIALS"),
        ("another program runs", "cp /usr/bin/opnix /usr/bin/opnix.new && echo >>/usr/bin/opnix.new && mv /usr/bin/opnix.new /usr/bin/opnix".into(),
         "program-old", "systemctl restart opnix.service", 0, "systemctl restart opnix.service opnix-mirror.service opnix-token.service"),
        ("its unit file is another one", "printf '[Service]\\nCPUWeight=100\\n' >/run/systemd/system/opnix.service.d/91-later.conf".into(),
         "unit-file-old", "systemctl daemon-reload", 0, "rm /run/systemd/system/opnix.service.d/91-later.conf; systemctl daemon-reload"),
        ("the mirror is stopped", "systemctl stop opnix-mirror.service".into(), "part-fails", "opnix-mirror.service does not run", 69,
         "systemctl start opnix-mirror.service"),
        ("the mirror is masked", "systemctl mask --runtime --now opnix-mirror.service".into(), "part-fails",
         "systemctl unmask --runtime opnix-mirror.service; systemctl start opnix-mirror.service", 69,
         "systemctl unmask --runtime opnix-mirror.service; systemctl start opnix-mirror.service"),
        ("what makes the key is masked", "systemctl mask --runtime opnix-setup.service".into(), "part-fails",
         "systemctl unmask --runtime opnix-setup.service; systemctl restart opnix-setup.service", 0,
         "systemctl unmask --runtime opnix-setup.service; systemctl restart opnix-setup.service"),
        // The sockets.
        ("the socket is stopped", "systemctl stop opnix.socket".into(), "socket-stopped", "opnix.socket does not listen", 69,
         "systemctl start opnix.socket opnix.service"),
        ("the control socket is stopped", "systemctl stop opnix-control.socket".into(), "socket-stopped", "opnix-control.socket does not listen", 69,
         "systemctl restart opnix.service"),
        ("the socket is disabled", "systemctl disable opnix.socket".into(), "socket-disabled", "systemctl enable opnix.socket", 0,
         "systemctl enable opnix.socket"),
        ("the control socket is disabled", "systemctl disable opnix-control.socket".into(), "socket-disabled", "opnix-control.socket", 0,
         "systemctl enable opnix-control.socket"),
        ("the socket is open to others", "chmod 0666 /run/opnix/creds.sock".into(), "socket-open", "chmod 0600 /run/opnix/creds.sock", 0,
         "chmod 0600 /run/opnix/creds.sock"),
        ("the control socket is open to others", "chown daemon /run/opnix/control.sock".into(), "socket-open", "control.sock", 0,
         "chown root /run/opnix/control.sock"),
        ("the socket's file is gone", "mv /run/opnix/creds.sock /run/opnix/elsewhere".into(), "socket-stopped", "nobody finds it", 69,
         "mv /run/opnix/elsewhere /run/opnix/creds.sock"),
        // The configuration.
        ("the configuration is broken", edit("s/\"units\"/\"unit\"/"), "configuration-faulty", "units", 78, RESTORE),
        ("others can write it", "chmod 0666 /etc/opnix/secrets.json; systemctl reload opnix.service || true".into(), "configuration-faulty",
         "chmod go-w /etc/opnix/secrets.json", 78, "chmod 0644 /etc/opnix/secrets.json; systemctl reload opnix.service"),
        ("others can write a directory on its way", "chmod 0777 /etc/opnix; systemctl reload opnix.service || true".into(), "configuration-faulty",
         "chmod go-w /etc/opnix", 78, "chmod 0755 /etc/opnix; systemctl reload opnix.service"),
        ("it was edited and not loaded", "cp -p /etc/opnix/secrets.json /etc/opnix/before; sed -i 's/\"name\":\"file\"/\"name\":\"file2\"/' /etc/opnix/secrets.json".into(),
         "configuration-old", "systemctl reload", 0, RESTORE),
        // The mapping and the units.
        ("the credential is misspelt", edit_app("s/=key:/=kye:/"), "unit-file", "kye", 69, RESTORE_APP),
        ("the credential is misspelt, and was refused", edit_app("s/=key:/=kye:/"), "unit-refused", "kye", 69, RESTORE_APP),
        ("the unit is misspelt in the mapping", edit("s/app.service/ap.service/") + "; systemctl restart app.service || true", "unit-file", "ap.service", 69,
         "mv /etc/opnix/before /etc/opnix/secrets.json; systemctl reload opnix.service; systemctl restart app.service"),
        ("the path of the socket is wrong", edit_app("s|/run/opnix/creds.sock|/run/opnix/cred.sock|"), "unit-file", "cred.sock", 0, RESTORE_APP),
        ("the unit has no LoadCredential=", edit_app("/LoadCredential/d"), "unit-file", "key", 0, RESTORE_APP),
        ("it has one without a path", edit_app("s|=key:.*|=key|"), "unit-file", "has no source", 0, RESTORE_APP),
        ("another of its credentials is missing", edit_app("s|^ExecStart|LoadCredential=other:/nowhere\\nExecStart|"), "unit-fails-otherwise", "/nowhere", 0,
         RESTORE_APP),
        (
            "its credentials are too large together",
            "head -c 1048570 /dev/zero >/run/large; ".to_owned()
                + &edit_app("s|^ExecStart|LoadCredential=other:/run/large\\nExecStart|"),
            "unit-fails-otherwise",
            "1 MiB",
            0,
            RESTORE_APP,
        ),
        // The files.
        ("the memory is not mounted", "systemctl stop opnix-mirror.service; umount /run/secrets; systemctl mask --runtime opnix-mount.service; systemctl start opnix-mirror.service".into(),
         "memory-missing", "/run/secrets is not mounted", 69,
         "systemctl unmask --runtime opnix-mount.service; systemctl restart opnix-mount.service opnix-mirror.service"),
        ("its owner is missing", edit("s/\"owner\":\"daemon\"/\"owner\":\"nobody-of-that-name\"/"), "file-differs", "nobody-of-that-name", 69, RESTORE),
        ("the file cannot be had", edit("s|op://Vault/two|op://Vault/three|") + "; systemctl restart opnix-mirror.service", "secret-unavailable", "three", 69, RESTORE),
        ("a unit gave up for want of its file", edit("s|op://Vault/two|op://Vault/three|") + "; rm -rf /run/opnix-files/memory/file; systemctl restart reader.service || true",
         "unit-gave-up", "/run/secrets/file", 69, RESTORE),
        // Room, and what is kept.
        (
            "the key of the cache is gone",
            "rm /etc/credstore.encrypted/opnix.cache-key".into(),
            "cache-unsealed",
            "systemctl restart opnix-setup.service opnix.service",
            0,
            "systemctl restart opnix-setup.service opnix.service",
        ),
        ("/run is full", "fallocate -l $(( $(df --output=avail -B1 /run | tail -1) - 4096 )) /run/filler".into(), "run-full", "/run is full", 0, "rm /run/filler"),
    ];
    let run = |(name, breaks, kind, words, status, mends): (_, String, _, _, _, _)| {
        Fault { name, breaks: &breaks, kind, words, status, mends }.run(machine, || {}, || {}).err()
    };
    let wrong: Vec<String> = faults.into_iter().filter_map(run).collect();
    assert!(wrong.is_empty(), "{} faults: {}", wrong.len(), wrong.join("\n\n"));
}
