//! Is what was fetched kept for a boot without a network.

use std::path::Path;
use std::time::SystemTime;

use nix::sys::statvfs::statvfs;

use super::Case;
use super::finding::{Finding, Kind};
use super::token::is_volatile;
use crate::cli::status::relative;

const AREA: &str = "cache";
/// The key of the sealed cache, as opnix-setup.service keeps it.
const KEY: &str = "/etc/credstore.encrypted/opnix.cache-key";
const STATE: &str = "/var/lib/private/opnix";
/// What units need to start after a reboot without a network.
const KEPT: [&str; 3] = [STATE, "/etc/credstore.encrypted", "/var/lib/systemd"];
/// Less than this, in bytes, and the next write may fail.
const ROOM: u64 = 1 << 20;
const ANEW: &str = "systemctl restart opnix-setup.service opnix.service";

pub fn look(case: &Case) -> Vec<Finding> {
    if !case.is_of_the_system() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let has_key = Path::new(KEY).exists();
    if !has_key {
        let what = "there is no key for the sealed cache";
        findings.push(Finding::warning(Kind::CacheUnsealed, AREA, what).mend(ANEW));
    }
    for path in KEPT.map(Path::new) {
        if is_volatile(path) {
            let what = format!("{} is in memory", path.display());
            findings.push(Finding::warning(Kind::CacheVolatile, AREA, what).mend("keep it on a disk"));
        }
    }
    if let Some(cache) = case.status().map(|status| &status.cache) {
        if let Some(why) = cache.unsealed_because.as_ref().filter(|_| has_key) {
            let what = format!("values are in memory only: {why}");
            findings.push(
                Finding::warning(Kind::CacheUnsealed, AREA, what)
                    .mend(format!("{ANEW}; systemctl status opnix-key.service opnix-setup.service")),
            );
        }
        if let Some(why) = &cache.unwritable_because {
            let since = relative(cache.unwritable_since.unwrap_or_default(), SystemTime::now());
            let what = format!("nothing can be written to disk since {since}: {why}");
            findings.push(
                Finding::fault(Kind::CacheUnwritable, AREA, what)
                    .mend(format!("df -h {STATE}; then: opnix refresh")),
            );
        }
    }
    if findings.iter().all(|finding| finding.id != Kind::CacheUnwritable.id())
        && let Ok(disk) = statvfs(STATE)
        && disk.blocks_available().saturating_mul(disk.fragment_size()) < ROOM
    {
        let what = format!("the disk of {STATE} is full");
        findings.push(Finding::fault(Kind::CacheUnwritable, AREA, what).mend(format!("df -h {STATE}")));
    }
    if findings.is_empty() {
        let written = case.status().and_then(|status| status.cache.written_at);
        let written =
            written.map_or(String::new(), |at| format!(", last written {}", relative(at, SystemTime::now())));
        findings.push(Finding::fine(AREA, format!("there is a key, and room on the disk{written}")));
    }
    findings
}
