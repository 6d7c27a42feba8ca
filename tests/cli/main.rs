//! The command line as people see it: arguments, output and exit code. `TRYCMD=overwrite` takes what it now says.

// A test that panics has failed, which is what it should do then.
#![allow(clippy::unwrap_used)]

mod configuration;
mod core_install;

#[test]
fn the_command_line_says_what_it_should() {
    trycmd::TestCases::new().case("tests/cli/*.trycmd");
}
