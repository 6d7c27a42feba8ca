//! Who asks at the socket otherwise than systemd does for a unit, and gets nothing there.

use std::io;
use std::path::Path;

use super::credentials::expanded;
use super::units::{Report, Unit, is_at, pattern};
use crate::files;
use crate::names::CredentialName;
use crate::place::Place;
use crate::systemd::unit_files::UnitFiles;

/// In bytes.
const CRYPTTAB_MAX: usize = 1 << 20;
/// The instance that systemd makes for a client with the longest address, over IPv6 and over IPv4.
const OVER_IPV6: &str =
    "1000-2001:db8:1111:2222:3333:4444:5555:6666:65535-2001:db8:1111:2222:3333:4444:5555:6666:65535";
const OVER_IPV4: &str = "1000-192.168.100.100:65535-192.168.100.100:65535";
const OVER_LOOPBACK: &str = "1000-::1:65535-::1:65535";

/// Programs that the unit runs, and clients for each of which an instance of it is started.
pub fn ask(unit: &Unit<'_>, units: &UnitFiles, socket: &str, report: &mut Report) {
    for line in unit.files.in_effect().into_iter().filter(|line| line.key.starts_with("Exec")) {
        let Some(command) = expanded(&line.value, &unit.files.name) else { continue };
        let words: Vec<&str> = command.split_whitespace().collect();
        for (number, word) in words.iter().enumerate() {
            let given = match word.strip_prefix("--load-credential") {
                Some("") => words.get(number + 1).copied(),
                Some(rest) => rest.strip_prefix('='),
                None => None,
            };
            let Some((id, path)) = given.and_then(|given| given.split_once(':')) else { continue };
            if path == socket {
                report.fault(
                    &line.place,
                    format!("{}: a program that asks at the socket itself gets nothing there", unit.units),
                    format!("LoadCredential={id}:{socket} in the unit, and --load-credential={id}:{id}"),
                );
            }
        }
    }
    if let Some(stem) = unit.files.name.strip_suffix("@.service") {
        let_in(unit, &format!("{stem}.socket"), units, socket, report);
    }
}

/// A socket with Accept=yes starts an instance for each client, whose name tells the client's address.
fn let_in(unit: &Unit<'_>, listens: &str, units: &UnitFiles, socket: &str, report: &mut Report) {
    let Ok(listener) = units.effective(listens) else { return };
    let lines = listener.in_effect();
    let of_it =
        |key: &'static str| lines.iter().filter(move |line| line.section == "Socket" && line.key == key);
    let yes = ["yes", "y", "true", "t", "1", "on"];
    if listener.is_masked
        || !of_it("Accept").next_back().is_some_and(|line| yes.contains(&line.value.to_lowercase().as_str()))
    {
        return;
    }
    let mut longest = "";
    for line in of_it("ListenStream") {
        let instance = match line.value.as_str() {
            value if value.starts_with(['/', '@', '%']) || value.starts_with("vsock:") => "",
            value if value.starts_with("[::1]:") => OVER_LOOPBACK,
            value if value.starts_with('[') || !value.contains(':') => OVER_IPV6,
            _ => OVER_IPV4,
        };
        longest = if instance.len() > longest.len() { instance } else { longest };
    }
    if longest.is_empty() {
        return;
    }
    let Some(instance) = pattern(&unit.files.name.replacen('@', &format!("@{longest}"), 1)) else { return };
    for (id, loaded) in &unit.credentials.loaded {
        let Ok(name) = id.parse::<CredentialName>() else { continue };
        if is_at(&loaded.source, socket) && instance.can_ask_for(&name).is_err() {
            report.fault(
                &loaded.place,
                format!(
                    "{} does not start for each client: {listens} has Accept=yes, and with a long address of a client its name and \"{id}\" are too long to ask",
                    unit.units
                ),
                "let opnix write a file that the unit reads: `path`; or Accept=no",
            );
        }
    }
}

/// Volumes whose key is to come from the socket.
pub fn unlock(units: &UnitFiles, socket: &str, report: &mut Report) -> io::Result<()> {
    let Some(path) = units.crypttab() else { return Ok(()) };
    let text = match files::read(&path, CRYPTTAB_MAX) {
        Ok(text) => text,
        // Who is not root cannot read it everywhere.
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied].contains(&error.kind()) => {
            return Ok(());
        }
        Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    };
    for (number, line) in String::from_utf8_lossy(&text).lines().enumerate() {
        let mut fields = line.split_whitespace();
        let Some(volume) = fields.next().filter(|volume| !volume.starts_with('#')) else { continue };
        if fields.nth(1).is_some_and(|key| Path::new(key) == Path::new(socket)) {
            let place = Place { file: path.as_path().into(), position: Some((number + 1, 1)) };
            report.fault(
                &place,
                format!("volume {volume} is not unlocked: its key is asked for by no unit, and opnix gives it to none else"),
                "keep the key in a file, a TPM or a token; opnix has no secrets before the network is there",
            );
        }
    }
    Ok(())
}
