mod boot;
mod command;
mod harness;
mod lease;
mod machine;
mod suite;

use suite::tests;

fn main() -> std::process::ExitCode {
    suite::run(tests![
        harness::a_lease_holds_up_a_reader,
        harness::a_test_sees_its_own_journal_records_only,
        harness::what_a_command_leaves_running_is_killed,
    ])
}
