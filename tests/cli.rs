//! The command line as people see it: arguments, output and exit code. `TRYCMD=overwrite` takes what it now says.

#[test]
fn the_command_line_says_what_it_should() {
    trycmd::TestCases::new().case("tests/cli/*.trycmd");
}
