//! What happens to units whose secret changed: through `systemctl`, which acts on them in the right order.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::process::Command;

use tracing::warn;

use crate::config::OnChange;
use crate::records;

/// Acts on those that are active, on each only once.
pub fn act(units: &BTreeMap<String, OnChange>) {
    // A restart covers what else is planned for an instance of a template.
    let mut done = BTreeSet::new();
    let mut by_action: BTreeMap<&OnChange, Vec<String>> = BTreeMap::new();
    let mut planned: Vec<_> = units.iter().collect();
    planned.sort_by(|(_, one), (_, other)| other.cmp(one));
    for (pattern, action) in planned {
        match active(pattern) {
            Ok(names) => {
                let new = names.into_iter().filter(|name| done.insert(name.clone()));
                by_action.entry(action).or_default().extend(new);
            }
            Err(error) => warn!("whether {pattern} is active is not known: {error}"),
        }
    }
    for (action, names) in by_action {
        if names.is_empty() {
            continue;
        }
        let arguments: Vec<&str> = match action {
            OnChange::Nothing => continue,
            OnChange::Restart => vec!["try-restart", "--no-block"],
            OnChange::Reload => vec!["reload", "--no-block"],
            OnChange::ReloadOrRestart => vec!["try-reload-or-restart", "--no-block"],
            OnChange::Signal(signal) => vec!["kill", "--kill-whom=main", "--signal", signal.as_str()],
        };
        records::secret_changed(arguments[0], &names.join(" "));
        if let Err(error) =
            systemctl(&[&arguments[..], &names.iter().map(String::as_str).collect::<Vec<_>>()].concat())
        {
            warn!("systemctl {}: {error}", arguments[0]);
        }
    }
}

fn active(pattern: &str) -> io::Result<Vec<String>> {
    let listed =
        systemctl(&["list-units", "--plain", "--no-legend", "--state=active,reloading", "--", pattern])?;
    Ok(listed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

fn systemctl(arguments: &[&str]) -> io::Result<String> {
    let output = Command::new("systemctl").args(arguments).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
