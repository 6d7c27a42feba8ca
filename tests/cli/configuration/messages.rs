//! Every message that a configuration can get is shown by a test.

use std::fs;
use std::path::PathBuf;

use crate::root;

/// What stands between the placeholders of each string in the code, line by line, if it is more than a word.
fn messages(code: &str) -> Vec<String> {
    let is_code = |line: &&str| !["//", "#[schemars"].iter().any(|start| line.trim().starts_with(start));
    let code: Vec<&str> = code.lines().filter(is_code).collect();
    let code = code.join("\n").replace("\\\"", "\u{1}").replace("{{", "\u{2}").replace("}}", "\u{3}");
    let strings = code.split('"').skip(1).step_by(2);
    let lines = strings.flat_map(|string| string.split("\\n")).flat_map(|text| text.split('\n'));
    let fragments = lines.flat_map(|line| line.split('{').map(|part| part.rsplit('}').next().unwrap()));
    let fragments =
        fragments.map(|part| part.replace('\u{1}', "\"").replace('\u{2}', "{").replace('\u{3}', "}"));
    // trycmd turns every backslash into a slash.
    let fragments = fragments.map(|part| part.trim_end_matches('\\').trim().replace("\\\\", "/"));
    fragments.filter(|part| part.contains(' ')).collect()
}

/// What the tests of this directory say: of the command line, or of a configuration.
fn tests_of(directory: &str) -> String {
    let files = fs::read_dir(root().join("tests").join(directory)).unwrap().map(|file| file.unwrap().path());
    let is_test = |path: &PathBuf| match path.extension().and_then(|extension| extension.to_str()) {
        Some("trycmd") => true,
        Some("rs") => directory == "cli/configuration",
        _ => false,
    };
    files.filter(is_test).map(|path| fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn every_message_that_a_configuration_can_get_is_shown_by_a_test() {
    let shown: String = ["cli", "cli/configuration"].map(tests_of).concat();
    let mut count = 0;
    let mut files =
        ["names.rs", "reference.rs", "template.rs"].map(|file| root().join("src").join(file)).to_vec();
    let mut directories = vec![root().join("src/config")];
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() { directories.push(path) } else { files.push(path) }
        }
    }
    for file in files {
        let code = fs::read_to_string(&file).unwrap();
        for message in messages(code.split("#[cfg(test)]").next().unwrap()) {
            assert!(shown.contains(&message), "{}: no test shows {message:?}", file.display());
            count += 1;
        }
    }
    assert!(count > 50, "{count}");
}
