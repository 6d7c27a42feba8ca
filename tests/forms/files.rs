//! Forms that are read by what is on every machine: shells, Python and its libraries, and OpenSSH.

use std::process::Command;

use super::{accepted, hex, is_no_sql, is_no_text, place, run, values, written};

/// What a Python program prints for each of these texts, of which it is given the hexadecimal digits, line by line.
fn python(program: &str, texts: &[Vec<u8>]) -> Vec<String> {
    let input: String = texts.iter().map(|text| hex(text) + "\n").collect();
    let program = format!(
        "import sys\nfor line in sys.stdin:\n    text = bytes.fromhex(line.strip())\n    print(bytes({program}).hex())\n"
    );
    let said = run(Command::new("python3").args(["-c", &program]), input.as_bytes());
    String::from_utf8(said).expect("digits").lines().map(str::to_owned).collect()
}

/// The form is read by this Python expression of `text`, the whole of which is this template.
fn read_by_python(form: &str, around: &str, refuses: impl Fn(&[u8]) -> bool, expression: &str) {
    let accepted = accepted(form, refuses);
    let template = around.replace("FORM", &format!("{{{{ op://v/i/f | {form} }}}}"));
    let texts: Vec<Vec<u8>> =
        accepted.iter().map(|(value, _)| written(&template, value).expect("accepted")).collect();
    let read = python(expression, &texts);
    assert_eq!(read.len(), texts.len());
    for (((value, _), text), read) in accepted.iter().zip(&texts).zip(read) {
        assert_eq!(read, hex(value), "{form}: {:?}", String::from_utf8_lossy(text));
    }
}

#[test]
fn json_is_read_by_a_json_library() {
    let read = "__import__('json').loads(text)['key'].encode()";
    read_by_python("json", "{\"key\": FORM}", is_no_text, read);
}

#[test]
fn yaml_is_read_by_a_yaml_library() {
    let read = "__import__('yaml').safe_load(text)['key'].encode()";
    read_by_python("yaml", "other: 1\nkey: FORM\nlast: [FORM, x]\n", is_no_text, read);
}

#[test]
fn a_url_has_the_value_in_each_of_its_parts() {
    let split = "__import__('urllib.parse').parse";
    let password = format!("{split}.unquote_to_bytes({split}.urlsplit(text.decode()).password)");
    let refuses = |value: &[u8]| value.contains(&0) || [&b"."[..], b".."].contains(&value);
    read_by_python("url", "postgres://user:FORM@host:5432/db?x=y", refuses, &password);
    let query = format!(
        "{split}.parse_qs({split}.urlsplit(text.decode()).query, encoding='latin-1')['token'][0].encode('latin-1')"
    );
    read_by_python("url", "https://host/path?a=b&token=FORM&c=d", refuses, &query);
}

#[test]
fn standard_sql_is_read_by_sqlite() {
    let read =
        "__import__('sqlite3').connect(':memory:').execute('SELECT ' + text.decode()).fetchone()[0].encode()";
    read_by_python("sql", "FORM", is_no_sql, read);
}

#[test]
fn ini_is_read_by_pythons_reader_with_interpolation_of_either_kind_and_without() {
    let taken = |c: char| c.is_alphanumeric() || "-_.,:/@+*=<> ".contains(c);
    let refuses = |value: &[u8]| {
        let Ok(text) = std::str::from_utf8(value) else { return true };
        let is_word =
            ["true", "false", "yes", "no", "on", "off", "null", "none"].contains(&&*text.to_lowercase());
        is_word || text.starts_with(' ') || text.ends_with(' ') || !text.chars().all(taken)
    };
    for interpolation in ["BasicInterpolation()", "ExtendedInterpolation()"] {
        let read = format!(
            "(lambda m: (lambda p: (p.read_string(text.decode()), p)[1])(m.ConfigParser(interpolation=m.{interpolation}, inline_comment_prefixes=('#', ';')))['section']['key'])(__import__('configparser')).encode()"
        );
        read_by_python("ini", "[section]\nkey = FORM\n", refuses, &read);
    }
}

#[test]
fn base64_and_sha256_are_what_others_make_of_it() {
    read_by_python("base64", "FORM", |_| false, "__import__('base64').b64decode(text, validate=True)");
    let values = values();
    let read = python("__import__('hashlib').sha256(text).hexdigest().encode()", &values);
    for (value, read) in values.iter().zip(read) {
        let text = written("{{ op://v/i/f | sha256 }}", value).expect("it takes all");
        assert_eq!(read, hex(&text));
    }
}

#[test]
fn a_shell_reads_each_value_as_one_word() {
    let accepted = accepted("shell", is_no_text);
    let mut script = String::from("set -eu\n");
    for (value, _) in &accepted {
        let line = written("V={{ op://v/i/f | shell }}\nprintf '%s\\0' \"$V\" {{op://v/i/f|shell}}\n", value);
        script.push_str(&String::from_utf8(line.expect("accepted")).expect("text"));
    }
    let said = run(Command::new("sh").arg("-s"), script.as_bytes());
    let expected: Vec<&[u8]> = accepted.iter().flat_map(|(value, _)| [&value[..], value]).collect();
    let read: Vec<&[u8]> = said.split(|byte| *byte == 0).filter(|word| !word.is_empty()).collect();
    assert_eq!(read, expected);
}

#[test]
fn a_line_ends_in_exactly_one_line_break() {
    let is_nothing_else = |value: &[u8]| value.iter().all(|byte| b"\r\n".contains(byte));
    for (value, text) in accepted("line", is_nothing_else) {
        let end = value.iter().rposition(|byte| !b"\r\n".contains(byte)).expect("it is something");
        assert_eq!(text, [&value[..=end], b"\n"].concat());
    }
    // As a key is copied from a form: OpenSSH takes none without the last line break.
    let place = place("line");
    let key = place.join("key");
    let make = ["-q", "-t", "ed25519", "-N", "", "-f"];
    run(Command::new("ssh-keygen").args(make).arg(&key), b"");
    let text = std::fs::read(&key).expect("the key");
    let public =
        |path: &std::path::Path| Command::new("ssh-keygen").arg("-yf").arg(path).output().expect("it runs");
    let right = public(&key);
    assert!(right.status.success());
    let cut = text.trim_ascii_end();
    let read = |name: &str, text: &[u8]| {
        let path = place.join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("its mode");
        public(&path)
    };
    for value in [cut, &text, &[cut, b"\r\n\n"].concat()] {
        let mended = read("mended", &written("{{ op://v/i/f | line }}", value).expect("a key"));
        assert_eq!(mended.stdout, right.stdout, "{}", String::from_utf8_lossy(&mended.stderr));
    }
}
