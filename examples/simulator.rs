//! Something that behaves like 1Password, on this machine's loopback: `cargo run --example simulator`.

#[path = "../tests/simulators/mod.rs"]
mod simulators;

use simulators::account::Account;
use simulators::service_account::ServiceAccount;

fn main() {
    let simulator = ServiceAccount::local(Account::everything());
    println!("{}", simulator.token());
    loop {
        let mut line = String::new();
        if std::io::stdin().read_line(&mut line).unwrap() == 0 {
            break;
        }
        for request in simulator.server.requests() {
            println!("{request}");
        }
        println!("violations: {:?}", simulator.violations());
        simulator.server.forget_requests();
    }
}
