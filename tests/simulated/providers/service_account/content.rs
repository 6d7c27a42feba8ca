//! Values of particular kinds.

use super::everything;
use crate::daemon::Daemon;
use crate::helpers::cost;

#[test]
fn documents_and_attachments_arrive_byte_for_byte() {
    let simulator = everything();
    let daemon = Daemon::start(
        &simulator.token(),
        &[
            ("file-paper", "op://Zoo/Papers/paper.bin"),
            ("file-cert", "op://Zoo/Sections/prod/cert.pem"),
            ("file-again", "op://Zoo/Sections/CERT.pem"),
        ],
    );
    let paper: Vec<u8> = (0..=255).collect();
    assert_eq!(daemon.ask_bytes("file-paper"), Some(paper));
    assert_eq!(daemon.ask("file-cert").as_deref(), Some("-----BEGIN MADE UP-----\n"));
    // The item, then the core reads it once more, then the file.
    assert_eq!(cost(&simulator.server, || assert!(daemon.ask("file-again").is_some())), 4);
    assert_eq!(simulator.violations(), [""; 0]);
}

#[test]
fn a_one_time_password_is_made_anew_for_each_start() {
    let simulator = everything();
    let daemon = Daemon::start(&simulator.token(), &[("otp", "op://Zoo/Kinds/code?attribute=otp")]);
    let is_code = |code: String| code.len() == 6 && code.bytes().all(|digit| digit.is_ascii_digit());
    assert!(is_code(daemon.ask("otp").unwrap()));
    assert_eq!(cost(&simulator.server, || assert!(is_code(daemon.ask("otp").unwrap()))), 2);
}
