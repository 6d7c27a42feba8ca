//! 1Password itself: what the service knows of it, its limits, and whether it gives every secret that is mapped.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use zlink::tokio::unix::Connection;

use super::Case;
use super::finding::{Finding, Kind};
use crate::cli::control::Unanswered;
use crate::cli::output::complain;
use crate::cli::status::relative;
use crate::config::{self, Config};
use crate::control::interface::{Budget, Control, Health, Renewal, Status, whole_status};
use crate::counted::counted;
use crate::documents::document;
use crate::providers::ask::service_account::library;
use crate::reference;

const AREA: &str = "1password";
const PATIENCE: Duration = Duration::from_secs(100);
/// To sign in, and to learn which vaults there are.
const SIGN_IN: u64 = 6;
/// How many items 1Password gives at once.
const BATCH: u64 = 50;

pub fn look(case: &Case) -> Vec<Finding> {
    let Some(config) = case.config() else { return Vec::new() };
    let mut findings: Vec<Finding> = core(&config.provider).into_iter().collect();
    let Some(status) = case.status().filter(|status| status.faults.is_none()) else {
        findings.push(Finding::unseen(AREA, "only the running service can try the secrets out"));
        return findings;
    };
    findings.extend(limits(status));
    let is_limited =
        findings.iter().any(|finding| [Kind::RateLimited.id(), Kind::BudgetSpent.id()].contains(&finding.id));
    if case.arguments.offline || is_limited {
        let why = if is_limited { "the limit" } else { "--offline" };
        findings.push(Finding::unseen(
            AREA,
            format!("{why}: the secrets were not tried out; this is how the last requests for them ended"),
        ));
        findings.extend(as_known(config, status));
        return findings;
    }
    match try_out(case, config, status) {
        Ok(found) => findings.extend(found),
        Err(finding) => findings.push(finding),
    }
    findings
}

fn core(provider: &config::Provider) -> Option<Finding> {
    let config::Provider::ServiceAccount { library, .. } = provider else { return None };
    let path = library.clone().unwrap_or_else(library::default_path);
    let shown = path.display();
    let mend = "pip download onepassword-sdk==0.4.2 --no-deps --only-binary=:all: --dest /tmp/opnix-core; opnix core install /tmp/opnix-core; systemctl restart opnix.service";
    match library::release_of(&path) {
        Ok(Some(_)) => None,
        Ok(None) => {
            let what = format!(
                "{shown} is none of the releases of 1Password's core library that opnix was tested with"
            );
            Some(Finding::warning(Kind::CoreUnusable, AREA, what).mend(mend))
        }
        Err(error) => {
            let what = format!("1Password's core library is not at {shown}: {error}");
            Some(Finding::fault(Kind::CoreUnusable, AREA, what).mend(mend))
        }
    }
}

/// What keeps the service from asking, or 1Password from answering.
fn limits(status: &Status) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(provider) = &status.provider else { return findings };
    let now = SystemTime::now();
    let Budget { hour, day, limited_until } = &status.budget;
    if let Some(until) = limited_until {
        let what = format!("1Password's limit on requests is reached; it is over {}", relative(*until, now));
        let mend = format!(
            "nothing: values that are kept are served, and the others are asked for then; {} says how to need fewer requests",
            document("docs/scale.md")
        );
        findings.push(Finding::fault(Kind::RateLimited, AREA, what).mend(mend));
    } else if matches!(provider.health, Health::Spent | Health::Limited) {
        let used = |window: &crate::control::interface::Window| match window.limit {
            Some(limit) => format!("{} of {limit}", window.used),
            None => window.used.to_string(),
        };
        let what = format!(
            "the budget of requests is used up: {} in the last hour, {} in the last day",
            used(hour),
            used(day)
        );
        let mend = format!(
            "raise `budget` in secrets.json if the account allows more, or ask less often (`refresh`); {}",
            document("docs/scale.md")
        );
        findings.push(Finding::fault(Kind::BudgetSpent, AREA, what).mend(mend));
    }
    findings
}

/// How the last requests for the secrets ended.
fn as_known(config: &Config, status: &Status) -> Vec<Finding> {
    let mut findings: Vec<Finding> = provider_down(status).into_iter().collect();
    let failed =
        status.secrets.iter().filter_map(|secret| Some((secret.name.as_str(), secret.error.as_deref()?)));
    findings.extend(by_error(config, failed.collect()));
    findings
}

fn provider_down(status: &Status) -> Option<Finding> {
    let provider = status.provider.as_ref().filter(|provider| provider.health == Health::Down)?;
    let error = provider.error.as_deref().unwrap_or("1Password does not work");
    Some(Finding::fault(of_everything(provider.error_kind.as_deref()?)?, AREA, "").lines(error))
}

/// What an error stands for that is not about one secret.
pub fn of_everything(kind: &str) -> Option<Kind> {
    Some(match kind {
        "token-missing" => Kind::TokenMissing,
        "token-invalid" => Kind::TokenInvalid,
        "token-rejected" | "account-refused" => Kind::TokenRejected,
        "rate-limited" => Kind::RateLimited,
        "name-unknown" => Kind::NameUnknown,
        "proxy-wrong" => Kind::ProxyWrong,
        "clock-wrong" => Kind::ClockWrong,
        "untrusted" | "certificates-unusable" => Kind::Untrusted,
        "unreachable" | "too-slow" => Kind::Unreachable,
        "core-unusable" => Kind::CoreUnusable,
        "out-of-order" | "provider-broken" | "machine-short" | "vault-file-unusable" => Kind::ProviderFails,
        _ => return None,
    })
}

/// Has the service ask for everything, and keep nothing of it.
fn try_out(case: &Case, config: &Config, status: &Status) -> Result<Vec<Finding>, Finding> {
    let names: Vec<String> = status.secrets.iter().map(|secret| secret.name.clone()).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let most = estimate(config);
    let is_local = matches!(config.provider, config::Provider::Local { .. });
    if !is_local {
        let (hour, day) = (status.budget.hour.left, status.budget.day.left);
        if [hour, day].into_iter().flatten().any(|left| left < most) {
            let what = format!(
                "the secrets were not tried out: that may take {most} requests, and fewer are left of the budget"
            );
            let mut findings = vec![Finding::unseen(AREA, what)];
            findings.extend(as_known(config, status));
            return Ok(findings);
        }
        complain!("asking 1Password for {}: up to {most} requests ...", counted(names.len(), "secret"));
    }
    let control = &case.arguments.control;
    let ask = async move |mut service: Connection| service.refresh(Vec::new(), Some(true)).await;
    let renewals = control.ask_within(PATIENCE, ask).map_err(|why| {
        let late = matches!(why, Unanswered::Late(_));
        let (_, lines) = control.describe(&why);
        let kind = if late { Kind::Unreachable } else { Kind::ServiceSilent };
        Finding::fault(kind, AREA, "").lines(&lines)
    })?;
    let mut findings = judge(config, &renewals.secrets);
    if findings.is_empty() {
        let cost = if is_local {
            String::new()
        } else {
            format!(", by {}", counted(spent(case, status), "request"))
        };
        findings.push(Finding::fine(AREA, format!("{} can be had{cost}", counted(names.len(), "secret"))));
    }
    Ok(findings)
}

/// How many requests the service has made meanwhile.
fn spent(case: &Case, before: &Status) -> u64 {
    let after = case.arguments.control.ask(async |mut service| whole_status(&mut service).await);
    after.map_or(0, |after| after.budget.day.used.saturating_sub(before.budget.day.used))
}

/// How many requests it takes at most: a list for each vault, and its items in batches, or one by one from a Connect server.
fn estimate(config: &Config) -> u64 {
    let references: BTreeSet<_> =
        config.entries.iter().flat_map(|entry| entry.content.references()).collect();
    let mut vaults: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for reference in &references {
        vaults.entry(&reference.vault).or_default().insert(&reference.item);
    }
    let files = references.iter().filter(|reference| reference.kind == reference::Kind::File).count() as u64;
    let of_items = |items: u64| match config.provider {
        config::Provider::Connect(_) => items,
        _ => items.div_ceil(BATCH),
    };
    SIGN_IN + files + vaults.values().map(|items| 1 + of_items(items.len() as u64)).sum::<u64>()
}

fn judge(config: &Config, renewals: &[Renewal]) -> Vec<Finding> {
    let failed: Vec<&Renewal> = renewals.iter().filter(|renewal| renewal.error.is_some()).collect();
    // What concerns all of them is said once.
    let of_all = failed.iter().find_map(|renewal| Some((of_everything(renewal.kind.as_deref()?)?, renewal)));
    if let Some((kind, renewal)) = of_all {
        let error = renewal.error.as_deref().unwrap_or_default();
        let all = failed.iter().all(|other| other.kind == renewal.kind);
        let mut findings = vec![Finding::fault(kind, AREA, "").lines(error)];
        if !all {
            let others =
                failed.iter().filter(|other| other.kind.as_deref().and_then(of_everything).is_none());
            findings.extend(by_error(
                config,
                others.filter_map(|other| Some((other.name.as_str(), other.error.as_deref()?))).collect(),
            ));
        }
        return findings;
    }
    by_error(
        config,
        failed
            .iter()
            .filter_map(|renewal| Some((renewal.name.as_str(), renewal.error.as_deref()?)))
            .collect(),
    )
}

/// One finding for each error, with all secrets that it concerns.
fn by_error(config: &Config, failed: Vec<(&str, &str)>) -> Vec<Finding> {
    let mut names: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, error) in failed {
        names.entry(error).or_default().push(name);
    }
    names
        .into_iter()
        .map(|(error, names)| {
            let shown: Vec<String> = names.iter().take(5).map(|name| format!("\"{name}\"")).collect();
            let more = names.len().saturating_sub(5);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            let place = config
                .entries
                .iter()
                .find(|entry| entry.name == names[0])
                .map(|entry| entry.place.to_string());
            let finding =
                Finding::fault(Kind::Reference, AREA, format!("{}{more}: ", shown.join(", "))).lines(error);
            match place {
                Some(place) => finding.at(place),
                None => finding,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_one_secret_is_no_fault_of_everything() {
        for kind in
            ["forbidden", "vault-not-found", "item-not-found", "field-not-found", "ambiguous", "value-empty"]
        {
            assert_eq!(of_everything(kind), None, "{kind}");
        }
        assert_eq!(of_everything("token-rejected"), Some(Kind::TokenRejected));
    }
}
