//! Whether systemd stops us to start us again. SIGTERM does not say; the job that systemd is working on does.

use std::process::Command;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

const TIME_LIMIT: Duration = Duration::from_secs(3);

/// True only when systemd says so: a request that is refused can be asked again, a lost one cannot.
pub async fn is_restart() -> bool {
    let answer = timeout(TIME_LIMIT, spawn_blocking(ask)).await;
    matches!(answer, Ok(Ok(Some(kind))) if kind.ends_with("restart"))
}

/// The type of the job for our own unit, in the words of `systemctl list-jobs`: number, unit, type, state.
fn ask() -> Option<String> {
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    let unit = path.rsplit('/').next()?;
    let manager = if path.contains("/user@") { "--user" } else { "--system" };
    let output = Command::new("systemctl")
        .args([manager, "list-jobs", "--plain", "--no-legend", unit])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, job_unit, kind, ..] if job_unit == unit => Some(kind.to_owned()),
        _ => None,
    })
}
