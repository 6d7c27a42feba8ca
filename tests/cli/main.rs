//! The command line as people see it: arguments, output and exit code. `TRYCMD=overwrite` takes what it now says.
//!
//! Each `X.trycmd` is what a command says in the directory `X.in`. Those in `configuration` are all of `opnix check`.

// A test that panics has failed, which is what it should do then.
#![allow(clippy::unwrap_used)]

mod completions;
mod configuration;
mod core_install;
mod pipes;
mod setup;

use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_command_line_says_what_it_should() {
    trycmd::TestCases::new().case("tests/cli/*.trycmd").case("tests/cli/configuration/*.trycmd");
}
