use std::process::ExitCode;

fn main() -> ExitCode {
    opnix::cli::main()
}
