//! Each form of a template is read back by the program that it is for: whatever value it writes, the reader has that value.
//! What it cannot write it refuses by name.

mod databases;
mod files;
mod redis;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use opnix::internals::{Secret, Template};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// How many values are made at random for each form, besides the chosen ones.
const RANDOM: usize = 200;

/// A text with `{{ op://v/i/f | FORM }}` in it, with this value in its place; or why that cannot be.
fn written(text: &str, value: &[u8]) -> Result<Vec<u8>, String> {
    let template = Template::parse(text).expect("a template");
    let value = Arc::new(Secret::copy_from(value).expect("not empty"));
    let values = vec![value; template.references().count()];
    template.render(&values).map(|text| text.expose().to_vec()).map_err(|error| error.to_string())
}

/// The values that this form writes, with what it writes for each. Those that it refuses are those of which this is true, and
/// it says its name.
fn accepted(form: &str, refuses: impl Fn(&[u8]) -> bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    let text = format!("{{{{ op://v/i/f | {form} }}}}");
    let mut all = Vec::new();
    for value in values() {
        match written(&text, &value) {
            Ok(written) => {
                assert!(!refuses(&value), "{form} takes {:?}", String::from_utf8_lossy(&value));
                all.push((value, written));
            }
            Err(why) => {
                assert!(refuses(&value), "{form} refuses {:?}: {why}", String::from_utf8_lossy(&value));
                assert!(why.contains(&format!("cannot be written in the form {form}: ")), "{why}");
            }
        }
    }
    assert!(all.len() > RANDOM / 10, "{form} takes too few to show anything: {}", all.len());
    all
}

/// What no form of text takes.
fn is_no_text(value: &[u8]) -> bool {
    value.contains(&0) || std::str::from_utf8(value).is_err()
}

/// What the form for all servers does not take.
fn is_no_sql(value: &[u8]) -> bool {
    is_no_text(value) || value.iter().any(|byte| b"\\\r".contains(byte))
}

/// Values as people have them, and at random, from few characters of which many mean something somewhere.
fn values() -> Vec<Vec<u8>> {
    let seed = std::env::var("OPNIX_FORMS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    eprintln!("values made at random: OPNIX_FORMS_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut all: Vec<Vec<u8>> = [
        "plain",
        "it's",
        "a:b\\c",
        "two words",
        " space at both ends ",
        "p@ss/w?rd#1&2=3+4%41%",
        "$HOME ${HOME} $$ `id` $(id)",
        "say \"hello\" 'world'",
        "\\",
        "\\\\'",
        "' OR 1=1 -- ",
        "line\nline\r\nline\n",
        "\ttab",
        "# no comment ; nor this",
        "%h %% %n",
        "yes",
        "null",
        "~",
        "- item: [a, {b: c}]",
        "2026-11-26",
        "0x1F",
        "{{ op://v/i/f }}",
        "{{ .Values.x }}",
        "é😀\u{85}\u{2028}\u{feff}\u{7f}\u{9f}",
        "\u{1}\u{1b}[0m",
        "-----BEGIN KEY-----\r\nAAAA\r\n-----END KEY-----",
        "a=b==",
        "..",
        "\u{fdd0}",
        "\u{4e2d}\\'),1; select 'INJECTED' -- ",
        "*&!|>@,?",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    all.extend([b"\0".to_vec(), b"\xff\xfe".to_vec(), (0..=255).collect(), b"\n\r\n".to_vec()]);
    let characters: Vec<char> =
        " \t\n\r\"'\\$`#;=%{}()[]<>|&!?*@:,.~^-+/_0aZé😀\u{1}\u{7f}".chars().collect();
    // As 1Password's own generator makes them.
    let generated: Vec<char> = ('!'..='~').collect();
    let harmless: Vec<char> = "abcXYZ0189-_.,:/@+*=<> ".chars().collect();
    for number in 0..RANDOM {
        let characters = [&characters, &generated, &harmless][number % 3];
        let length = random.random_range(1..24);
        let text: String = (0..length).map(|_| *characters.choose(&mut random).expect("some")).collect();
        all.push(text.into_bytes());
    }
    all
}

/// A directory of one test, which is gone before it begins.
fn place(name: &str) -> PathBuf {
    let place = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tmp/forms").join(name);
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&place).expect("a directory");
    place
}

/// A server of the test, which ends with it.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program with this input, and returns what it says.
fn run(command: &mut Command, input: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let name = command.get_program().to_string_lossy().into_owned();
    let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = started
        .unwrap_or_else(|error| panic!("{name}: {error}; tests/packages installs what the tests need"));
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    let writing = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("it ends");
    let _ = writing.join();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
