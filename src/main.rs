use std::process::ExitCode;

fn main() -> ExitCode {
    opnix::main()
}
