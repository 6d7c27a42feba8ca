//! The examples in the documentation.

use std::fs;

use serde_json::json;

use crate::nix;

#[test]
fn every_nix_example_in_the_documentation_evaluates_and_builds() {
    let mut count = 0;
    let docs = fs::read_dir(nix::project().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    for path in docs.chain([nix::project().join("README.md")]) {
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for example in text.split("```nix\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
            count += 1;
            if example.contains("programs.") {
                nix::evaluate(example, "home").unwrap_or_else(|why| panic!("{path:?}: {example}\n{why}"));
                continue;
            }
            assert_eq!(nix::evaluate(example, "faults"), Ok(json!([])), "{path:?}: {example}");
            nix::build(example, "tree").unwrap_or_else(|why| panic!("{path:?}: {example}\n{why}"));
        }
    }
    assert!(count >= 8, "{count}");
}
