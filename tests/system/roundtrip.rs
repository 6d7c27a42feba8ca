//! Values as people have them, through the whole of opnix: byte for byte the same as a credential, a file, a variable, a line of
//! a unit file and in JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::machine::Machine;
use crate::opnix::*;

const RANDOM: usize = 60;
/// systemd's limit for all credentials of a unit together, and opnix's for a file; in bytes.
const LIMIT: usize = 1 << 20;

fn values() -> Vec<Vec<u8>> {
    let seed = std::env::var("OPNIX_VALUES_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    eprintln!("values made at random: OPNIX_VALUES_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut all: Vec<Vec<u8>> = [
        "-----BEGIN X-----\r\nAAAA\r\n-----END X-----",
        "two\nlines\n",
        "\n\nfirst and last\n\n",
        "\n",
        " ",
        "\u{feff}with a BOM",
        "{{ op://Vault/other/value }}",
        "{{ .Values.x }} op://Vault/other/value ${HOME} $$ %h %%",
        "\"quoted\" 'twice' \\ \\n `id` # ; =",
        "é😀\u{85}\u{2028}\u{1}\u{7f}\t",
        "ends in a backslash \\",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    all.extend([b"\0".to_vec(), b"a\0b\n".to_vec(), b"\xff\xfe\x00".to_vec(), (0..=255).collect()]);
    let characters: Vec<char> = " \t\n\r\"'\\$`#;=%{}()é~a0\u{1}".chars().collect();
    for _ in 0..RANDOM {
        let length = random.random_range(1..40);
        let text: String = (0..length).map(|_| *characters.choose(&mut random).expect("some")).collect();
        all.push(text.into_bytes());
    }
    all
}

pub fn a_value_arrives_byte_for_byte_by_whichever_way_it_goes(machine: &Machine) {
    forget_files(machine);
    set_up(machine, &[], &[], "5s");
    let values = values();
    let is_text = |value: &[u8]| std::str::from_utf8(value).is_ok() && !value.contains(&0);
    // Their items have names that 1Password allows, and its own references do not.
    let title = |number: usize| format!("{number}/ä & \"b\"?");
    let reference = |number: usize| format!("op://Vault/{number}%2F%C3%A4 %26 %22b%22%3F/value");
    let item = |title: String, value: &[u8]| match std::str::from_utf8(value) {
        Ok(text) => json!({"title": title, "fields": [{"label": "value", "value": text}]}),
        Err(_) => json!({"title": title, "files": [{"name": "value", "content": STANDARD.encode(value)}]}),
    };
    let mut items: Vec<Value> =
        values.iter().enumerate().map(|(number, value)| item(title(number), value)).collect();
    let big = |length: usize| "x".repeat(length).into_bytes();
    items.extend([item("fits".into(), &big(LIMIT)), item("not".into(), &big(LIMIT + 1))]);
    machine.write(VAULT, json!({"vaults": [{"name": "Vault", "items": items}]}).to_string(), "0600");
    machine.sh(&format!("chgrp opnix-vault {VAULT} && chmod 0640 {VAULT}")).ok();

    let secret = |(number, value): (usize, &Vec<u8>)| {
        let kind = if std::str::from_utf8(value).is_ok() { "field" } else { "file" };
        json!({"name": format!("v{number}"), "kind": kind, "reference": reference(number), "path": format!("v{number}"),
            "units": ["roundtrip.service"]})
    };
    let mut secrets: Vec<Value> = values.iter().enumerate().map(secret).collect();
    for name in ["fits", "not"] {
        secrets.push(json!({"reference": format!("op://Vault/{name}/value"), "path": name}));
    }
    let texts: Vec<usize> = (0..values.len()).filter(|number| is_text(&values[*number])).collect();
    let no_text = values.iter().position(|value| !is_text(value)).expect("some are none");
    let all = |open: &str, each: &dyn Fn(usize) -> String, between: &str, close: &str| {
        let parts: Vec<String> = texts.iter().map(|number| each(*number)).collect();
        format!("{open}{}{close}", parts.join(between))
    };
    let of = |number: usize, form: &str| format!("{{{{ {} | {form} }}}}", reference(number));
    let template = |name: &str, text: String| json!({"name": name, "path": name, "template": text});
    let templates = [
        template("all.env", all("", &|number| format!("X{number}={}\n", of(number, "env")), "", "")),
        template(
            "all.conf",
            all("[Service]\n", &|number| format!("Environment=X{number}={}\n", of(number, "unit")), "", ""),
        ),
        template("all.json", all("{", &|number| format!("\"{number}\": {}", of(number, "json")), ", ", "}")),
        template("none.env", format!("X={}", of(no_text, "env"))),
    ];
    let config = json!({"provider": {"kind": "local", "path": VAULT}, "deadline": "5s", "secrets": secrets, "templates": templates});
    machine.write("/etc/opnix/secrets.json", config.to_string(), "0644");
    let loads: String =
        (0..values.len()).map(|number| format!("LoadCredential=v{number}:/run/opnix/creds.sock\n")).collect();
    let environ = |name: &str, more: &str| {
        let text = format!(
            "[Service]\nType=oneshot\n{more}ExecStart=cat /proc/self/environ\nStandardOutput=truncate:/run/roundtrip/{name}\n"
        );
        machine.unit(&format!("{name}.service"), &text);
    };
    machine.sh("rm -rf /run/roundtrip; mkdir -p /run/roundtrip/as").ok();
    machine.unit(
        "roundtrip.service",
        &format!("[Service]\nType=oneshot\n{loads}ExecStart=sh -c 'cp %d/v* /run/roundtrip/as/'\n"),
    );
    environ("by-file", "EnvironmentFile=/run/secrets/all.env\n");
    environ("by-unit", "");
    machine.systemctl(&["start", "opnix-mirror.service", "roundtrip.service"]).ok();
    machine.sh("mkdir -p /run/systemd/system/by-unit.service.d; cp /run/secrets/all.conf /run/systemd/system/by-unit.service.d/").ok();
    machine.systemctl(&["daemon-reload"]).ok();
    machine.systemctl(&["start", "by-file.service", "by-unit.service"]).ok();

    let shown = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    for (number, value) in values.iter().enumerate() {
        for directory in ["/run/roundtrip/as", "/run/secrets"] {
            let found = machine.run(&["cat", &format!("{directory}/v{number}")]).stdout;
            assert!(found == *value, "{directory}: {:?} is {:?}", shown(value), shown(&found));
        }
    }
    for name in ["by-file", "by-unit"] {
        let environ = machine.run(&["cat", &format!("/run/roundtrip/{name}")]).stdout;
        let found: Vec<&[u8]> = environ.split(|byte| *byte == 0).collect();
        for number in &texts {
            let expected = [format!("X{number}=").as_bytes(), &values[*number]].concat();
            let own = found.iter().find(|line| line.starts_with(format!("X{number}=").as_bytes()));
            assert!(
                found.contains(&&expected[..]),
                "{name}: {:?} is {:?}",
                shown(&expected),
                own.map(|own| shown(own))
            );
        }
    }
    let json = machine.run(&["cat", "/run/secrets/all.json"]).stdout;
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    for number in &texts {
        assert_eq!(json[number.to_string()].as_str().map(str::as_bytes), Some(&values[*number][..]));
    }
    let status = machine.show("opnix-mirror.service", "StatusText");
    assert_eq!(machine.sh("stat -c %s /run/secrets/fits").ok(), LIMIT.to_string());
    for missing in ["not", "none.env"] {
        machine.run(&["test", "-e", &format!("/run/secrets/{missing}")]).fails();
        assert!(status.contains(&format!("/run/secrets/{missing}:")), "{status}");
    }
    assert!(machine.journal_text().contains("cannot be written in the form env: it "));
    machine.sh("systemctl stop opnix-mirror.service; rm -r /run/roundtrip /run/systemd/system/by-unit.service.d; systemctl daemon-reload").ok();
}
